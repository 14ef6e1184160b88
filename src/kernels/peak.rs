//! The most multiply-adds that one core does: loops of nothing but the instruction that a kernel is made of, with as
//! many accumulators as hide its latency. Measured beside the kernel, so that neither clock nor vendor need be known.
//!
//! For `vitlet bench --profile` and `benches/kernels`. Feature `bench`: no part of the stable interface.

use std::time::Instant;

use super::{Kernels, Level};

/// What kind of multiply-add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mac {
    /// 8-bit operands, exact in i32.
    Int8,
    /// f16 operands, accumulated in f16.
    F16,
    /// f32.
    F32,
}

/// Times around the loop in one call of [`Peak::run`].
const ROUNDS: u64 = 4096;

/// A loop, and the multiply-adds of one time around it.
#[derive(Clone, Copy)]
pub struct Peak {
    /// The instructions, for the table.
    pub name: &'static str,
    macs: u64,
    body: unsafe fn(u64),
}

impl Peak {
    /// That of kernels for a kind of multiply-add; none for `scalar`, which is not tuned, for f16 where it is not
    /// computed in, and on architectures without a loop.
    pub fn of(kernels: Kernels, mac: Mac) -> Option<Self> {
        let (name, macs, body) = loop_of(kernels.0, mac)?;
        Some(Self { name, macs, body })
    }

    /// Runs the loop; returns the multiply-adds done.
    pub fn run(&self) -> u64 {
        // SAFETY: `of` pairs each loop with kernels that need the same instructions, and whoever has such kernels has a
        // CPU with them.
        unsafe { (self.body)(ROUNDS) };
        ROUNDS * self.macs
    }

    /// Multiply-adds per nanosecond: the best of `turns` short runs.
    pub fn measure(&self, turns: usize) -> f64 {
        let turn = |_| {
            let start = Instant::now();
            let macs = self.run();
            macs as f64 / start.elapsed().as_nanos().max(1) as f64
        };
        (0..turns).map(turn).fold(0.0, f64::max)
    }
}

/// The instructions, the multiply-adds of one time around, and the loop.
type Loop = (&'static str, u64, unsafe fn(u64));

#[cfg(target_arch = "aarch64")]
use arm::loop_of;
#[cfg(target_arch = "x86_64")]
use x86::loop_of;

/// No loop has been written for other architectures.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn loop_of(_: Level, _: Mac) -> Option<Loop> {
    None
}

