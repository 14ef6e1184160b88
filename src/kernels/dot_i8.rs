//! The int8 dot-product tile: M rows of activations by N blocks of 16 output channels, exact in i32.
//!
//! ```text
//! acc[m][n][c] += sum over k of a[m][k] * w[n][k / 4][c][k % 4]        k in 0..4 * groups
//! ```
//!
//! All matrix products of the int8 path (linear layers, Q K^T and P V) are calls of this tile. It reads the weights in
//! place, in the one layout of the model file: a group is 16 channels by 4 inputs, 64 bytes, so it is one VNNI operand,
//! four SDOT operands, or eight 8-byte halves (2 channels by 4 inputs) for `smull`. The accumulators stay in
//! registers from the first group to the last; the caller starts them at the zero point's correction and finishes
//! them in registers too.
//!
//! | file | tile (rows x channels) | how | peak, MAC per cycle |
//! |---|---|---|---|
//! | `scalar` | any | the specification, not tuned | |
//! | `neon` | 2 x 16 | `smull` + `smlal` (two products, at most 2 * 128 * 127 = 32,512, fit i16), `sadalp` to i32 | 8 on A57 and A72 |
//! | `neon_dot` | 6 x 16 | `sdot` by element: one load brings 16 activations | 32 on A76 |
//! | `neon_i8mm` | 6 x 16 | `smmla`: two rows by two channels by 8 inputs, operands paired beforehand | 64 on Neoverse V3AE |
//! | `avx2` | 4 x 16 | both operands widened to i16, `vpmaddwd` + `vpaddd` (`vpmaddubsw` saturates: never used) | 32 with two multipliers |
//! | `avx_vnni` | 6 x 16 | `vpdpbusd` on 256 bits, the 4 activations of a group broadcast from memory | 64 with two multipliers |
//! | `avx512_vnni` | 8 x 32 | `vpdpbusd`, the 4 activations of a group broadcast from memory | 128 on Zen 5 |
//!
//! Activations are u8 codes, stored xor [`Isa::CODE_XOR`](super::isa::Isa::CODE_XOR): the `neon` files read the
//! bytes as i8, the `avx` files as u8, `scalar` as u8.
//!
//! What does not belong here: scales, zero points, anything in f32.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dot;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_i8mm;
#[cfg(any(feature = "std", not(target_arch = "aarch64")))]
pub(crate) mod scalar;

use super::isa::Isa;
use crate::lanes::{I8x16x4, U8x16};

/// Groups of weights that stay in a first-level cache from tile to tile, beside the rows that they are multiplied with:
/// 32 KiB.
pub(crate) const FIRST_LEVEL_GROUPS: usize = 512;

/// Pairs `rows` rows of `chunks` chunks, `stride` apart in `a`, as [`Isa::dot_i8`] takes them where [`Isa::PAIRS`]; in
/// `out` they follow one another.
#[inline(always)]
pub(crate) fn pair_rows<S: Isa>(s: S, a: &[U8x16], stride: usize, rows: usize, chunks: usize, out: &mut [U8x16]) {
    for (pair, out) in out[..rows * chunks].chunks_mut(2 * chunks).enumerate() {
        let even = &a[2 * pair * stride..][..chunks];
        let (out_even, out_odd) = out.split_at_mut(chunks);
        if out_odd.is_empty() {
            out_even.copy_from_slice(even);
            return;
        }
        let odd = &a[(2 * pair + 1) * stride..][..chunks];
        for (((out_even, out_odd), even), odd) in out_even.iter_mut().zip(out_odd).zip(even).zip(odd) {
            [*out_even, *out_odd] = s.pair_rows([*even, *odd]);
        }
    }
}

/// The same in place, for rows that follow one another.
#[inline(always)]
pub(crate) fn pair_rows_in_place<S: Isa>(s: S, rows: &mut [U8x16], chunks: usize) {
    for pair in rows.chunks_exact_mut(2 * chunks) {
        let (even, odd) = pair.split_at_mut(chunks);
        for (even, odd) in even.iter_mut().zip(odd) {
            [*even, *odd] = s.pair_rows([*even, *odd]);
        }
    }
}

/// Pairs the groups of whole blocks of weights, in place.
#[inline(always)]
pub(crate) fn pair_groups_in_place<S: Isa>(s: S, w: &mut [I8x16x4]) {
    for pair in w.as_chunks_mut::<2>().0 {
        *pair = s.pair_groups(*pair);
    }
}

/// The number of groups. Panics unless it is even, all column blocks have as many, and every row holds the codes for
/// them: after this the loops read without further checks.
#[inline(always)]
fn groups<const M: usize, const N: usize>(a: &[&[U8x16]; M], w: &[&[I8x16x4]; N]) -> usize {
    let groups = w[0].len();
    assert!(groups.is_multiple_of(2), "weights come in groups of 8 inputs");
    for block in w {
        assert!(block.len() == groups, "blocks of weights differ in length");
    }
    for row in a {
        assert!(row.len() * 4 >= groups, "a row of activations is shorter than the weights");
    }
    groups
}
