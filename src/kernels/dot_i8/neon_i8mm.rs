//! NEON with the matrix multiplication of Armv8.6: `smmla` multiplies 2 rows by 2 channels over 8 inputs.
//!
//! Two groups of weights, zipped word by word, are 2 channels by 8 inputs; 8 bytes of each of two rows of activations are 2 rows by
//! 8 inputs. An accumulator is the block [row][channel] of 2 x 2, so the start values are zipped and the results unzipped. A
//! 6 x 16 tile has 24 accumulators and 3 registers of activations. An odd last row is its own partner.

use super::groups;
use crate::kernels::isa::{I8x16x4, U8x16};
use core::arch::aarch64::*;

/// `acc[r][c] + sum over k of a[r][k] * w[c][k]` for 2 rows, 2 channels and 8 inputs, signed bytes. (The intrinsic is not
/// stable yet.)
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

/// The second row of pair `pair`: an odd last row is its own.
#[inline(always)]
const fn partner<const M: usize>(pair: usize) -> usize {
    if 2 * pair + 1 < M { 2 * pair + 1 } else { 2 * pair }
}

/// Adds the groups `g` and `g + 1` of the weights; `a` holds their activations, pair by pair.
///
/// # Safety
/// The CPU must have FEAT_I8MM; every block must hold 64 bytes at the groups `g` and `g + 1`.
#[inline(always)]
unsafe fn step<const M: usize, const N: usize>(
    a: &[int8x16_t; M],
    w: &[*const int32x4_t; N],
    g: usize,
    acc: &mut [[[int32x4_t; 8]; N]; M],
) {
    for n in 0..N {
        for c in 0..4 {
            // SAFETY: the caller promises the instruction and the groups.
            unsafe {
                let (even, odd) = (*w[n].add(4 * g + c), *w[n].add(4 * g + 4 + c));
                let w = [vreinterpretq_s8_s32(vzip1q_s32(even, odd)), vreinterpretq_s8_s32(vzip2q_s32(even, odd))];
                for pair in 0..M.div_ceil(2) {
                    for half in 0..2 {
                        let acc = &mut acc[pair][n][2 * c + half];
                        *acc = smmla(*acc, a[pair], w[half]);
                    }
                }
            }
        }
    }
}

/// See [`super`]; `a` is read as i8.
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
    let a = a.map(|row| row.as_ptr().cast::<int8x8_t>());
    let w = w.map(|block| block.as_ptr().cast::<int32x4_t>());
    let pairs = M.div_ceil(2);
    // Arrays of M, of which the first half is used: pairs cannot be counted in a type.
    // SAFETY: the caller promises NEON.
    let zero = unsafe { vdupq_n_s32(0) };
    let mut blocks = [[[zero; 8]; N]; M];
    for pair in 0..pairs {
        for n in 0..N {
            for c in 0..4 {
                let zipped = zip_halves(acc[2 * pair][n][c], acc[partner::<M>(pair)][n][c]);
                [blocks[pair][n][2 * c], blocks[pair][n][2 * c + 1]] = zipped;
            }
        }
    }
    for g in (0..groups).step_by(2) {
        // SAFETY: the caller promises the instruction; `groups` is even and has checked that every row holds the codes of the groups
        // `g` and `g + 1`, 8 bytes at a multiple of 8, and every block the groups.
        unsafe {
            let mut codes = [vreinterpretq_s8_s32(zero); M];
            for pair in 0..pairs {
                let (first, second) = (*a[2 * pair].add(g / 2), *a[partner::<M>(pair)].add(g / 2));
                codes[pair] = vcombine_s8(first, second);
            }
            step(&codes, &w, g, &mut blocks);
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