/// A function that puts zeros into registers and then repeats instructions on them, `rounds` times: `$counter` counts
/// down.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! peak_loop {
    (
        $(#[$attribute:meta])* $name:ident, $needs:literal, clear [$($clear:literal),*], repeat [$($repeat:literal),*],
        next [$($next:literal),*], $counter:tt, $abi:literal
    ) => {
        /// # Safety
        #[doc = concat!("The CPU must have ", $needs, ".")]
        $(#[$attribute])*
        pub unsafe fn $name(rounds: u64) {
            // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
            unsafe {
                core::arch::asm!(
                    $($clear,)*
                    "2:",
                    $($repeat,)*
                    $($next,)*
                    inout($counter) rounds => _,
                    clobber_abi($abi),
                    options(nomem, nostack),
                );
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Level, Loop, Mac};

    pub(super) fn loop_of(level: Level, mac: Mac) -> Option<Loop> {
        Some(match (level, mac) {
            (Level::Scalar, _) | (_, Mac::F16) => return None,
            (Level::Avx2, Mac::Int8) => ("vpmaddwd + vpaddd", 8 * 16, vpmaddwd),
            (Level::Avx2 | Level::AvxVnni, Mac::F32) => ("vfmadd231ps ymm", 14 * 8, fma_ymm),
            (Level::AvxVnni, Mac::Int8) => ("vpdpbusd ymm", 14 * 32, vpdpbusd_ymm),
            (Level::Avx512Vnni, Mac::Int8) => ("vpdpbusd zmm", 14 * 64, vpdpbusd),
            (Level::Avx512Vnni, Mac::F32) => ("vfmadd231ps zmm", 14 * 16, fma_zmm),
        })
    }

    macro_rules! x86_loop {
        ($name:ident, $needs:literal, $clear:literal, [$($repeat:literal),*]) => {
            peak_loop! {
                $name, $needs,
                clear [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15", $clear, ".endr"],
                repeat [$($repeat),*],
                next ["dec rcx", "jnz 2b", "vzeroupper"], "rcx", "sysv64"
            }
        };
    }

    x86_loop! {
        vpmaddwd, "AVX2", "vpxor ymm\\i, ymm\\i, ymm\\i",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7", "vpmaddwd ymm13, ymm14, ymm15", "vpaddd ymm\\i, ymm\\i, ymm13", ".endr"]
    }
    x86_loop! {
        fma_ymm, "FMA", "vpxor ymm\\i, ymm\\i, ymm\\i",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13", "vfmadd231ps ymm\\i, ymm14, ymm15", ".endr"]
    }
    x86_loop! {
        vpdpbusd_ymm, "AVX-VNNI", "vpxor ymm\\i, ymm\\i, ymm\\i",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13", "{{vex}} vpdpbusd ymm\\i, ymm14, ymm15", ".endr"]
    }
    x86_loop! {
        vpdpbusd, "AVX-512 VNNI", "vpxord zmm\\i, zmm\\i, zmm\\i",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13", "vpdpbusd zmm\\i, zmm14, zmm15", ".endr"]
    }
    x86_loop! {
        fma_zmm, "AVX-512", "vpxord zmm\\i, zmm\\i, zmm\\i",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13", "vfmadd231ps zmm\\i, zmm14, zmm15", ".endr"]
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Level, Loop, Mac};

    pub(super) fn loop_of(level: Level, mac: Mac) -> Option<Loop> {
        Some(match (level, mac) {
            (Level::Scalar, _) | (Level::Neon, Mac::F16) => return None,
            (Level::Neon | Level::NeonFp16, Mac::Int8) => ("smull + smlal + sadalp", 8 * 16, smull),
            (Level::NeonDot, Mac::Int8) => ("sdot", 16 * 16, sdot),
            (Level::NeonI8mm, Mac::Int8) => ("smmla", 16 * 32, smmla),
            (_, Mac::F16) => ("fmla .8h", 16 * 8, fmla_f16),
            (_, Mac::F32) => ("fmla .4s", 16 * 4, fmla),
        })
    }

    macro_rules! arm_loop {
        ($(#[$attribute:meta])* $name:ident, $needs:literal, [$($repeat:literal),*]) => {
            peak_loop! {
                $(#[$attribute])* $name, $needs,
                clear [
                    ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                    "movi v\\i\\().16b, 0", ".endr"
                ],
                repeat [$($repeat),*],
                next ["subs x9, x9, 1", "b.ne 2b"], "x9", "C"
            }
        };
    }

    arm_loop! {
        smull, "NEON",
        [
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7", "smull v2\\i\\().8h, v30.8b, v31.8b", "smlal v2\\i\\().8h, v30.8b, v31.8b",
            "sadalp v\\i\\().4s, v2\\i\\().8h", ".endr"
        ]
    }
    arm_loop! {
        #[target_feature(enable = "dotprod")]
        sdot, "the dot product instructions",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23", "sdot v\\i\\().4s, v30.16b, v31.16b", ".endr"]
    }
    arm_loop! {
        #[target_feature(enable = "i8mm")]
        smmla, "FEAT_I8MM",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23", "smmla v\\i\\().4s, v30.16b, v31.16b", ".endr"]
    }
    arm_loop! {
        #[target_feature(enable = "fp16")]
        fmla_f16, "arithmetic in f16",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23", "fmla v\\i\\().8h, v30.8h, v31.8h", ".endr"]
    }
    arm_loop! {
        fmla, "NEON",
        [".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23", "fmla v\\i\\().4s, v30.4s, v31.4s", ".endr"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_but_scalar_has_a_peak() {
        for kernels in Kernels::available() {
            for mac in [Mac::Int8, Mac::F16, Mac::F32] {
                let peak = Peak::of(kernels, mac);
                let expected = kernels != Kernels::scalar() && (mac != Mac::F16 || kernels.computes_f16());
                assert_eq!(peak.is_some(), expected, "{} {mac:?}", kernels.name());
                if let Some(peak) = peak {
                    let rate = peak.measure(2);
                    assert!(rate.is_finite() && rate > 0.0, "{}: {rate}", peak.name);
                }
            }
        }
    }
}
