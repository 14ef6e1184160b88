//! The int8 tile in plain Rust: the specification, never tuned.

use crate::kernels::isa::{I8x16x4, I32x16, U8x16};

/// `acc[m][n] += sum over k of (a[m][k] xor FLIP, minus FLIP) * w[k / 4][n][k % 4]`: with `FLIP` 0 the stored bytes are
/// u8, with 0x80 they are i8. Panics if a row of `a` is shorter than `4 * w.len()` codes.
#[inline(always)]
pub(crate) fn dot<const M: usize, const FLIP: u8>(
    a: [&[U8x16]; M],
    w: &[I8x16x4],
    mut acc: [I32x16; M],
) -> [I32x16; M] {
    for (row, acc) in a.iter().zip(&mut acc) {
        for (group, w) in w.iter().enumerate() {
            for (k, &code) in row[group / 4].0[group % 4 * 4..][..4].iter().enumerate() {
                let code = i32::from(code ^ FLIP) - i32::from(FLIP);
                for (n, sum) in acc.0.iter_mut().enumerate() {
                    *sum = sum.wrapping_add(code * i32::from(w.0[4 * n + k]));
                }
            }
        }
    }
    acc
}
