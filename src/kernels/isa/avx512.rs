//! AVX-512 with VNNI (Ice Lake, Zen 4 and later): sixteen lanes are one register.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::{Isa, NoF16};
use crate::kernels::{Op, dot_i8};
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// Proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI: only [`run`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni(());

/// Compiles `op` for this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn run<O: Op>(op: O) -> O::Output {
    op.run(Avx512Vnni(()))
}

impl Isa for Avx512Vnni {
    type F = __m512;
    type I = __m512i;
    type F16 = NoF16<__m512>;
    const CODE_XOR: u8 = 0;
    const TILE_ROWS: usize = 8;
    const TILE_BLOCKS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &F32x16) -> __m512 {
        // SAFETY: `self` proves AVX-512; the reference is to 64 bytes, 64-byte aligned.
        unsafe { _mm512_load_ps(x.0.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: __m512, out: &mut F32x16) {
        // SAFETY: `self` proves AVX-512; the reference is to 64 bytes, 64-byte aligned.
        unsafe { _mm512_store_ps(out.0.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn f16(self) -> Option<NoF16<__m512>> {
        None
    }
    #[inline(always)]
    fn load_f16(self, x: &F16x16) -> __m512 {
        // SAFETY: `self` proves AVX-512; the reference is to 32 bytes, 32-byte aligned.
        unsafe { _mm512_cvtph_ps(_mm256_load_si256(x.0.as_ptr().cast())) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn sqrt(self, x: f32) -> f32 {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let x = _mm_set_ss(x);
            _mm_cvtss_f32(_mm_sqrt_ss(x))
        }
    }
    #[inline(always)]
    fn copysign(self, a: __m512, sign: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512. 0xd8 picks `a` where the mask bit is 0 and `sign` where it is 1.
        unsafe {
            let mask = _mm512_set1_epi32(i32::MIN);
            let (a, sign) = (_mm512_castps_si512(a), _mm512_castps_si512(sign));
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xd8>(a, sign, mask))
        }
    }
    #[inline(always)]
    fn keep_first(self, a: __m512, n: usize) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_maskz_mov_ps(((1_u32 << n) - 1) as __mmask16, a) }
    }
    #[inline(always)]
    fn expand(self, values: &[f32; 16], mask: u16) -> __m512 {
        // SAFETY: `self` proves AVX-512; the reference is to 16 floats.
        unsafe { _mm512_maskz_expand_ps(mask, _mm512_loadu_ps(values.as_ptr())) }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn min_lane(self, a: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let a = _mm256_min_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_min_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let a = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        // SAFETY: `self` proves AVX-512, and with it SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(core::ptr::from_ref(at).cast()) }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn load_i(self, x: &I32x16) -> __m512i {
        // SAFETY: `self` proves AVX-512; the reference is to 64 bytes, 64-byte aligned.
        unsafe { _mm512_load_si512(x.0.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_i(self, x: __m512i, out: &mut I32x16) {
        // SAFETY: `self` proves AVX-512; the reference is to 64 bytes, 64-byte aligned.
        unsafe { _mm512_store_si512(out.0.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn add_i(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn mul_i(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn bits(self, a: __m512) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_castps_si512(a) }
    }
    #[inline(always)]
    fn float(self, a: __m512i) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    fn shl_i(self, a: __m512i, n: u32) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n.cast_signed())) }
    }
    #[inline(always)]
    fn store_low_bytes(self, a: __m512i, flip: u8, out: &mut U8x16) {
        // SAFETY: `self` proves AVX-512; the reference is to 16 bytes, 16-byte aligned.
        unsafe {
            let bytes = _mm_xor_si128(_mm512_cvtepi32_epi8(a), _mm_set1_epi8(flip.cast_signed()));
            _mm_store_si128(out.0.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add_weighted_pixels(self, sums: __m512i, pixels: &[[u8; 4]; 4], weights: &[i32; 4]) -> __m512i {
        // SAFETY: `self` proves AVX-512; the references are to 16 bytes, read unaligned.
        unsafe {
            let pixels = _mm512_cvtepu8_epi32(_mm_loadu_si128(pixels.as_ptr().cast()));
            let weights = _mm512_castsi128_si512(_mm_loadu_si128(weights.as_ptr().cast()));
            let each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            _mm512_add_epi32(sums, _mm512_mullo_epi32(pixels, _mm512_permutexvar_epi32(each, weights)))
        }
    }

    #[inline(always)]
    fn dot_i8<const M: usize, const N: usize>(
        self,
        a: [&[U8x16]; M],
        w: [&[I8x16x4]; N],
        acc: [[__m512i; N]; M],
    ) -> [[__m512i; N]; M] {
        // SAFETY: `self` proves AVX-512 VNNI.
        unsafe { dot_i8::avx512_vnni::dot(a, w, acc) }
    }
}
