//! NEON with the dot-product extension: `sdot` by element.
//!
//! One load brings 16 activations of a row, four groups; `sdot` picks the group by index. A 6 x 16 tile has
//! 24 accumulators, 6 registers of activations and 2 left for the weights: 22 loads for 96 multiplications.

use super::groups;
use super::neon::load;
use crate::lanes::{I8x16x4, U8x16};
use core::arch::aarch64::*;

/// `acc[c] + sum over k of w[4 c + k] * a[4 G + k]`, signed bytes. (The intrinsic is not stable yet.)
///
/// # Safety
/// The CPU must have the dot-product extension.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn sdot<const G: usize>(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let mut sum = acc;
    // SAFETY: one instruction on registers, which the CPU has as the caller promises.
    unsafe {
        core::arch::asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {a:v}.4b[{g}]",
            sum = inout(vreg) sum, w = in(vreg) w, a = in(vreg) a, g = const G,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Adds group `g` of the weights, which is group `G` of the activations in `a`.
///
/// # Safety
/// The CPU must have the dot-product extension; every block must hold 64 bytes at group `g`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "one index runs through operands of three layouts")]
unsafe fn step<const G: usize, const M: usize, const N: usize>(
    a: &[int8x16_t; M],
    w: &[*const int8x16_t; N],
    g: usize,
    acc: &mut [[[int32x4_t; 4]; N]; M],
) {
    for n in 0..N {
        for c in 0..4 {
            // SAFETY: the caller promises the instruction and the group.
            unsafe {
                let w = *w[n].add(4 * g + c);
                for m in 0..M {
                    acc[m][n][c] = sdot::<G>(acc[m][n][c], w, a[m]);
                }
            }
        }
    }
}

/// See [`super`]; `a` is read as i8.
///
/// # Safety
/// The CPU must have the dot-product extension.
#[inline(always)]
pub(crate) unsafe fn dot<const M: usize, const N: usize>(
    a: [&[U8x16]; M],
    w: [&[I8x16x4]; N],
    mut acc: [[[int32x4_t; 4]; N]; M],
) -> [[[int32x4_t; 4]; N]; M] {
    let groups = groups(&a, &w);
    let a = a.map(|row| row.as_ptr().cast::<int8x16_t>());
    let w = w.map(|block| block.as_ptr().cast::<int8x16_t>());
    let whole = groups & !3;
    for g in (0..whole).step_by(4) {
        // SAFETY: the caller promises the instruction; `groups` has checked that every row holds the 16 codes of the
        // groups `g` to `g + 3`, and every block these groups.
        unsafe {
            let codes = load(&a, g / 4);
            step::<0, M, N>(&codes, &w, g, &mut acc);
            step::<1, M, N>(&codes, &w, g + 1, &mut acc);
            step::<2, M, N>(&codes, &w, g + 2, &mut acc);
            step::<3, M, N>(&codes, &w, g + 3, &mut acc);
        }
    }
    if whole < groups {
        // SAFETY: as above; two groups are left, and rows are whole chunks of 16 codes, so the load is inside.
        unsafe {
            let codes = load(&a, whole / 4);
            step::<0, M, N>(&codes, &w, whole, &mut acc);
            step::<1, M, N>(&codes, &w, whole + 1, &mut acc);
        }
    }
    acc
}
