//! Baseline NEON (A53, A57, A72): `smull` and `smlal` multiply 2 channels by 4 inputs to i16, `sadalp` widens to i32.
//!
//! Weights lie within [-127, 127] and activations within [-128, 127], so two products are at most 32,512 and fit i16:
//! `smull` of one group, `smlal` of the next, then `sadalp`. The group's four activations are duplicated to all lanes.
//! A row has eight accumulators (2 channels, 2 partial sums each); neighbours are added at the end. A 2 x 16 tile has
//! 16.

use super::groups;
use crate::lanes::{I8x16x4, U8x16};
use core::arch::aarch64::*;

/// Adds the groups `g` and `g + 1` of the weights; `even` and `odd` hold their activations in all lanes.
///
/// # Safety
/// Every block must hold 64 bytes at the groups `g` and `g + 1`.
#[inline(always)]
unsafe fn step<const M: usize, const N: usize>(
    even: &[int8x16_t; M],
    odd: &[int8x16_t; M],
    w: &[*const int8x16_t; N],
    g: usize,
    acc: &mut [[[int32x4_t; 8]; N]; M],
) {
    for n in 0..N {
        for c in 0..4 {
            // SAFETY: the caller promises the groups; NEON is part of every aarch64 target that has this module.
            unsafe {
                let w_even = *w[n].add(4 * g + c);
                let w_odd = *w[n].add(4 * g + 4 + c);
                for m in 0..M {
                    let low = vmull_s8(vget_low_s8(w_even), vget_low_s8(even[m]));
                    let low = vmlal_s8(low, vget_low_s8(w_odd), vget_low_s8(odd[m]));
                    acc[m][n][2 * c] = vpadalq_s16(acc[m][n][2 * c], low);
                    let high = vmull_high_s8(w_even, even[m]);
                    let high = vmlal_high_s8(high, w_odd, odd[m]);
                    acc[m][n][2 * c + 1] = vpadalq_s16(acc[m][n][2 * c + 1], high);
                }
            }
        }
    }
}

/// Chunk `chunk` of each row.
///
/// # Safety
/// Every row must hold that chunk.
#[inline(always)]
pub(super) unsafe fn load<const M: usize>(a: &[*const int8x16_t; M], chunk: usize) -> [int8x16_t; M] {
    // SAFETY: the caller promises the chunk; rows are of U8x16, aligned to 16 bytes.
    let mut codes = [unsafe { *a[0].add(chunk) }; M];
    for m in 1..M {
        // SAFETY: as above.
        codes[m] = unsafe { *a[m].add(chunk) };
    }
    codes
}

/// Group `G` of 16 activations in all lanes.
#[inline(always)]
fn spread<const G: i32, const M: usize>(codes: &[int8x16_t; M]) -> [int8x16_t; M] {
    let mut spread = *codes;
    for codes in &mut spread {
        // SAFETY: NEON is part of every aarch64 target that has this module.
        *codes = unsafe { vreinterpretq_s8_s32(vdupq_laneq_s32::<G>(vreinterpretq_s32_s8(*codes))) };
    }
    spread
}

/// See [`super`]; `a` is read as i8.
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
pub(crate) unsafe fn dot<const M: usize, const N: usize>(
    a: [&[U8x16]; M],
    w: [&[I8x16x4]; N],
    mut acc: [[[int32x4_t; 4]; N]; M],
) -> [[[int32x4_t; 4]; N]; M] {
    let groups = groups(&a, &w);
    let a = a.map(|row| row.as_ptr().cast::<int8x16_t>());
    let w = w.map(|block| block.as_ptr().cast::<int8x16_t>());
    // SAFETY: the caller promises NEON.
    let mut pairs = [[[unsafe { vdupq_n_s32(0) }; 8]; N]; M];
    let whole = groups & !3;
    for g in (0..whole).step_by(4) {
        // SAFETY: `groups` has checked that every row holds the 16 codes of the groups `g` to `g + 3`, and every block
        // these groups.
        unsafe {
            let codes = load(&a, g / 4);
            step(&spread::<0, M>(&codes), &spread::<1, M>(&codes), &w, g, &mut pairs);
            step(&spread::<2, M>(&codes), &spread::<3, M>(&codes), &w, g + 2, &mut pairs);
        }
    }
    if whole < groups {
        // SAFETY: as above; two groups are left, and rows are whole chunks of 16 codes, so the load is inside.
        unsafe {
            let codes = load(&a, whole / 4);
            step(&spread::<0, M>(&codes), &spread::<1, M>(&codes), &w, whole, &mut pairs);
        }
    }
    for m in 0..M {
        for n in 0..N {
            for c in 0..4 {
                let [low, high] = [pairs[m][n][2 * c], pairs[m][n][2 * c + 1]];
                // SAFETY: the caller promises NEON.
                acc[m][n][c] = unsafe { vaddq_s32(acc[m][n][c], vpaddq_s32(low, high)) };
            }
        }
    }
    acc
}
