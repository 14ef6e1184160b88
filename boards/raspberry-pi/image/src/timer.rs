//! Time: the architectural timer (wall clock) and the cycle counter.

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};
use vitlet_firmware::Clock;

/// Ticks of the architectural timer.
pub fn now() -> u64 {
    // Not before the instructions before it.
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// Ticks per second: 19.2 MHz on a Pi 3, 54 MHz on a Pi 4 and 5, as the firmware has noted in CNTFRQ_EL0.
fn hz() -> u64 {
    CNTFRQ_EL0.get().max(1)
}

/// The architectural timer for the report.
pub fn clock() -> Clock {
    Clock { now, hz: hz() }
}

/// Starts this core's cycle counter.
pub fn init() {
    // E: counters on, C: cycle counter to zero, LC: 64 bits.
    let control: u64 = 1 | 1 << 2 | 1 << 6;
    let cycle_counter: u64 = 1 << 31;
    // SAFETY: the performance monitors, which boot.s leaves to EL1 and nothing else uses.
    unsafe {
        asm!(
            "msr pmcr_el0, {control}",
            "msr pmcntenset_el0, {cycle_counter}",
            "isb",
            control = in(reg) control,
            cycle_counter = in(reg) cycle_counter,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Cycles of this core since `init`.
fn cycles() -> u64 {
    let cycles;
    // SAFETY: reads a counter.
    unsafe { asm!("mrs {}, pmccntr_el0", out(reg) cycles, options(nomem, nostack, preserves_flags)) };
    cycles
}

/// Cycles of this core per microsecond, counted for 10 ms: the real clock.
pub fn measure_mhz() -> u64 {
    let (start, first) = (now(), cycles());
    while now() - start < hz() / 100 {}
    (cycles() - first) / 10_000
}

/// Waits for `condition`, a second at most.
pub fn wait_until(condition: impl Fn() -> bool) -> Option<()> {
    let start = now();
    while !condition() {
        if now() - start > hz() {
            return None;
        }
        core::hint::spin_loop();
    }
    Some(())
}
