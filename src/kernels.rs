//! Kernels: the only code that knows instruction sets.
//!
//! Every operation is written once, generic over [`isa::Isa`]: sixteen f32 lanes, sixteen i32 lanes and one int8
//! dot-product tile. An instruction set is one file in `kernels/isa/` that implements that trait. An operation is
//! a plain struct with its operands that implements [`Op`]; [`Kernels::run`] compiles it once for each instruction set
//! that makes a difference to it ([`Uses`]) and picks at run time.
//!
//! What does not belong here: shapes of networks, the model file, threads.
#![allow(unsafe_code)]

pub(crate) mod attention;
#[cfg(feature = "bench")]
pub mod bench;
pub(crate) mod bilinear;
pub(crate) mod depthwise;
pub(crate) mod dot_f16;
pub(crate) mod dot_i8;
pub(crate) mod isa;
pub(crate) mod linear;
pub(crate) mod map;
pub(crate) mod math;
pub(crate) mod mixing;
#[cfg(feature = "bench")]
pub mod peak;
pub(crate) mod resample;
pub(crate) mod rows;
#[cfg(all(test, feature = "std"))]
pub(crate) mod test_data;
pub(crate) mod tiles;
#[cfg(all(test, feature = "std"))]
mod vectors_tests;

use isa::Isa;

/// One operation over slices; implementations mark `run` `#[inline(always)]` so that it is compiled for `S`.
pub(crate) trait Op {
    type Output;
    /// What `run` uses of [`Isa`]. Declaring less than `Everything` lets instruction sets share code, which makes the
    /// program smaller. Results do not change.
    const USES: Uses = Uses::Everything;
    fn run<S: Isa>(self, s: S) -> Self::Output;
}

/// The parts of [`Isa`] that an operation uses and that differ between the levels of NEON, or between AVX2 with and
/// without AVX-VNNI. Levels whose parts are equal share the operation's code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uses {
    /// The lanes of f32 and i32.
    Lanes,
    /// Polynomials, besides lanes, where [`Isa::fma_constant`] is worth its bytes: in int8 models. (In f32 ones, few
    /// cycles go there.)
    Polynomials,
    /// [`Isa::f16`]: never run on an instruction set without it.
    F16,
    /// The pairing of int8 operands ([`Isa::PAIRS`]), besides lanes.
    Pairs,
    /// [`Isa::dot_i8`] and all that shapes its operands.
    DotI8,
    /// [`Isa::dot_i8`] on operands of its own making, where code for [`Isa::PAIRS`] would cost more bytes than it saves
    /// time.
    UnpairedDotI8,
    /// Whatever there is.
    Everything,
}

