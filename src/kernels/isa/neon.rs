//! NEON (every aarch64 core), and what later cores add to it: sixteen lanes are four registers.
//!
//! Loads and stores go through aligned vector types: on the strict-align target aarch64-unknown-none `vld1q` would
//! become sixteen byte loads.
#![allow(unsafe_code)]

use core::arch::aarch64::*;
use core::{mem, ptr};

use super::{F16, Isa, ROUND, expand_quarters};
use crate::kernels::{Op, dot_f16, dot_i8};
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// Proof that the CPU has NEON, and the extensions up to `LEVEL`: each level has those below it too. Only the `run`
/// functions make one.
#[derive(Clone, Copy)]
pub(crate) struct Neon<const LEVEL: u8>(());

/// Armv8.0.
const BASE: u8 = 0;
/// FEAT_FP16: arithmetic in f16.
const FP16: u8 = 1;
/// FEAT_DotProd: SDOT.
const DOT: u8 = 2;
/// FEAT_I8MM: SMMLA.
const I8MM: u8 = 3;

/// Compiles `op` for Armv8.0.
#[target_feature(enable = "neon")]
pub(crate) fn run<O: Op>(op: O) -> O::Output {
    op.run(Neon::<BASE>(()))
}

/// Compiles `op` for cores with arithmetic in f16.
#[target_feature(enable = "neon,fp16")]
pub(crate) fn run_fp16<O: Op>(op: O) -> O::Output {
    op.run(Neon::<FP16>(()))
}

/// Compiles `op` for cores with SDOT.
#[target_feature(enable = "neon,fp16,dotprod")]
pub(crate) fn run_dot<O: Op>(op: O) -> O::Output {
    op.run(Neon::<DOT>(()))
}

/// Compiles `op` for cores with SMMLA.
#[target_feature(enable = "neon,fp16,dotprod,i8mm")]
pub(crate) fn run_i8mm<O: Op>(op: O) -> O::Output {
    op.run(Neon::<I8MM>(()))
}

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];

