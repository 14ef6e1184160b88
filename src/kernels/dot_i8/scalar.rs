//! The specification of the int8 tile, one product after another.

use super::groups;
use crate::lanes::{I8x16x4, I32x16, U8x16};

/// See [`super`]; `a` is read as u8.
#[inline(never)]
pub(crate) fn dot<const M: usize, const N: usize>(
    a: [&[U8x16]; M],
    w: [&[I8x16x4]; N],
    mut acc: [[I32x16; N]; M],
) -> [[I32x16; N]; M] {
    for g in 0..groups(&a, &w) {
        for (row, acc) in a.iter().zip(&mut acc) {
            let codes = &row[g / 4].0[g % 4 * 4..][..4];
            for (block, acc) in w.iter().zip(acc) {
                for (weights, acc) in block[g].0.chunks_exact(4).zip(&mut acc.0) {
                    for (&code, &weight) in codes.iter().zip(weights) {
                        *acc = acc.wrapping_add(i32::from(code) * i32::from(weight));
                    }
                }
            }
        }
    }
    acc
}
