//! The most multiply-adds that one core does: loops of nothing but the instruction that a kernel is made of, with as many
//! accumulators as hide its latency. Measured beside the kernel, so that neither clock nor vendor need be known.

use core::arch::asm;

/// What kind of multiply-add.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mac {
    Int8,
    F32,
}

/// Times around the loop in one call of [`Peak::run`].
const ROUNDS: u64 = 4096;

/// A loop, and the multiply-adds of one time around it.
pub struct Peak {
    /// The instructions, for the table.
    pub name: &'static str,
    macs: u64,
    body: unsafe fn(u64),
}

impl Peak {
    /// That of the kernels of this name; none for `scalar`, which is not tuned.
    pub fn of(kernels: &str, mac: Mac) -> Option<Self> {
        let (name, macs, body): (_, _, unsafe fn(u64)) = match (kernels, mac) {
            #[cfg(target_arch = "x86_64")]
            ("avx2", Mac::Int8) => ("vpmaddwd + vpaddd", 8 * 16, x86::vpmaddwd),
            #[cfg(target_arch = "x86_64")]
            ("avx2", Mac::F32) => ("vfmadd231ps ymm", 14 * 8, x86::fma_ymm),
            #[cfg(target_arch = "x86_64")]
            ("avx512-vnni", Mac::Int8) => ("vpdpbusd zmm", 14 * 64, x86::vpdpbusd),
            #[cfg(target_arch = "x86_64")]
            ("avx512-vnni", Mac::F32) => ("vfmadd231ps zmm", 14 * 16, x86::fma_zmm),
            #[cfg(target_arch = "aarch64")]
            ("neon", Mac::Int8) => ("smull + smlal + sadalp", 8 * 16, arm::smull),
            #[cfg(target_arch = "aarch64")]
            ("neon-dotprod", Mac::Int8) => ("sdot", 16 * 16, arm::sdot),
            #[cfg(target_arch = "aarch64")]
            (_, Mac::F32) if kernels != "scalar" => ("fmla", 16 * 4, arm::fmla),
            _ => return None,
        };
        Some(Self { name, macs, body })
    }

    /// Runs the loop; returns the multiply-adds done.
    pub fn run(&self) -> u64 {
        // SAFETY: `of` pairs each loop with the kernels that need the same instructions, and its caller has such kernels.
        unsafe { (self.body)(ROUNDS) };
        ROUNDS * self.macs
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::asm;

    /// # Safety
    /// The CPU must have AVX2.
    pub unsafe fn vpmaddwd(rounds: u64) {
        // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
        unsafe {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "vpxor ymm\\i, ymm\\i, ymm\\i",
                ".endr",
                "2:",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7",
                "vpmaddwd ymm13, ymm14, ymm15",
                "vpaddd ymm\\i, ymm\\i, ymm13",
                ".endr",
                "dec rcx",
                "jnz 2b",
                "vzeroupper",
                inout("rcx") rounds => _,
                clobber_abi("sysv64"),
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The CPU must have FMA.
    pub unsafe fn fma_ymm(rounds: u64) {
        // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
        unsafe {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "vpxor ymm\\i, ymm\\i, ymm\\i",
                ".endr",
                "2:",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13",
                "vfmadd231ps ymm\\i, ymm14, ymm15",
                ".endr",
                "dec rcx",
                "jnz 2b",
                "vzeroupper",
                inout("rcx") rounds => _,
                clobber_abi("sysv64"),
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The CPU must have AVX-512 VNNI.
    pub unsafe fn vpdpbusd(rounds: u64) {
        // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
        unsafe {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "vpxord zmm\\i, zmm\\i, zmm\\i",
                ".endr",
                "2:",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13",
                "vpdpbusd zmm\\i, zmm14, zmm15",
                ".endr",
                "dec rcx",
                "jnz 2b",
                "vzeroupper",
                inout("rcx") rounds => _,
                clobber_abi("sysv64"),
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The CPU must have AVX-512.
    pub unsafe fn fma_zmm(rounds: u64) {
        // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
        unsafe {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "vpxord zmm\\i, zmm\\i, zmm\\i",
                ".endr",
                "2:",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13",
                "vfmadd231ps zmm\\i, zmm14, zmm15",
                ".endr",
                "dec rcx",
                "jnz 2b",
                "vzeroupper",
                inout("rcx") rounds => _,
                clobber_abi("sysv64"),
                options(nomem, nostack),
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::asm;

    /// # Safety
    /// The CPU must have NEON.
    pub unsafe fn smull(rounds: u64) {
        // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
        unsafe {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                "movi v\\i\\().16b, 0",
                ".endr",
                "2:",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7",
                "smull v2\\i\\().8h, v30.8b, v31.8b",
                "smlal v2\\i\\().8h, v30.8b, v31.8b",
                "sadalp v\\i\\().4s, v2\\i\\().8h",
                ".endr",
                "subs x9, x9, 1",
                "b.ne 2b",
                inout("x9") rounds => _,
                clobber_abi("C"),
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The CPU must have the dot product instructions.
    #[target_feature(enable = "dotprod")]
    pub unsafe fn sdot(rounds: u64) {
        // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
        unsafe {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                "movi v\\i\\().16b, 0",
                ".endr",
                "2:",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23",
                "sdot v\\i\\().4s, v30.16b, v31.16b",
                ".endr",
                "subs x9, x9, 1",
                "b.ne 2b",
                inout("x9") rounds => _,
                clobber_abi("C"),
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The CPU must have NEON.
    pub unsafe fn fmla(rounds: u64) {
        // SAFETY: touches registers only, all of them declared; the caller promises the instructions.
        unsafe {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                "movi v\\i\\().16b, 0",
                ".endr",
                "2:",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23",
                "fmla v\\i\\().4s, v30.4s, v31.4s",
                ".endr",
                "subs x9, x9, 1",
                "b.ne 2b",
                inout("x9") rounds => _,
                clobber_abi("C"),
                options(nomem, nostack),
            );
        }
    }
}