impl<const LEVEL: u8> Isa for Neon<LEVEL> {
    type F = F;
    type I = I;
    type F16 = NeonFp16;
    const CODE_XOR: u8 = 0x80;
    const TILE_ROWS: usize = if LEVEL >= DOT { 6 } else { 2 };
    const TILE_BLOCKS: usize = 1;
    const PAIRS: bool = LEVEL >= I8MM;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn load(self, x: &F32x16) -> F {
        // SAFETY: `self` proves NEON; the reference is to 64 bytes, 64-byte aligned, and every bit pattern is a value.
        unsafe { ptr::from_ref(x).cast::<F>().read() }
    }
    #[inline(always)]
    fn store(self, x: F, out: &mut F32x16) {
        // SAFETY: `self` proves NEON; the reference is to 64 bytes, 64-byte aligned, and every bit pattern is a value.
        unsafe { ptr::from_mut(out).cast::<F>().write(x) }
    }
    #[inline(always)]
    fn f16(self) -> Option<NeonFp16> {
        if const { LEVEL >= FP16 } { Some(NeonFp16(())) } else { None }
    }
    #[inline(always)]
    fn load_f16(self, x: &F16x16) -> F {
        // SAFETY: `self` proves NEON; the reference is to 32 bytes, 32-byte aligned, and every bit pattern is a value.
        unsafe {
            let x = ptr::from_ref(x).cast::<[float16x8_t; 2]>().read();
            [
                vcvt_f32_f16(vget_low_f16(x[0])),
                vcvt_high_f32_f16(x[0]),
                vcvt_f32_f16(vget_low_f16(x[1])),
                vcvt_high_f32_f16(x[1]),
            ]
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1]), vsubq_f32(a[2], b[2]), vsubq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1]), vmulq_f32(a[2], b[2]), vmulq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1]), vdivq_f32(a[2], b[2]), vdivq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn fma_constant(self, a: F, b: F, c: &'static F32x16) -> F {
        // Cores that issue in order (level BASE is theirs too) would wait for each load.
        if const { LEVEL == BASE } {
            return self.fma(a, b, self.load(c));
        }
        let mut sum = self.load(c);
        for (sum, (a, b)) in sum.iter_mut().zip(a.into_iter().zip(b)) {
            // SAFETY: reads the first 16 bytes of `c` (all lanes are equal) and computes in registers; `self` proves
            // NEON.
            unsafe {
                core::arch::asm!(
                    "ldr {sum:q}, [{c}]",
                    "fmla {sum:v}.4s, {a:v}.4s, {b:v}.4s",
                    sum = out(vreg) *sum, a = in(vreg) a, b = in(vreg) b, c = in(reg) c,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
        }
        sum
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vminnmq_f32(a[0], b[0]), vminnmq_f32(a[1], b[1]), vminnmq_f32(a[2], b[2]), vminnmq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vmaxnmq_f32(a[0], b[0]), vmaxnmq_f32(a[1], b[1]), vmaxnmq_f32(a[2], b[2]), vmaxnmq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vabsq_f32(a[0]), vabsq_f32(a[1]), vabsq_f32(a[2]), vabsq_f32(a[3])] }
    }
    #[inline(always)]
    fn copysign(self, a: F, sign: F) -> F {
        // SAFETY: `self` proves NEON.
        unsafe {
            let mask = vdupq_n_u32(1 << 31);
            [
                vbslq_f32(mask, sign[0], a[0]),
                vbslq_f32(mask, sign[1], a[1]),
                vbslq_f32(mask, sign[2], a[2]),
                vbslq_f32(mask, sign[3], a[3]),
            ]
        }
    }
    #[inline(always)]
    fn keep_first(self, a: F, n: usize) -> F {
        // SAFETY: `self` proves NEON.
        unsafe {
            const LANES: I32x16 = I32x16([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
            let (lane, n) = (self.load_i(&LANES), vdupq_n_s32(n as i32));
            let mut kept = a;
            for (kept, lane) in kept.iter_mut().zip(lane) {
                *kept = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(*kept), vcltq_s32(lane, n)));
            }
            kept
        }
    }
    #[inline(always)]
    fn expand(self, values: &[f32; 16], mask: u16) -> F {
        expand_quarters(mask).map(|(start, bytes)| {
            // SAFETY: `self` proves NEON; at most 12 values come before the four, which are read as four, since
            // `vld1q_f32` is a load of bytes where vectors must be aligned; the reference is to 16 bytes, 16-byte
            // aligned.
            unsafe {
                let four = values.as_ptr().add(start).cast::<[f32; 4]>().read();
                let four = mem::transmute::<[f32; 4], uint8x16_t>(four);
                vreinterpretq_f32_u8(vqtbl1q_u8(four, ptr::from_ref(bytes).cast::<uint8x16_t>().read()))
            }
        })
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: `self` proves NEON.
        unsafe {
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let a = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(vadd_f32(a, vdup_lane_f32::<1>(a)))
        }
    }
    #[inline(always)]
    fn min_lane(self, a: F) -> f32 {
        // SAFETY: `self` proves NEON.
        unsafe {
            let a = vminnmq_f32(vminnmq_f32(a[0], a[2]), vminnmq_f32(a[1], a[3]));
            let a = vminnm_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(vminnm_f32(a, vdup_lane_f32::<1>(a)))
        }
    }
    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        // SAFETY: `self` proves NEON.
        unsafe {
            let a = vmaxnmq_f32(vmaxnmq_f32(a[0], a[2]), vmaxnmq_f32(a[1], a[3]));
            let a = vmaxnm_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(vmaxnm_f32(a, vdup_lane_f32::<1>(a)))
        }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        // SAFETY: `self` proves NEON.
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    fn load_i(self, x: &I32x16) -> I {
        // SAFETY: `self` proves NEON; the reference is to 64 bytes, 64-byte aligned, and every bit pattern is a value.
        unsafe { ptr::from_ref(x).cast::<I>().read() }
    }
    #[inline(always)]
    fn store_i(self, x: I, out: &mut I32x16) {
        // SAFETY: `self` proves NEON; the reference is to 64 bytes, 64-byte aligned, and every bit pattern is a value.
        unsafe { ptr::from_mut(out).cast::<I>().write(x) }
    }
    #[inline(always)]
    fn add_i(self, a: I, b: I) -> I {
        // SAFETY: `self` proves NEON.
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1]), vaddq_s32(a[2], b[2]), vaddq_s32(a[3], b[3])] }
    }
    #[inline(always)]
    fn mul_i(self, a: I, b: I) -> I {
        // SAFETY: `self` proves NEON.
        unsafe { [vmulq_s32(a[0], b[0]), vmulq_s32(a[1], b[1]), vmulq_s32(a[2], b[2]), vmulq_s32(a[3], b[3])] }
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        // SAFETY: `self` proves NEON.
        unsafe { [vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1]), vcvtq_f32_s32(a[2]), vcvtq_f32_s32(a[3])] }
    }
    #[inline(always)]
    fn bits(self, a: F) -> I {
        // SAFETY: `self` proves NEON.
        unsafe {
            [
                vreinterpretq_s32_f32(a[0]),
                vreinterpretq_s32_f32(a[1]),
                vreinterpretq_s32_f32(a[2]),
                vreinterpretq_s32_f32(a[3]),
            ]
        }
    }
    #[inline(always)]
    fn float(self, a: I) -> F {
        // SAFETY: `self` proves NEON.
        unsafe {
            [
                vreinterpretq_f32_s32(a[0]),
                vreinterpretq_f32_s32(a[1]),
                vreinterpretq_f32_s32(a[2]),
                vreinterpretq_f32_s32(a[3]),
            ]
        }
    }
    #[inline(always)]
    fn shl_i(self, a: I, n: u32) -> I {
        // SAFETY: `self` proves NEON.
        unsafe {
            let n = vdupq_n_s32(n.cast_signed());
            [vshlq_s32(a[0], n), vshlq_s32(a[1], n), vshlq_s32(a[2], n), vshlq_s32(a[3], n)]
        }
    }
    #[inline(always)]
    fn store_low_bytes(self, a: I, flip: u8, out: &mut U8x16) {
        // SAFETY: `self` proves NEON; the reference is to 16 bytes, 16-byte aligned.
        unsafe {
            let low = vuzp1q_u16(vreinterpretq_u16_s32(a[0]), vreinterpretq_u16_s32(a[1]));
            let high = vuzp1q_u16(vreinterpretq_u16_s32(a[2]), vreinterpretq_u16_s32(a[3]));
            let bytes = veorq_u8(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)), vdupq_n_u8(flip));
            ptr::from_mut(out).cast::<uint8x16_t>().write(bytes)
        }
    }
    #[inline(always)]
    fn store_codes(self, a: F, out: &mut U8x16) {
        // The codes less 128 are the signed bytes; rounding stays, since 128 is even. Narrowing brings the one value
        // that is too large, 128, to 127.
        let a = self.bits(self.add(self.max(a, self.splat(0.0)), self.splat(ROUND - 128.0)));
        // SAFETY: `self` proves NEON; the reference is to 16 bytes, 16-byte aligned.
        unsafe {
            let a = [
                vreinterpretq_s16_s32(a[0]),
                vreinterpretq_s16_s32(a[1]),
                vreinterpretq_s16_s32(a[2]),
                vreinterpretq_s16_s32(a[3]),
            ];
            let bytes = vqmovn_high_s16(vqmovn_s16(vuzp1q_s16(a[0], a[1])), vuzp1q_s16(a[2], a[3]));
            ptr::from_mut(out).cast::<int8x16_t>().write(bytes)
        }
    }

    #[inline(always)]
    fn add_weighted_pixels(self, sums: I, pixels: &[[u8; 4]; 4], weights: &[i32; 4]) -> I {
        /// A pixel's bytes as the low bytes of four lanes; an index past the end gives zero.
        const SPREAD: [[u8; 16]; 4] = {
            let mut spread = [[0xff; 16]; 4];
            let mut i = 0;
            while i < 16 {
                spread[i / 4][i % 4 * 4] = i as u8;
                i += 1;
            }
            spread
        };
        // SAFETY: `self` proves NEON; the references are to 16 bytes, read by bytes.
        unsafe {
            let pixels = load_by_bytes(pixels);
            let weights = vreinterpretq_s32_u8(load_by_bytes(weights));
            let pixel = |i: usize| vreinterpretq_s32_u8(vqtbl1q_u8(pixels, vld1q_u8(SPREAD[i].as_ptr())));
            [
                vmlaq_laneq_s32::<0>(sums[0], pixel(0), weights),
                vmlaq_laneq_s32::<1>(sums[1], pixel(1), weights),
                vmlaq_laneq_s32::<2>(sums[2], pixel(2), weights),
                vmlaq_laneq_s32::<3>(sums[3], pixel(3), weights),
            ]
        }
    }

    #[inline(always)]
    fn dot_i8<const M: usize, const N: usize>(
        self,
        a: [&[U8x16]; M],
        w: [&[I8x16x4]; N],
        acc: [[I; N]; M],
    ) -> [[I; N]; M] {
        // SAFETY: `self` proves NEON, and the extensions that `LEVEL` names.
        unsafe {
            if const { LEVEL >= I8MM } {
                dot_i8::neon_i8mm::dot(a, w, acc)
            } else if const { LEVEL >= DOT } {
                dot_i8::neon_dot::dot(a, w, acc)
            } else {
                dot_i8::neon::dot(a, w, acc)
            }
        }
    }

    #[inline(always)]
    fn pair_rows(self, rows: [U8x16; 2]) -> [U8x16; 2] {
        // SAFETY: `self` proves NEON.
        if const { LEVEL >= I8MM } { unsafe { dot_i8::neon_i8mm::pair_rows(rows) } } else { rows }
    }

    #[inline(always)]
    fn pair_groups(self, groups: [I8x16x4; 2]) -> [I8x16x4; 2] {
        // SAFETY: `self` proves NEON.
        if const { LEVEL >= I8MM } { unsafe { dot_i8::neon_i8mm::pair_groups(groups) } } else { groups }
    }
}

