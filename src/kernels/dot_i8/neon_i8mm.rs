//! NEON with the matrix multiplication of Armv8.6: `smmla` multiplies 2 rows by 2 channels over 8 inputs.
//!
//! Its operands are two rows, or two channels, of 8 inputs each. They are brought into that order beforehand, once for
//! all tiles ([`pair_rows`], [`pair_groups`]), since zips run on the same pipes as multiplications. An accumulator is
//! the block [row][channel] of 2 x 2, so the start values are zipped and the results unzipped. A 6 x 16 tile has 24
//! accumulators, 3 registers of activations and 5 left for the weights: 22 loads for 48 multiplications. An odd last
//! row is its own partner.

use super::groups;
use crate::lanes::{I8x16x4, U8x16};
use core::arch::aarch64::*;
use core::mem::transmute;

/// `acc[r][c] + sum over k of a[r][k] * w[c][k]` for 2 rows, 2 channels and 8 inputs, signed bytes. (The intrinsic is
/// not stable yet.)
///
/// # Safety
/// The CPU must have FEAT_I8MM.
#[inline]
#[target_feature(enable = "i8mm")]
unsafe fn smmla(acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    let mut sum = acc;
    // SAFETY: one instruction on registers, which the CPU has as the caller promises.
    unsafe {
        core::arch::asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {w:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// The low halves of `a` and `b`, and their high halves.
#[inline(always)]
fn zip_halves(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
    // SAFETY: NEON is part of every aarch64 target that has this module.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
        [vreinterpretq_s32_s64(vzip1q_s64(a, b)), vreinterpretq_s32_s64(vzip2q_s64(a, b))]
    }
}

/// See [`Isa::pair_rows`](crate::kernels::isa::Isa::pair_rows).
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
pub(crate) unsafe fn pair_rows(rows: [U8x16; 2]) -> [U8x16; 2] {
    // SAFETY: both types are 32 bytes, of which every bit pattern is a value.
    unsafe {
        let [even, odd] = transmute::<[U8x16; 2], [int32x4_t; 2]>(rows);
        transmute::<[int32x4_t; 2], [U8x16; 2]>(zip_halves(even, odd))
    }
}

/// See [`Isa::pair_groups`](crate::kernels::isa::Isa::pair_groups).
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
pub(crate) unsafe fn pair_groups(groups: [I8x16x4; 2]) -> [I8x16x4; 2] {
    // SAFETY: both types are 128 bytes, of which every bit pattern is a value; the caller promises NEON.
    unsafe {
        let [even, odd] = transmute::<[I8x16x4; 2], [[int32x4_t; 4]; 2]>(groups);
        let mut channels = [[even[0]; 2]; 4];
        for (channels, (even, odd)) in channels.iter_mut().zip(even.into_iter().zip(odd)) {
            *channels = [vzip1q_s32(even, odd), vzip2q_s32(even, odd)];
        }
        transmute::<[[int32x4_t; 2]; 4], [I8x16x4; 2]>(channels)
    }
}

/// The second row of pair `pair`: an odd last row is its own.
#[inline(always)]
const fn partner<const M: usize>(pair: usize) -> usize {
    if 2 * pair + 1 < M { 2 * pair + 1 } else { 2 * pair }
}

/// Chunk `chunk` of all pairs of rows: the inputs 0 to 7, and 8 to 15. (Arrays of M, of which the first half is used:
/// pairs cannot be counted in a type.)
///
/// # Safety
/// The CPU must have NEON; every row must hold the chunk.
#[inline(always)]
unsafe fn load<const M: usize>(a: &[*const int32x4_t; M], chunk: usize) -> [[int8x16_t; M]; 2] {
    // SAFETY: the caller promises NEON and the chunk.
    unsafe {
        let mut codes = [[vdupq_n_s8(0); M]; 2];
        for pair in 0..M.div_ceil(2) {
            let rows = [*a[2 * pair].add(chunk), *a[partner::<M>(pair)].add(chunk)];
            let halves = if 2 * pair + 1 < M { rows } else { zip_halves(rows[0], rows[1]) };
            codes[0][pair] = vreinterpretq_s8_s32(halves[0]);
            codes[1][pair] = vreinterpretq_s8_s32(halves[1]);
        }
        codes
    }
}

/// Adds the groups `g` and `g + 1` of the weights; `a` holds their activations, pair by pair.
///
/// # Safety
/// The CPU must have FEAT_I8MM; every block must hold 64 bytes at the groups `g` and `g + 1`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "one index runs through operands of three layouts")]
unsafe fn step<const M: usize, const N: usize>(
    a: &[int8x16_t; M],
    w: &[*const int8x16_t; N],
    g: usize,
    acc: &mut [[[int32x4_t; 8]; N]; M],
) {
    for n in 0..N {
        for c in 0..8 {
            // SAFETY: the caller promises the instruction and the groups.
            unsafe {
                let w = *w[n].add(4 * g + c);
                for pair in 0..M.div_ceil(2) {
                    acc[pair][n][c] = smmla(acc[pair][n][c], a[pair], w);
                }
            }
        }
    }
}

/// See [`super`]; `a` is read as i8, both operands are paired.
///
/// # Safety
/// The CPU must have FEAT_I8MM.
#[inline(always)]
pub(crate) unsafe fn dot<const M: usize, const N: usize>(
    a: [&[U8x16]; M],
    w: [&[I8x16x4]; N],
    mut acc: [[[int32x4_t; 4]; N]; M],
) -> [[[int32x4_t; 4]; N]; M] {
    let groups = groups(&a, &w);
    let a = a.map(|row| row.as_ptr().cast::<int32x4_t>());
    let w = w.map(|block| block.as_ptr().cast::<int8x16_t>());
    let pairs = M.div_ceil(2);
    let mut blocks = [[[acc[0][0][0]; 8]; N]; M];
    for pair in 0..pairs {
        for n in 0..N {
            for c in 0..4 {
                let zipped = zip_halves(acc[2 * pair][n][c], acc[partner::<M>(pair)][n][c]);
                [blocks[pair][n][2 * c], blocks[pair][n][2 * c + 1]] = zipped;
            }
        }
    }
    let whole = groups & !3;
    for g in (0..whole).step_by(4) {
        // SAFETY: the caller promises the instruction; `groups` has checked that every row holds the 16 codes of the
        // groups `g` to `g + 3`, and every block these groups.
        unsafe {
            let [low, high] = load(&a, g / 4);
            step(&low, &w, g, &mut blocks);
            step(&high, &w, g + 2, &mut blocks);
        }
    }
    if whole < groups {
        // SAFETY: as above; two groups are left, and rows are whole chunks of 16 codes, so the load is inside.
        unsafe {
            let [low, _] = load(&a, whole / 4);
            step(&low, &w, whole, &mut blocks);
        }
    }
    for pair in 0..pairs {
        for n in 0..N {
            for c in 0..4 {
                let rows = zip_halves(blocks[pair][n][2 * c], blocks[pair][n][2 * c + 1]);
                acc[partner::<M>(pair)][n][c] = rows[1];
                acc[2 * pair][n][c] = rows[0];
            }
        }
    }
    acc
}
