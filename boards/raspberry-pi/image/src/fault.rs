//! When something goes wrong: the output of the vectors, panics, and how the machine stops.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::asm::wfe;

use crate::console::{console, println};
use crate::cores::core_number;

/// `hlt #0xf000`, the semihosting call, and where it is.
const SEMIHOSTING_CALL: u32 = 0xd45e_0000;

/// All vectors of boot.s come here. `kind`: 0 to 15, the vector's number; the others are the registers at that time.
#[unsafe(no_mangle)]
extern "C" fn fault(kind: usize, esr: u64, elr: u64, far: u64) -> ! {
    static FAULTED: AtomicBool = AtomicBool::new(false);
    // Without a debugger (so not in QEMU) the semihosting call is an undefined instruction: the end, not a fault. A
    // fault while one is printed is not worth a second line.
    if FAULTED.swap(true, Ordering::Relaxed) || is_semihosting_call(esr, elr) {
        halt();
    }
    let source = ["synchronous exception", "IRQ", "FIQ", "SError"][kind % 4];
    let from = [" on SP_EL0", "", " from AArch64 EL0", " from AArch32 EL0"][kind / 4 % 4];
    println!("\nfault: {source}{from} on core {}: {}", core_number(), class(esr));
    println!("  ESR_EL1 {esr:#010x}  ELR_EL1 {elr:#010x}  FAR_EL1 {far:#010x}");
    stop(true)
}

/// ESR_EL1.EC in words (Arm Architecture Reference Manual, D24.2.37).
fn class(esr: u64) -> &'static str {
    match esr >> 26 & 0x3f {
        0x00 => "undefined instruction",
        0x07 => "FP/SIMD access trapped",
        0x18 => "system register access trapped",
        0x20 | 0x21 => "instruction abort",
        0x22 => "program counter not aligned",
        0x24 | 0x25 => "data abort",
        0x26 => "stack pointer not aligned",
        0x2f => "SError",
        0x3c => "breakpoint",
        _ => "see ESR_EL1.EC",
    }
}

fn is_semihosting_call(esr: u64, elr: u64) -> bool {
    // SAFETY: an undefined instruction was fetched from there, so it can be read.
    esr >> 26 & 0x3f == 0 && unsafe { (elr as *const u32).read() } == SEMIHOSTING_CALL
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("\n{info}");
    stop(true)
}

/// The end: tells QEMU the exit status, by semihosting; a board halts.
pub fn stop(failed: bool) -> ! {
    console().flush();
    // ADP_Stopped_ApplicationExit and the exit status (Arm semihosting, SYS_EXIT).
    let block: [u64; 2] = [0x2_0026, failed.into()];
    // SAFETY: the call reads `block` and does not return; without a debugger it ends in `fault`.
    unsafe {
        asm!("hlt #0xf000", in("x0") 0x18, in("x1") block.as_ptr(), options(nostack));
    }
    halt()
}

fn halt() -> ! {
    loop {
        wfe();
    }
}