/// Proof that the CPU has arithmetic in f16: only [`Isa::f16`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct NeonFp16(());

impl F16 for NeonFp16 {
    type F = F;

    #[inline(always)]
    fn store(self, x: F, out: &mut F16x16) {
        // SAFETY: `self` proves NEON; the reference is to 32 bytes, 32-byte aligned, and every bit pattern is a value.
        unsafe {
            let low = vcvt_high_f16_f32(vcvt_f16_f32(x[0]), x[1]);
            let high = vcvt_high_f16_f32(vcvt_f16_f32(x[2]), x[3]);
            ptr::from_mut(out).cast::<[float16x8_t; 2]>().write([low, high])
        }
    }

    #[inline(always)]
    fn dot<const M: usize, const N: usize>(
        self,
        a: [&[F16x16]; M],
        k: usize,
        w: [&[F16x16]; N],
        step: usize,
    ) -> [[F; N]; M] {
        // SAFETY: `self` proves the arithmetic.
        unsafe { dot_f16::neon_fp16::dot(a, k, w, step) }
    }
}

/// Sixteen bytes of any alignment, in one instruction on strict-align targets too: elements of `ld1` are aligned if
/// their bytes are.
#[inline(always)]
fn load_by_bytes<T>(words: &[T; 4]) -> uint8x16_t {
    const { assert!(size_of::<T>() == 4) };
    let bytes;
    // SAFETY: reads the 16 bytes; a value of `Neon` proves NEON at every caller.
    unsafe {
        core::arch::asm!(
            "ld1 {{{bytes:v}.16b}}, [{words}]",
            bytes = out(vreg) bytes, words = in(reg) words,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    bytes
}
