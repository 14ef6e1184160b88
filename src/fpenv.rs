//! The floating-point environment that bit-exact results need: round to nearest even, no flushing of denormals, no
//! traps.
//!
//! A host built with `-ffast-math` sets flush-to-zero in its threads, one that does interval arithmetic rounds down,
//! and bare metal starts with anything. Whatever the engine computes, it computes within [`exact`]: every public
//! function that touches floats does, and every thread that helps. (32-bit ARM is left as it is found.)
#![allow(unsafe_code)]

use core::marker::PhantomData;

/// Computes `work` in the default environment, and restores the previous one.
pub(crate) fn exact<R>(work: impl FnOnce() -> R) -> R {
    let _env = FpEnv::set();
    apart(work)
}

/// Out of line: the compiler takes the environment for the default one everywhere, so it might move arithmetic across
/// the change.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// While it lives, this thread computes in the default IEEE environment.
pub(crate) struct FpEnv {
    found: register::Word,
    /// The register is the thread's own: the guard must be dropped where it was made.
    not_send: PhantomData<*const ()>,
}

impl FpEnv {
    pub(crate) fn set() -> Self {
        let found = register::read();
        if found != register::DEFAULT {
            register::write(register::DEFAULT);
        }
        Self { found, not_send: PhantomData }
    }
}

impl Drop for FpEnv {
    fn drop(&mut self) {
        register::write(self.found);
    }
}

/// MXCSR, which also holds the exception flags: flags that a host has not read yet are restored with the rest.
#[cfg(all(any(target_arch = "x86_64", all(target_arch = "x86", target_feature = "sse2")), not(miri)))]
mod register {
    use core::arch::asm;

    pub(super) type Word = u32;

    /// Round to nearest, denormals kept, every exception masked, no flag raised.
    pub(super) const DEFAULT: Word = 0x1f80;

    pub(super) fn read() -> Word {
        let mut mxcsr = 0;
        // SAFETY: stores MXCSR into the local, which is what the instruction writes to; this target has SSE.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
        }
        mxcsr
    }

    pub(super) fn write(mxcsr: Word) {
        // SAFETY: the value is the default or was read from MXCSR, so no reserved bit is set. No `preserves_flags`: the
        // exception flags change (Intel SDM, volume 1, 10.2.3). No `readonly`: loads and stores stay on their side of
        // the change.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack));
        }
    }
}

/// FPCR. The flags, NZCV and FPSR, are other registers.
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod register {
    use core::arch::asm;

    pub(super) type Word = u64;

    /// Nearest; FZ, FZ16, FIZ, AH, NEP, AHP and DN off; traps off.
    pub(super) const DEFAULT: Word = 0;

    pub(super) fn read() -> Word {
        let fpcr;
        // SAFETY: FPCR can be read at every exception level where floating point is enabled.
        unsafe {
            asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags));
        }
        fpcr
    }

    pub(super) fn write(fpcr: Word) {
        // SAFETY: the value is 0 or was read from FPCR. No `nomem`: loads and stores stay on their side of the change.
        unsafe {
            asm!("msr fpcr, {}", in(reg) fpcr, options(nostack, preserves_flags));
        }
    }
}

/// Other architectures, and Miri, which has no such registers.
#[cfg(any(
    miri,
    not(any(target_arch = "x86_64", all(target_arch = "x86", target_feature = "sse2"), target_arch = "aarch64"))
))]
mod register {
    pub(super) type Word = u32;

    pub(super) const DEFAULT: Word = 0;

    pub(super) fn read() -> Word {
        DEFAULT
    }

    pub(super) fn write(_: Word) {}
}

#[cfg(all(
    test,
    feature = "std",
    not(miri),
    any(target_arch = "x86_64", all(target_arch = "x86", target_feature = "sse2"), target_arch = "aarch64")
))]
mod tests {
    use super::*;

    /// Flush-to-zero with rounding towards minus infinity, as a careless host leaves it; on x86 with a flag raised.
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    const CARELESS: register::Word = register::DEFAULT | 0x8040 | 0x2000 | 0x0010;
    #[cfg(target_arch = "aarch64")]
    const CARELESS: register::Word = (1 << 24) | (2 << 22);

    #[test]
    fn sets_and_restores() {
        let before = register::read();
        register::write(CARELESS);
        // Opaque to the compiler, so that the CPU computes it. It is inexact, which raises a flag.
        let inside = exact(|| (core::hint::black_box(1e-30_f32) * core::hint::black_box(1e-10_f32)).to_bits());
        let after = register::read();
        register::write(before);
        assert_eq!(inside, 1e-40_f32.to_bits(), "denormals are kept inside");
        assert_eq!(after, CARELESS, "what was found comes back");
    }
}
