//! AVX2: both operands widened to i16, then `vpmaddwd` (two exact products added in i32) and `vpaddd`.
//!
//! A register of weights is 8 channels by 4 inputs, an i32 lane for each channel. Its even and odd bytes are split by
//! shifts into two registers of i16, and so are the activations, of which a 4-byte broadcast has every lane's four: no
//! shuffle, no final reduction, two accumulators a row. A 4 x 16 tile fills the 16 registers.

use super::groups;
use crate::lanes::{I8x16x4, U8x16};
use core::arch::x86_64::*;

/// The low byte of each i16, sign-extended.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn even_bytes(w: __m256i) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe { _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)) }
}

/// See [`super`]; `a` is read as u8.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
pub(crate) unsafe fn dot<const M: usize, const N: usize>(
    a: [&[U8x16]; M],
    w: [&[I8x16x4]; N],
    mut acc: [[[__m256i; 2]; N]; M],
) -> [[[__m256i; 2]; N]; M] {
    let groups = groups(&a, &w);
    let a = a.map(|row| row.as_ptr().cast::<i32>());
    let w = w.map(|block| block.as_ptr().cast::<__m256i>());
    for g in 0..groups {
        for n in 0..N {
            // SAFETY: the caller promises AVX2; `groups` has checked that every block holds group `g`, which is two
            // registers, and every row 4 bytes at it; weights are 64-byte and activations 4-byte aligned.
            unsafe {
                let [low, high] = [*w[n].add(2 * g), *w[n].add(2 * g + 1)];
                let even = [even_bytes(low), even_bytes(high)];
                let odd = [_mm256_srai_epi16::<8>(low), _mm256_srai_epi16::<8>(high)];
                for m in 0..M {
                    let codes = _mm256_set1_epi32(*a[m].add(g));
                    let codes_even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
                    let codes_odd = _mm256_srli_epi16::<8>(codes);
                    for half in 0..2 {
                        let sum = _mm256_add_epi32(acc[m][n][half], _mm256_madd_epi16(even[half], codes_even));
                        acc[m][n][half] = _mm256_add_epi32(sum, _mm256_madd_epi16(odd[half], codes_odd));
                    }
                }
            }
        }
    }
    acc
}
