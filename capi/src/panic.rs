//! Without an operating system there is nobody to tell: a panic, which only a bug can cause, traps, so that the
//! firmware's fault handler sees it.

use core::panic::PanicInfo;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: an undefined instruction: an exception that is taken at the address of the panic.
        unsafe {
            core::arch::asm!("udf #0", options(nomem, nostack));
        }
        core::hint::spin_loop();
    }
}
