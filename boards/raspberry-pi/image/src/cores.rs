//! The secondary cores: how they are started, and the engine's `Executor` over them.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aarch64_cpu::asm::{barrier, sev, wfe};
use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use vitlet::Executor;

use crate::board::Board;
use crate::timer;

/// Cores of every Pi from the 3 on; image.ld has as many stacks.
const CORES: usize = 4;

/// The number of the core that asks. As `core_number` in boot.s.
pub fn core_number() -> usize {
    let mpidr = MPIDR_EL1.get();
    let shift = if mpidr >> 24 & 1 == 1 { 8 } else { 0 };
    (mpidr >> shift) as usize & 0xff
}

/// Writes the cache lines of `value` to memory and drops them: for readers past the caches.
pub fn clean_and_invalidate<T>(value: &T) {
    clean_and_invalidate_at((&raw const *value).addr(), size_of::<T>());
}

fn clean_and_invalidate_at(start: usize, len: usize) {
    // 64 bytes: the smallest line of the three boards, and the only one.
    for line in (start & !63..start + len).step_by(64) {
        // SAFETY: cache maintenance by address; memory as this core sees it stays as it is.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    barrier::dsb(barrier::SY);
}

/// A job as the secondary cores see it.
type Job = *const (dyn Fn() + Sync);

/// What core 0 tells the others.
struct Shared {
    /// Valid from when `round` is counted up until `working` is 0 again.
    job: UnsafeCell<Option<Job>>,
    /// Counts the jobs.
    round: AtomicUsize,
    /// Secondary cores that have not finished the job.
    working: AtomicUsize,
    /// Secondary cores that wait for jobs.
    online: AtomicUsize,
    /// A job is being run.
    busy: AtomicBool,
}

// SAFETY: `job` is written only by the core that set `busy`, while `working` is 0, so while no other core reads it; it
// points to a Sync closure.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared {
    job: UnsafeCell::new(None),
    round: AtomicUsize::new(0),
    working: AtomicUsize::new(0),
    online: AtomicUsize::new(0),
    busy: AtomicBool::new(false),
};

unsafe extern "C" {
    /// In boot.s.
    fn _secondary();
}

/// The cores beside core 0, waiting for jobs.
pub struct SecondaryCores {
    count: usize,
}

impl SecondaryCores {
    /// Wakes them, and waits up to a second for each. Those that do not come are done without.
    pub fn start(board: Board) -> Self {
        let entry = _secondary as *const () as usize;
        for core in 1..CORES {
            if board.has_spin_table() {
                release_from_spin_table(core, entry);
            } else {
                psci_cpu_on(core, entry);
            }
            if timer::wait_until(|| SHARED.online.load(Ordering::Acquire) == core).is_none() {
                break;
            }
        }
        Self { count: SHARED.online.load(Ordering::Acquire) }
    }
}

/// The firmware's boot code holds core n in a loop until a word is not zero, at 0xd8 + 8 n, and goes there
/// (raspberrypi/tools, armstub8.S).
fn release_from_spin_table(core: usize, entry: usize) {
    let slot = 0xd8 + 8 * core;
    // SAFETY: the spin table, in mapped memory that nothing else uses.
    unsafe { core::ptr::with_exposed_provenance_mut::<usize>(slot).write_volatile(entry) };
    // The waiting core reads with its caches off.
    clean_and_invalidate_at(slot, size_of::<usize>());
    sev();
}

/// CPU_ON of the Power State Coordination Interface (Arm DEN 0022), which the Pi 5's firmware (TF-A) implements.
fn psci_cpu_on(core: usize, entry: usize) {
    const CPU_ON: usize = 0xc400_0003;
    // The A76 counts cores in Aff1.
    let target = core << 8;
    // SAFETY: the calling convention for secure monitor calls (Arm DEN 0028): x0 to x17 may change. `entry` sets up all
    // it needs.
    unsafe {
        asm!(
            "smc #0",
            inout("x0") CPU_ON => _,
            inout("x1") target => _,
            inout("x2") entry => _,
            inout("x3") 0 => _,
            clobber_abi("C"),
            options(nostack),
        );
    }
}

/// Each secondary core comes here from boot.s, with MMU and caches on.
#[unsafe(no_mangle)]
extern "C" fn secondary_main() -> ! {
    let mut seen = SHARED.round.load(Ordering::Acquire);
    SHARED.online.fetch_add(1, Ordering::Release);
    loop {
        while SHARED.round.load(Ordering::Acquire) == seen {
            wfe();
        }
        seen = seen.wrapping_add(1);
        // SAFETY: the round was counted up after the job was written, and `run` does not return before `working` is 0.
        if let Some(job) = unsafe { *SHARED.job.get() } {
            // SAFETY: as above, the closure is alive, and it is Sync.
            unsafe { (*job)() };
        }
        SHARED.working.fetch_sub(1, Ordering::Release);
        wake();
    }
}

/// Makes earlier stores visible, then ends every core's `wfe`.
fn wake() {
    barrier::dsb(barrier::ISHST);
    sev();
}

impl Executor for SecondaryCores {
    fn threads(&self) -> usize {
        self.count + 1
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        // A job inside a job, or from another core: alone, since the cores are taken.
        if self.count == 0 || SHARED.busy.swap(true, Ordering::Acquire) {
            return job();
        }
        // SAFETY: only the lifetime changes; the pointer is not used after this call.
        let erased = unsafe { core::mem::transmute::<*const (dyn Fn() + Sync + '_), Job>(job) };
        // SAFETY: `busy` is ours and no core works, so nobody reads it now.
        unsafe { *SHARED.job.get() = Some(erased) };
        SHARED.working.store(self.count, Ordering::Relaxed);
        SHARED.round.fetch_add(1, Ordering::Release);
        wake();
        job();
        while SHARED.working.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
        SHARED.busy.store(false, Ordering::Release);
    }
}
