//! The vector machine that all kernels are written for: 16 lanes of f32 and i32, and an int8 dot-product tile.
//!
//! 16 lanes are one AVX-512 register, two AVX2 registers or four NEON registers. Every method has one exact result
//! on every instruction set (IEEE 754, fused multiply-add, ties to even, min and max defined for NaN), so code written
//! over `Isa` gives the same bits everywhere. `scalar` is the specification.
//!
//! A value of an `Isa` type is the proof that the CPU has the instructions: only `Kernels` makes one, after detection.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(any(feature = "std", not(target_arch = "aarch64")))]
mod no_f16;
#[cfg(any(feature = "std", not(target_arch = "aarch64")))]
pub(crate) mod scalar;

#[cfg(any(feature = "std", not(target_arch = "aarch64")))]
pub(crate) use no_f16::NoF16;
#[cfg(any(feature = "std", not(target_arch = "aarch64")))]
pub(crate) use scalar::Scalar;

use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// See the module documentation.
pub(crate) trait Isa: Copy {
    /// Sixteen lanes of f32 in registers.
    type F: Copy;
    /// Sixteen lanes of i32 in registers.
    type I: Copy;
    /// Arithmetic in f16; [`NoF16`] for instruction sets without it.
    type F16: F16<F = Self::F>;

    /// 0x00 where the dot product takes u8 activations (x86), 0x80 where it takes i8 (NEON).
    const CODE_XOR: u8;
    /// Rows of the int8 tile (`M` of [`Isa::dot_i8`]) that keep all accumulators in registers: 1, 2, 4, 6 or 8.
    const TILE_ROWS: usize;
    /// Rows of a tile of f32: 24 accumulators on NEON, 12 on AVX2 and, with two column blocks, on AVX-512.
    const FLOAT_TILE_ROWS: usize = 6;
    /// Blocks of 16 columns of the tile (`N` of [`Isa::dot_i8`], and of f32 tiles too): 1 or 2.
    const TILE_BLOCKS: usize;
    /// Whether [`Isa::dot_i8`] takes its operands in pairs: rows as [`Isa::pair_rows`] leaves them, weights as
    /// [`Isa::pair_groups`] does. Everything outside the operations that multiply is unpaired.
    const PAIRS: bool = false;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &F32x16) -> Self::F;
    fn store(self, x: Self::F, out: &mut F32x16);
    /// Arithmetic in f16, if the CPU has it.
    fn f16(self) -> Option<Self::F16>;
    /// Widens sixteen f16, exactly.
    fn load_f16(self, x: &F16x16) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// IEEE division, correctly rounded.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// [`Isa::fma`] with a constant from memory whose lanes are equal, for polynomials: where the addend's register
    /// becomes the result, loading it each time costs less than copying it.
    #[inline(always)]
    fn fma_constant(self, a: Self::F, b: Self::F, c: &'static F32x16) -> Self::F {
        self.fma(a, b, self.load(c))
    }
    /// The smaller; `b` where `a` is a quiet NaN. Callers never pass a NaN as `b` and never depend on the sign of a
    /// zero result: instruction sets differ there.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` where `a` is a quiet NaN; see [`Isa::min`].
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// The square root of one number, correctly rounded.
    ///
    /// x86's vector instruction sets have their own: the `sqrtss` of `libm` has no VEX prefix, and costs some 300
    /// cycles where the wide registers are in use.
    #[inline(always)]
    fn sqrt(self, x: f32) -> f32 {
        libm::sqrtf(x)
    }
    /// |a| with the sign bit of `sign`.
    fn copysign(self, a: Self::F, sign: Self::F) -> Self::F;
    /// Lanes `0..n` of `a`, zero in the others; `n` at most 16.
    fn keep_first(self, a: Self::F, n: usize) -> Self::F;
    /// The lanes whose bit of `mask` is set, lowest first, take the first of `values` in order; the others are zero.
    fn expand(self, values: &[f32; 16], mask: u16) -> Self::F;
    /// Sum of the lanes by halves: lanes l + (l+8), then l + (l+4), l + (l+2), l + (l+1).
    fn sum(self, a: Self::F) -> f32;
    fn min_lane(self, a: Self::F) -> f32;
    fn max_lane(self, a: Self::F) -> f32;

    /// Starts to bring the line at `at` into the second-level cache; nothing where the hardware's own prefetching is
    /// left to it.
    #[inline(always)]
    fn prefetch<T>(self, _at: &T) {}

    fn splat_i(self, x: i32) -> Self::I;
    fn load_i(self, x: &I32x16) -> Self::I;
    fn store_i(self, x: Self::I, out: &mut I32x16);
    /// Wrapping.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Wrapping, low 32 bits.
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Nearest f32, ties to even.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// The bits of each lane.
    fn bits(self, a: Self::F) -> Self::I;
    /// The reverse of [`Isa::bits`].
    fn float(self, a: Self::I) -> Self::F;
    /// Each lane `n` bits up, `n` below 32.
    fn shl_i(self, a: Self::I, n: u32) -> Self::I;
    /// The low byte of each lane, in lane order, xor `flip`.
    fn store_low_bytes(self, a: Self::I, flip: u8, out: &mut U8x16);
    /// Adds to lane 4 i + c byte c of pixel i times weight i, wrapping.
    fn add_weighted_pixels(self, sums: Self::I, pixels: &[[u8; 4]; 4], weights: &[i32; 4]) -> Self::I;
    /// Activation codes: `rne(clamp(a, 0, 255))`, 0 where `a` is NaN, xor [`Isa::CODE_XOR`]; `a` at most 2^14.
    #[inline(always)]
    fn store_codes(self, a: Self::F, out: &mut U8x16) {
        let a = self.min(self.max(a, self.splat(0.0)), self.splat(255.0));
        self.store_low_bytes(rounded(self, a), Self::CODE_XOR, out);
    }

    /// Adds to `acc[m][n]` the products of row `m` of activations with block `n` of 16 output channels:
    /// `acc[m][n][c] += sum over k of a[m][k] * w[n][k / 4][c][k % 4]`, exact in i32, with `a` read as u8 where
    /// `CODE_XOR` is 0 and as i8 where it is 0x80 (weights within [-127, 127] there; -128 may give another sum, nothing
    /// else).
    ///
    /// Each block of `w` holds `K8 / 4` groups, an even number; each row of `a` holds at least `K8` codes. Panics (on
    /// entry, not in the loop) if that is not so. Where [`Isa::PAIRS`], both come paired, all but an odd last row.
    fn dot_i8<const M: usize, const N: usize>(
        self,
        a: [&[U8x16]; M],
        w: [&[I8x16x4]; N],
        acc: [[Self::I; N]; M],
    ) -> [[Self::I; N]; M];

    /// Sixteen codes of two rows: the first eight of both, then the last eight of both. Twice is the identity.
    #[inline(always)]
    fn pair_rows(self, rows: [U8x16; 2]) -> [U8x16; 2] {
        rows
    }

    /// Two groups of weights, 16 channels by 4 inputs twice, as 16 channels by 8 inputs.
    #[inline(always)]
    fn pair_groups(self, groups: [I8x16x4; 2]) -> [I8x16x4; 2] {
        groups
    }
}

