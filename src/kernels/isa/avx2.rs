//! AVX2 with FMA and F16C (Haswell, Zen and later), and AVX-VNNI (Alder Lake and later, without AVX-512): sixteen lanes
//! are two registers.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::{Isa, NoF16, expand_quarters};
use crate::kernels::{Op, dot_i8};
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// Proof that the CPU has AVX2, FMA and F16C, and AVX-VNNI if `VNNI`: only the `run` functions make one.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>(());

/// Compiles `op` for AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn run<O: Op>(op: O) -> O::Output {
    op.run(Avx2::<false>(()))
}

/// Compiles `op` for AVX2 and AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(crate) fn run_vnni<O: Op>(op: O) -> O::Output {
    op.run(Avx2::<true>(()))
}

type F = [__m256; 2];
type I = [__m256i; 2];

impl<const VNNI: bool> Isa for Avx2<VNNI> {
    type F = F;
    type I = I;
    type F16 = NoF16<F>;
    const CODE_XOR: u8 = 0;
    const TILE_ROWS: usize = if VNNI { 6 } else { 4 };
    const TILE_BLOCKS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, x: &F32x16) -> F {
        // SAFETY: `self` proves AVX2; the reference is to 64 bytes, 64-byte aligned.
        unsafe {
            let x = x.0.as_ptr();
            [_mm256_load_ps(x), _mm256_load_ps(x.add(8))]
        }
    }
    #[inline(always)]
    fn store(self, x: F, out: &mut F32x16) {
        // SAFETY: `self` proves AVX2; the reference is to 64 bytes, 64-byte aligned.
        unsafe {
            let out = out.0.as_mut_ptr();
            _mm256_store_ps(out, x[0]);
            _mm256_store_ps(out.add(8), x[1]);
        }
    }
    #[inline(always)]
    fn f16(self) -> Option<NoF16<F>> {
        None
    }
    #[inline(always)]
    fn load_f16(self, x: &F16x16) -> F {
        // SAFETY: `self` proves AVX2; the reference is to 32 bytes, 32-byte aligned.
        unsafe {
            let x = x.0.as_ptr().cast::<__m128i>();
            [_mm256_cvtph_ps(_mm_load_si128(x)), _mm256_cvtph_ps(_mm_load_si128(x.add(1)))]
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        }
    }
    #[inline(always)]
    fn sqrt(self, x: f32) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let x = _mm_set_ss(x);
            _mm_cvtss_f32(_mm_sqrt_ss(x))
        }
    }
    #[inline(always)]
    fn copysign(self, a: F, sign: F) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let mask = _mm256_set1_ps(-0.0);
            let magnitude = self.abs(a);
            [
                _mm256_or_ps(magnitude[0], _mm256_and_ps(mask, sign[0])),
                _mm256_or_ps(magnitude[1], _mm256_and_ps(mask, sign[1])),
            ]
        }
    }
    #[inline(always)]
    fn keep_first(self, a: F, n: usize) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let n = _mm256_set1_epi32(n as i32);
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let keep =
                [_mm256_cmpgt_epi32(n, lane), _mm256_cmpgt_epi32(n, _mm256_add_epi32(lane, _mm256_set1_epi32(8)))];
            [_mm256_and_ps(a[0], _mm256_castsi256_ps(keep[0])), _mm256_and_ps(a[1], _mm256_castsi256_ps(keep[1]))]
        }
    }
    #[inline(always)]
    fn expand(self, values: &[f32; 16], mask: u16) -> F {
        let [a, b, c, d] = expand_quarters(mask).map(|(start, bytes)| {
            // SAFETY: `self` proves AVX2; at most 12 values come before the four; the reference is to 16 bytes, 16-byte
            // aligned.
            unsafe {
                let four = _mm_loadu_si128(values.as_ptr().add(start).cast());
                _mm_castsi128_ps(_mm_shuffle_epi8(four, _mm_load_si128(bytes.0.as_ptr().cast())))
            }
        });
        // SAFETY: as above.
        unsafe { [_mm256_set_m128(b, a), _mm256_set_m128(d, c)] }
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let a = _mm256_add_ps(a[0], a[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn min_lane(self, a: F) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let a = _mm256_min_ps(a[0], a[1]);
            let a = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_min_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn load_i(self, x: &I32x16) -> I {
        // SAFETY: `self` proves AVX2; the reference is to 64 bytes, 64-byte aligned.
        unsafe {
            let x = x.0.as_ptr().cast::<__m256i>();
            [_mm256_load_si256(x), _mm256_load_si256(x.add(1))]
        }
    }
    #[inline(always)]
    fn store_i(self, x: I, out: &mut I32x16) {
        // SAFETY: `self` proves AVX2; the reference is to 64 bytes, 64-byte aligned.
        unsafe {
            let out = out.0.as_mut_ptr().cast::<__m256i>();
            _mm256_store_si256(out, x[0]);
            _mm256_store_si256(out.add(1), x[1]);
        }
    }
    #[inline(always)]
    fn add_i(self, a: I, b: I) -> I {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul_i(self, a: I, b: I) -> I {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }
    #[inline(always)]
    fn bits(self, a: F) -> I {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_castps_si256(a[0]), _mm256_castps_si256(a[1])] }
    }
    #[inline(always)]
    fn float(self, a: I) -> F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(a[1])] }
    }
    #[inline(always)]
    fn shl_i(self, a: I, n: u32) -> I {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let n = _mm_cvtsi32_si128(n.cast_signed());
            [_mm256_sll_epi32(a[0], n), _mm256_sll_epi32(a[1], n)]
        }
    }
    #[inline(always)]
    fn store_low_bytes(self, a: I, flip: u8, out: &mut U8x16) {
        // SAFETY: `self` proves AVX2; the reference is to 16 bytes, 16-byte aligned.
        unsafe {
            let low = _mm256_set1_epi32(0xff);
            let (a, b) = (_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low));
            // Packing works within 128-bit halves: words a0 b0 | a1 b1, put in order a0 a1 | b0 b1.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let bytes = _mm_xor_si128(bytes, _mm_set1_epi8(flip.cast_signed()));
            _mm_store_si128(out.0.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add_weighted_pixels(self, sums: I, pixels: &[[u8; 4]; 4], weights: &[i32; 4]) -> I {
        // SAFETY: `self` proves AVX2; the references are to 16 bytes, read unaligned.
        unsafe {
            let pixels = _mm_loadu_si128(pixels.as_ptr().cast());
            let weights = _mm256_castsi128_si256(_mm_loadu_si128(weights.as_ptr().cast()));
            let low = _mm256_permutevar8x32_epi32(weights, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
            let high = _mm256_permutevar8x32_epi32(weights, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3));
            let products = [
                _mm256_mullo_epi32(_mm256_cvtepu8_epi32(pixels), low),
                _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(pixels, pixels)), high),
            ];
            self.add_i(sums, products)
        }
    }

    #[inline(always)]
    fn dot_i8<const M: usize, const N: usize>(
        self,
        a: [&[U8x16]; M],
        w: [&[I8x16x4]; N],
        acc: [[I; N]; M],
    ) -> [[I; N]; M] {
        // SAFETY: `self` proves AVX2, and AVX-VNNI if `VNNI`.
        unsafe { if VNNI { dot_i8::avx_vnni::dot(a, w, acc) } else { dot_i8::avx2::dot(a, w, acc) } }
    }
}
