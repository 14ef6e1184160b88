//! The heap: embedded-alloc between the image and 0x0800_0000, for the decoded picture and the engine's scratch memory.
//!
//! It locks by critical sections: interrupts masked on this core, and a spin lock against the others.

use core::sync::atomic::{AtomicUsize, Ordering};

use aarch64_cpu::registers::{DAIF, Readable, Writeable};
use embedded_alloc::LlffHeap;

use crate::cores::core_number;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

/// Where the firmware may put files from (config.txt).
pub const END: usize = 0x0800_0000;

unsafe extern "C" {
    /// From image.ld; its address is what counts.
    static __heap_start: u8;
}

/// Gives the heap its memory; once, on core 0.
pub fn init() {
    let start = (&raw const __heap_start).addr();
    // SAFETY: called once, before any allocation; image.ld puts nothing between the two addresses, and they are mapped.
    unsafe { HEAP.init(start, END - start) };
}

struct Masked;
critical_section::set_impl!(Masked);

const FREE: usize = usize::MAX;
/// The core that is in a critical section.
static OWNER: AtomicUsize = AtomicUsize::new(FREE);
/// What `acquire` returns when this core was in one already. (Otherwise, bits 6 to 9 of DAIF, moved down.)
const NESTED: u8 = 0x80;

// SAFETY: between acquire and release of the outermost section this core has its interrupts masked, and OWNER keeps the
// other cores out; Acquire and Release order what the sections touch.
unsafe impl critical_section::Impl for Masked {
    unsafe fn acquire() -> u8 {
        let masks = (DAIF.get() >> 6) as u8 & 0xf;
        DAIF.set(0xf << 6);
        let this = core_number();
        if OWNER.load(Ordering::Relaxed) == this {
            return NESTED;
        }
        while OWNER.compare_exchange_weak(FREE, this, Ordering::Acquire, Ordering::Relaxed).is_err() {
            core::hint::spin_loop();
        }
        masks
    }

    unsafe fn release(state: u8) {
        if state != NESTED {
            OWNER.store(FREE, Ordering::Release);
            DAIF.set(u64::from(state) << 6);
        }
    }
}