/// An instruction set that this CPU is known to have, chosen once and passed by value.
///
/// All of them give the same bits in int8 and f32 models; they differ in speed only. (f16 models: see
/// [`Kernels::computes_f16`].) A value other than `Kernels::scalar()` and [`Kernels::baseline`] comes from run-time
/// detection or from an `unsafe` constructor, so no safe program can meet an illegal instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    // Not on bare aarch64: every such core has NEON, and size counts there.
    #[cfg(any(feature = "std", not(target_arch = "aarch64")))]
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonFp16,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Kernels {
    /// The specification, in plain Rust: slow, and the same everywhere. Left out of aarch64 builds without `std`, as 70
    /// KB that nothing needs there.
    #[cfg(any(feature = "std", not(target_arch = "aarch64")))]
    pub const fn scalar() -> Self {
        Self(Level::Scalar)
    }

    /// What every CPU of the compilation target has: NEON on aarch64, scalar elsewhere.
    pub const fn baseline() -> Self {
        #[cfg(target_arch = "aarch64")]
        return Self(Level::Neon);
        #[cfg(not(target_arch = "aarch64"))]
        return Self(Level::Scalar);
    }

    /// The fastest that this CPU has.
    #[cfg(feature = "std")]
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::baseline())
    }

    /// All that this CPU has, the slowest (scalar) first.
    #[cfg(feature = "std")]
    pub fn available() -> impl Iterator<Item = Self> {
        Level::ALL.iter().filter(|level| level.is_detected()).map(|&level| Self(level))
    }

    /// The one of that [`name`](Self::name), if this CPU has it.
    #[cfg(feature = "std")]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::available().find(|kernels| kernels.name() == name)
    }

    /// The one of that name, if it needs nothing of the CPU that these kernels do not.
    pub fn slower(self, name: &str) -> Option<Self> {
        let up_to_this = Level::ALL.iter().position(|&level| level == self.0).map_or(0, |i| i + 1);
        let below = Level::ALL[..up_to_this].iter().filter(|level| level.is_part_of(self.0));
        below.map(|&level| Self(level)).find(|kernels| kernels.name() == name)
    }

    /// `scalar`, `neon`, `neon-fp16`, `neon-dotprod`, `neon-i8mm`, `avx2`, `avx-vnni` or `avx512-vnni`. Each NEON level
    /// has what those before it have.
    pub const fn name(self) -> &'static str {
        match self.0 {
            #[cfg(any(feature = "std", not(target_arch = "aarch64")))]
            Level::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Level::NeonFp16 => "neon-fp16",
            #[cfg(target_arch = "aarch64")]
            Level::NeonDot => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm => "neon-i8mm",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512-vnni",
        }
    }

    /// Whether the matrices of f16 models are multiplied in f16 (`neon-fp16` and above) or, widened, in f32:
    /// docs/numerics.md states both. The widened results are the same bits everywhere, those in f16 on every core that
    /// computes in f16.
    pub const fn computes_f16(self) -> bool {
        #[cfg(target_arch = "aarch64")]
        return matches!(self.0, Level::NeonFp16 | Level::NeonDot | Level::NeonI8mm);
        #[cfg(not(target_arch = "aarch64"))]
        return false;
    }

    /// The fastest that a core with these ID registers has (`ID_AA64ISAR0_EL1`, `ID_AA64ISAR1_EL1`, `ID_AA64PFR0_EL1`;
    /// Arm Architecture Reference Manual, D24.2). For bare metal: see [`Kernels::read_aarch64_id_registers`].
    ///
    /// # Safety
    /// Every core that runs the returned kernels has at least these features, and FP/SIMD is enabled on it.
    #[cfg(target_arch = "aarch64")]
    pub const unsafe fn from_aarch64_id_registers(isar0: u64, isar1: u64, pfr0: u64) -> Self {
        // AdvSIMD: 0xf without it (the caller rules that out), 0 with, 1 or more with arithmetic in f16 too.
        let simd = (pfr0 >> 20) & 0xf;
        let has_dot = (isar0 >> 44) & 0xf != 0;
        let has_i8mm = (isar1 >> 52) & 0xf != 0;
        Self(match (simd, has_dot, has_i8mm) {
            (0 | 0xf, _, _) => Level::Neon,
            (_, false, _) => Level::NeonFp16,
            (_, true, false) => Level::NeonDot,
            (_, true, true) => Level::NeonI8mm,
        })
    }

    /// `ID_AA64ISAR0_EL1`, `ID_AA64ISAR1_EL1` and `ID_AA64PFR0_EL1` of the core that runs this, in that order.
    ///
    /// # Safety
    /// Runs at EL1 or above. (At EL0 the registers trap, and not every operating system answers.)
    #[cfg(target_arch = "aarch64")]
    pub unsafe fn read_aarch64_id_registers() -> [u64; 3] {
        let (isar0, isar1, pfr0);
        // SAFETY: reads three constant system registers; the caller is at EL1, where they can be read.
        unsafe {
            core::arch::asm!(
                "mrs {isar0}, id_aa64isar0_el1",
                "mrs {isar1}, id_aa64isar1_el1",
                "mrs {pfr0}, id_aa64pfr0_el1",
                isar0 = out(reg) isar0,
                isar1 = out(reg) isar1,
                pfr0 = out(reg) pfr0,
                options(nomem, nostack, preserves_flags, pure),
            );
        }
        [isar0, isar1, pfr0]
    }

    /// Compiles `op` for each instruction set that makes a difference to it and runs the chosen one.
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        // Guards are constants: an instance that nothing runs leaves no code.
        match self.0 {
            #[cfg(any(feature = "std", not(target_arch = "aarch64")))]
            Level::Scalar if const { !O::USES.f16_only() } => op.run(isa::Scalar),
            // SAFETY: in each arm, a `Kernels` of that level exists only on a CPU that has the features, and NEON's
            // levels include the features of the levels below.
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm if const { O::USES.differ_with_i8mm() } => unsafe { isa::neon::run_i8mm(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm | Level::NeonDot if const { O::USES.differ_with_dot() } => unsafe {
                isa::neon::run_dot(op)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm | Level::NeonDot | Level::NeonFp16 if const { O::USES.differ_with_fp16() } => unsafe {
                isa::neon::run_fp16(op)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm | Level::NeonDot | Level::NeonFp16 | Level::Neon if const { !O::USES.f16_only() } => unsafe {
                isa::neon::run(op)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni if const { O::USES.differ_with_dot() } => unsafe { isa::avx2::run_vnni(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni | Level::Avx2 if const { !O::USES.f16_only() } => unsafe { isa::avx2::run(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni if const { !O::USES.f16_only() } => unsafe { isa::avx512::run(op) },
            _ => unreachable!("no arithmetic in f16"),
        }
    }
}

impl Uses {
    /// Whether there is nothing to run without arithmetic in f16.
    const fn f16_only(self) -> bool {
        matches!(self, Self::F16)
    }

    /// Whether `neon-fp16` gets its own code.
    #[cfg(target_arch = "aarch64")]
    const fn differ_with_fp16(self) -> bool {
        matches!(self, Self::Polynomials | Self::F16 | Self::Everything)
    }

    /// Whether `neon-dotprod` and `avx-vnni` get their own code.
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    const fn differ_with_dot(self) -> bool {
        matches!(self, Self::DotI8 | Self::UnpairedDotI8 | Self::Everything)
    }

    /// Whether `neon-i8mm` gets its own code.
    #[cfg(target_arch = "aarch64")]
    const fn differ_with_i8mm(self) -> bool {
        matches!(self, Self::DotI8 | Self::Pairs | Self::Everything)
    }
}

impl Level {
    /// Slowest first; each includes the levels before it, except as [`Level::is_part_of`] says.
    const ALL: &[Self] = &[
        #[cfg(any(feature = "std", not(target_arch = "aarch64")))]
        Self::Scalar,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        #[cfg(target_arch = "aarch64")]
        Self::NeonFp16,
        #[cfg(target_arch = "aarch64")]
        Self::NeonDot,
        #[cfg(target_arch = "aarch64")]
        Self::NeonI8mm,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Vnni,
    ];

    /// Whether every CPU that has `other`, which is faster or the same, has this. Many have `vpdpbusd` in AVX-512's
    /// encoding alone.
    fn is_part_of(self, other: Self) -> bool {
        match (self, other) {
            #[cfg(target_arch = "x86_64")]
            (Self::AvxVnni, Self::Avx512Vnni) => false,
            _ => true,
        }
    }

    /// Exactly the features that the `run` function of the level enables.
    #[cfg(feature = "std")]
    fn is_detected(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonFp16 => Self::Neon.is_detected() && std::arch::is_aarch64_feature_detected!("fp16"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Self::NeonFp16.is_detected() && std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => Self::NeonDot.is_detected() && std::arch::is_aarch64_feature_detected!("i8mm"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
                    && std::arch::is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_detected() && std::arch::is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.is_detected()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512vnni")
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::Kernels;
    use std::vec::Vec;

    #[test]
    fn names_lead_back_to_the_kernels() {
        assert_eq!(Kernels::available().next(), Some(Kernels::scalar()));
        assert!(Kernels::available().any(|kernels| kernels == Kernels::baseline()));
        for kernels in Kernels::available() {
            assert_eq!(Kernels::by_name(kernels.name()), Some(kernels));
        }
        assert_eq!(Kernels::by_name("mmx"), None);
        let all: Vec<_> = Kernels::available().collect();
        for (i, kernels) in all.iter().enumerate() {
            let expected =
                all[..=i].iter().filter(|other| (other.name(), kernels.name()) != ("avx-vnni", "avx512-vnni"));
            assert!(all.iter().filter(|other| kernels.slower(other.name()) == Some(**other)).eq(expected));
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn id_registers_tell_the_cores_apart() {
        // SAFETY: the values are compared, not run.
        let name = |isar0, isar1, pfr0| unsafe { Kernels::from_aarch64_id_registers(isar0, isar1, pfr0) }.name();
        assert_eq!(name(0x0001_1120, 0, 0x2222), "neon", "Cortex-A53, A57, A72");
        assert_eq!(name(0x1000_1021_1120, 0x0010_0001, 0x1100_0000_1011_1112), "neon-dotprod", "Cortex-A76");
        assert_eq!(name(0x0000_1021_1120, 0x0010_0001, 0x0011_1112), "neon-fp16", "f16 without dot product");
        assert_eq!(name(0x1000_1021_1120, 0x0010_0000_0000_0001, 0x0011_1112), "neon-i8mm", "Neoverse V3AE");
        assert_eq!(name(0x1000_1021_1120, 0x0010_0000_0000_0001, 0x0000_1112), "neon", "a level has all those below");
    }
}