/// 1.5 * 2^23: added to a float of magnitude below 2^22 it leaves the nearest integer in the low bits, ties to even;
/// subtracting it gives that integer.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The nearest integers, ties to even, plus the bits of [`ROUND`], whose low 22 bits are zero; magnitudes below 2^22.
/// One addition, where a conversion is slower on many cores.
#[inline(always)]
pub(crate) fn rounded<S: Isa>(s: S, a: S::F) -> S::I {
    s.bits(s.add(a, s.splat(ROUND)))
}

/// [`Isa::expand`] by quarters of four lanes: for each the place of its first value, at most 12, and from which bytes
/// of the four values there its lanes are taken. 0x80 is from none: byte shuffles of x86 and of ARM alike give zero for
/// that.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(crate) fn expand_quarters(mask: u16) -> [(usize, &'static U8x16); 4] {
    /// The bytes for each mask of four lanes.
    static BYTES: [U8x16; 16] = {
        let mut bytes = [U8x16([0x80; 16]); 16];
        let mut mask = 0;
        while mask < 16 {
            let (mut lane, mut value) = (0, 0);
            while lane < 4 {
                if mask >> lane & 1 == 1 {
                    let mut byte = 0;
                    while byte < 4 {
                        bytes[mask].0[4 * lane + byte] = (4 * value + byte) as u8;
                        byte += 1;
                    }
                    value += 1;
                }
                lane += 1;
            }
            mask += 1;
        }
        bytes
    };
    /// How many bits are set in each, four bits for each.
    const COUNTS: u64 = 0x4332_3221_3221_2110;
    let mut at = 0;
    core::array::from_fn(|quarter| {
        let lanes = usize::from(mask >> (4 * quarter) & 15);
        let start = at;
        at += (COUNTS >> (4 * lanes) & 15) as usize;
        (start, &BYTES[lanes])
    })
}

/// Arithmetic in f16: the proof that the CPU has it, as [`Isa`] is for the rest.
pub(crate) trait F16: Copy {
    /// Sixteen lanes of f32 in registers, the type of the [`Isa`].
    type F: Copy;

    /// Rounds to f16, ties to even; beyond the range of f16 to infinity.
    fn store(self, x: Self::F, out: &mut F16x16);

    /// `sum over i < k of a[m][i] * w[n][i * step]`, accumulated in f16 over blocks and in f32 from block to block: see
    /// [`dot_f16`](super::dot_f16). Panics (on entry) if a row or a block is shorter.
    fn dot<const M: usize, const N: usize>(
        self,
        a: [&[F16x16]; M],
        k: usize,
        w: [&[F16x16]; N],
        step: usize,
    ) -> [[Self::F; N]; M];
}

#[cfg(all(test, feature = "std"))]
mod tests;
