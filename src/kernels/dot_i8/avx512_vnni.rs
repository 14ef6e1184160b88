//! AVX-512 VNNI: `vpdpbusd` takes 64 u8 by 64 i8 and adds each four products to one i32 lane, without saturation.
//!
//! A group of weights is one register. The four activations of a group are broadcast from memory by the load unit, so
//! an 8 x 32 tile needs 10 loads and no shuffle for 16 multiplications. Small tiles (the tails, one row of the head)
//! have fewer accumulators than the multiplication's latency has slots, so even and odd groups get their own.
//!
//! Weights that fit the first-level cache beside the rows stay there from tile to tile. Longer ones come from the
//! second level in every tile, a little too late for the multiplications unless they are asked for ahead.

use super::{FIRST_LEVEL_GROUPS, groups};
use crate::lanes::{I8x16x4, U8x16};
use core::arch::x86_64::*;

/// How many groups ahead longer weights are prefetched: some 100 cycles.
const AHEAD: usize = 12;

/// Adds group `g` to `acc`.
///
/// # Safety
/// The CPU must have AVX512F and AVX512VNNI; every row must hold 4 bytes and every block 64 bytes at group `g`.
#[inline(always)]
unsafe fn step<const M: usize, const N: usize>(
    a: &[*const i32; M],
    w: &[*const __m512i; N],
    g: usize,
    acc: &mut [[__m512i; N]; M],
) {
    for m in 0..M {
        for n in 0..N {
            // SAFETY: the caller promises the instructions and the group; activations are 4-byte aligned (U8x16),
            // weights 64-byte aligned (I8x16x4).
            acc[m][n] = unsafe { _mm512_dpbusd_epi32(acc[m][n], _mm512_set1_epi32(*a[m].add(g)), *w[n].add(g)) };
        }
    }
}

/// See [`super`]; `a` is read as u8.
///
/// # Safety
/// The CPU must have AVX512F and AVX512VNNI.
#[inline(always)]
pub(crate) unsafe fn dot<const M: usize, const N: usize>(
    a: [&[U8x16]; M],
    w: [&[I8x16x4]; N],
    mut acc: [[__m512i; N]; M],
) -> [[__m512i; N]; M] {
    let groups = groups(&a, &w);
    let a = a.map(|row| row.as_ptr().cast::<i32>());
    let w = w.map(|block| block.as_ptr().cast::<__m512i>());
    if M * N > 4 && N * groups > FIRST_LEVEL_GROUPS {
        for g in 0..groups {
            for block in w {
                // SAFETY: the caller promises AVX512F, and with it SSE; a prefetch may be of any address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(g + AHEAD).cast()) };
            }
            // SAFETY: `groups` has checked that all rows and blocks hold group `g`.
            unsafe { step(&a, &w, g, &mut acc) };
        }
        return acc;
    }
    if M * N > 4 {
        for g in 0..groups {
            // SAFETY: `groups` has checked that all rows and blocks hold group `g`.
            unsafe { step(&a, &w, g, &mut acc) };
        }
        return acc;
    }
    // SAFETY: the caller promises AVX512F.
    let mut odd = [[unsafe { _mm512_setzero_si512() }; N]; M];
    for g in (0..groups).step_by(2) {
        // SAFETY: `groups` is even and has checked that all rows and blocks hold groups `g` and `g + 1`.
        unsafe {
            step(&a, &w, g, &mut acc);
            step(&a, &w, g + 1, &mut odd);
        }
    }
    for m in 0..M {
        for n in 0..N {
            // SAFETY: the caller promises AVX512F.
            acc[m][n] = unsafe { _mm512_add_epi32(acc[m][n], odd[m][n]) };
        }
    }
    acc
}
