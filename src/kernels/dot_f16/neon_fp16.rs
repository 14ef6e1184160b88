//! NEON with FEAT_FP16: `fmla.8h` by element.
//!
//! One load brings 8 activations of a row; `fmla` picks one by index, and takes two registers of 8 channels of the
//! weights. A 4 x 16 tile has 8 accumulators in f16 (as many as two pipes of latency 4 can fill), 16 in f32, so that a
//! block ends without going through memory, and 4 registers of activations (which must be v0 to v15).

use super::BLOCK;
use crate::lanes::F16x16;
use core::arch::aarch64::*;

/// `acc[c] + w[c] * x[L]`, rounded once, eight f16. (A function of its own, since it needs the feature to be inlined.)
///
/// # Safety
/// The CPU must have FEAT_FP16.
#[inline]
#[target_feature(enable = "neon,fp16")]
unsafe fn fmla<const L: i32>(acc: float16x8_t, w: float16x8_t, x: float16x8_t) -> float16x8_t {
    vfmaq_laneq_f16::<L>(acc, w, x)
}

/// The lanes of `x` moved down by one, the first one last.
#[inline(always)]
fn rotate(x: float16x8_t) -> float16x8_t {
    // SAFETY: NEON is part of every aarch64 target that has this module.
    unsafe {
        let x = vreinterpretq_u16_f16(x);
        vreinterpretq_f16_u16(vextq_u16::<1>(x, x))
    }
}

/// Adds the weights `at`, whose activations are lane `L` of `x`.
///
/// # Safety
/// The CPU must have FEAT_FP16; every block must hold the 32 bytes at `at`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "one index runs through operands of three layouts")]
unsafe fn step<const L: i32, const M: usize, const N: usize>(
    x: &[float16x8_t; M],
    w: &[*const float16x8_t; N],
    at: usize,
    acc: &mut [[[float16x8_t; 2]; N]; M],
) {
    for n in 0..N {
        for half in 0..2 {
            // SAFETY: the caller promises the instruction and the weights.
            unsafe {
                let w = *w[n].add(2 * at + half);
                for m in 0..M {
                    acc[m][n][half] = fmla::<L>(acc[m][n][half], w, x[m]);
                }
            }
        }
    }
}

/// The products of `inputs`, which begin at a multiple of 8 and are not empty.
///
/// # Safety
/// The CPU must have FEAT_FP16; every row and block must hold these inputs, rows in whole chunks of 16.
#[inline(always)]
unsafe fn block<const M: usize, const N: usize>(
    a: &[*const float16x8_t; M],
    w: &[*const float16x8_t; N],
    inputs: core::ops::Range<usize>,
    stride: usize,
) -> [[[float16x8_t; 2]; N]; M] {
    // SAFETY: the caller promises the instructions and the inputs; rows are whole chunks, so that 8 can be loaded where
    // one is left.
    unsafe {
        let mut acc = [[[vreinterpretq_f16_u16(vdupq_n_u16(0)); 2]; N]; M];
        let mut i = inputs.start;
        while i + 8 <= inputs.end {
            let x = load(a, i / 8);
            step::<0, M, N>(&x, w, i * stride, &mut acc);
            step::<1, M, N>(&x, w, (i + 1) * stride, &mut acc);
            step::<2, M, N>(&x, w, (i + 2) * stride, &mut acc);
            step::<3, M, N>(&x, w, (i + 3) * stride, &mut acc);
            step::<4, M, N>(&x, w, (i + 4) * stride, &mut acc);
            step::<5, M, N>(&x, w, (i + 5) * stride, &mut acc);
            step::<6, M, N>(&x, w, (i + 6) * stride, &mut acc);
            step::<7, M, N>(&x, w, (i + 7) * stride, &mut acc);
            i += 8;
        }
        let mut x = load(a, i.min(inputs.end - 1) / 8);
        while i < inputs.end {
            step::<0, M, N>(&x, w, i * stride, &mut acc);
            for x in &mut x {
                *x = rotate(*x);
            }
            i += 1;
        }
        acc
    }
}

/// Chunk `chunk` of 8 of each row.
///
/// # Safety
/// Every row must hold that chunk.
#[inline(always)]
unsafe fn load<const M: usize>(a: &[*const float16x8_t; M], chunk: usize) -> [float16x8_t; M] {
    // SAFETY: the caller promises the chunk; rows are of F16x16, aligned to 32 bytes.
    let mut x = [unsafe { *a[0].add(chunk) }; M];
    for m in 1..M {
        // SAFETY: as above.
        x[m] = unsafe { *a[m].add(chunk) };
    }
    x
}

/// See [`super`].
///
/// # Safety
/// The CPU must have FEAT_FP16.
#[inline(always)]
pub(crate) unsafe fn dot<const M: usize, const N: usize>(
    a: [&[F16x16]; M],
    k: usize,
    w: [&[F16x16]; N],
    stride: usize,
) -> [[[float32x4_t; 4]; N]; M] {
    for row in a {
        assert!(row.len() >= k.div_ceil(16), "a row is shorter than k");
    }
    for block in w {
        assert!(k == 0 || block.len() > (k - 1) * stride, "a block of weights is shorter than k");
    }
    let a = a.map(|row| row.as_ptr().cast::<float16x8_t>());
    let w = w.map(|block| block.as_ptr().cast::<float16x8_t>());
    // SAFETY: the caller promises the instructions; rows and blocks hold k inputs, as just checked.
    unsafe {
        let mut sum = [[[vdupq_n_f32(0.0); 4]; N]; M];
        let mut first = 0;
        while first < k {
            let end = k.min(first + BLOCK);
            let acc = block(&a, &w, first..end, stride);
            for (sum, acc) in sum.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
                for half in 0..2 {
                    sum[2 * half] = vaddq_f32(sum[2 * half], vcvt_f32_f16(vget_low_f16(acc[half])));
                    sum[2 * half + 1] = vaddq_f32(sum[2 * half + 1], vcvt_high_f32_f16(acc[half]));
                }
            }
            first = end;
        }
        sum
    }
}
