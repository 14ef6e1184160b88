//! AVX-VNNI: `vpdpbusd` on 256 bits, which takes 32 u8 by 32 i8 and adds each four products to one i32 lane, without
//! saturation.
//!
//! A group of weights is two registers, and the four activations of a group are broadcast from memory: a 6 x 16 tile
//! takes 12 accumulators and three more registers. Small tiles have fewer accumulators than the multiplication's
//! latency has slots, so even and odd groups get their own.

use super::groups;
use crate::lanes::{I8x16x4, U8x16};
use core::arch::x86_64::*;

/// Adds group `g` to `acc`.
///
/// # Safety
/// The CPU must have AVX2 and AVX-VNNI; every row must hold 4 bytes and every block 64 bytes at group `g`.
#[inline(always)]
unsafe fn step<const M: usize, const N: usize>(
    a: &[*const i32; M],
    w: &[*const __m256i; N],
    g: usize,
    acc: &mut [[[__m256i; 2]; N]; M],
) {
    for n in 0..N {
        // SAFETY: the caller promises the instructions and the group; activations are 4-byte aligned (U8x16), weights
        // 64-byte aligned (I8x16x4).
        unsafe {
            let [low, high] = [*w[n].add(2 * g), *w[n].add(2 * g + 1)];
            for m in 0..M {
                let codes = _mm256_set1_epi32(*a[m].add(g));
                let [first, second] = acc[m][n];
                acc[m][n] = [_mm256_dpbusd_avx_epi32(first, codes, low), _mm256_dpbusd_avx_epi32(second, codes, high)];
            }
        }
    }
}

/// See [`super`]; `a` is read as u8.
///
/// # Safety
/// The CPU must have AVX2 and AVX-VNNI.
#[inline(always)]
pub(crate) unsafe fn dot<const M: usize, const N: usize>(
    a: [&[U8x16]; M],
    w: [&[I8x16x4]; N],
    mut acc: [[[__m256i; 2]; N]; M],
) -> [[[__m256i; 2]; N]; M] {
    let groups = groups(&a, &w);
    let a = a.map(|row| row.as_ptr().cast::<i32>());
    let w = w.map(|block| block.as_ptr().cast::<__m256i>());
    if M * N > 3 {
        for g in 0..groups {
            // SAFETY: `groups` has checked that all rows and blocks hold group `g`.
            unsafe { step(&a, &w, g, &mut acc) };
        }
        return acc;
    }
    // SAFETY: the caller promises AVX2.
    let mut odd = [[[unsafe { _mm256_setzero_si256() }; 2]; N]; M];
    for g in (0..groups).step_by(2) {
        // SAFETY: `groups` is even and has checked that all rows and blocks hold groups `g` and `g + 1`.
        unsafe {
            step(&a, &w, g, &mut acc);
            step(&a, &w, g + 1, &mut odd);
        }
    }
    for (acc, odd) in acc.as_flattened_mut().as_flattened_mut().iter_mut().zip(odd.as_flattened().as_flattened()) {
        // SAFETY: the caller promises AVX2.
        *acc = unsafe { _mm256_add_epi32(*acc, *odd) };
    }
    acc
}
