//! The floating-point environment that bit-exact results need: round to nearest even, no flushing of denormals, no traps.
//!
//! A host built with `-ffast-math` sets flush-to-zero in its threads, and bare metal starts with anything. Each thread
//! (or core) that computes holds one [`FpEnv`]; what it found comes back when the guard is dropped.
#![allow(unsafe_code)]

/// Round to nearest, denormals kept, every exception masked; sticky exception flags are carried along unharmed.
#[cfg(target_arch = "x86_64")]
const DEFAULT: u64 = 0x1f80;
/// FPCR = 0: nearest, FZ, FZ16, FIZ, AH, NEP, AHP and DN off, traps off.
#[cfg(not(target_arch = "x86_64"))]
const DEFAULT: u64 = 0;

/// While it lives, this thread computes in the default IEEE environment.
pub(crate) struct FpEnv {
    found: u64,
    /// The registers are the thread's own: the guard must be dropped where it was made.
    not_send: core::marker::PhantomData<*const ()>,
}

impl FpEnv {
    pub(crate) fn set() -> Self {
        let found = read();
        if found != DEFAULT {
            write(DEFAULT);
        }
        Self { found, not_send: core::marker::PhantomData }
    }
}

impl Drop for FpEnv {
    fn drop(&mut self) {
        write(self.found);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn read() -> u64 {
    let mut mxcsr = 0_u32;
    // SAFETY: stores MXCSR into the local, which is what the instruction writes to; SSE is in the x86-64 baseline.
    unsafe {
        core::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
    }
    u64::from(mxcsr)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn write(value: u64) {
    let mxcsr = value as u32;
    // SAFETY: the value is the default or was read from MXCSR, so no reserved bit is set.
    unsafe {
        core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack, preserves_flags));
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
fn read() -> u64 {
    let fpcr;
    // SAFETY: FPCR can be read at every exception level where floating point is enabled.
    unsafe {
        core::arch::asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags));
    }
    fpcr
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
fn write(value: u64) {
    // SAFETY: the value is 0 or was read from FPCR. No `nomem`: loads and stores stay on their side of the change.
    unsafe {
        core::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags));
    }
}

/// Other architectures, and Miri, which has no such registers: there the environment is the default one already.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn read() -> u64 {
    DEFAULT
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn write(_value: u64) {}

#[cfg(all(test, feature = "std", not(miri)))]
mod tests {
    use super::*;

    /// Flush-to-zero with rounding towards minus infinity, as a careless host leaves it.
    #[cfg(target_arch = "x86_64")]
    const CARELESS: u64 = 0x1f80 | 0x8040 | 0x2000;
    #[cfg(target_arch = "aarch64")]
    const CARELESS: u64 = (1 << 24) | (2 << 22);

    #[test]
    fn sets_and_restores() {
        let before = read();
        write(CARELESS);
        let inside = {
            let _env = FpEnv::set();
            // Opaque to the compiler, so that the CPU computes it.
            (core::hint::black_box(1e-30_f32) * core::hint::black_box(1e-10_f32)).to_bits()
        };
        let after = read();
        write(before);
        assert_eq!(inside, 1e-40_f32.to_bits(), "denormals are kept inside");
        assert_eq!(after & CARELESS, CARELESS, "what was found comes back");
    }
}
