//! Plain Rust: the specification that every other instruction set equals bit for bit. Never tuned, and small:
//! arithmetic is calls, tiles are one row.

use super::{Isa, NoF16};
use crate::kernels::dot_i8;
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// Needs no feature of the CPU.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(never)]
fn map(mut a: F32x16, f: impl Fn(f32) -> f32) -> F32x16 {
    for x in &mut a.0 {
        *x = f(*x);
    }
    a
}

#[inline(never)]
fn zip(mut a: F32x16, b: F32x16, f: impl Fn(f32, f32) -> f32) -> F32x16 {
    for (x, y) in a.0.iter_mut().zip(b.0) {
        *x = f(*x, y);
    }
    a
}

#[inline(never)]
fn zip_i(mut a: I32x16, b: I32x16, f: impl Fn(i32, i32) -> i32) -> I32x16 {
    for (x, y) in a.0.iter_mut().zip(b.0) {
        *x = f(*x, y);
    }
    a
}

/// Combines lanes l and l + 8, then l + 4, l + 2, l + 1.
#[inline(never)]
fn reduce(mut a: F32x16, f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            a.0[lane] = f(a.0[lane], a.0[lane + half]);
        }
    }
    a.0[0]
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Isa for Scalar {
    type F = F32x16;
    type I = I32x16;
    type F16 = NoF16<F32x16>;
    const CODE_XOR: u8 = 0;
    const TILE_ROWS: usize = 1;
    const FLOAT_TILE_ROWS: usize = 1;
    const TILE_BLOCKS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        F32x16([x; 16])
    }
    #[inline(always)]
    fn load(self, x: &F32x16) -> F32x16 {
        *x
    }
    #[inline(always)]
    fn store(self, x: F32x16, out: &mut F32x16) {
        *out = x;
    }
    #[inline(always)]
    fn f16(self) -> Option<NoF16<F32x16>> {
        None
    }
    #[inline(never)]
    fn load_f16(self, x: &F16x16) -> F32x16 {
        let mut wide = F32x16([0.0; 16]);
        for (wide, &bits) in wide.0.iter_mut().zip(&x.0) {
            *wide = half::f16::from_bits(bits).to_f32();
        }
        wide
    }
    #[inline(always)]
    fn add(self, a: F32x16, b: F32x16) -> F32x16 {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F32x16, b: F32x16) -> F32x16 {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F32x16, b: F32x16) -> F32x16 {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F32x16, b: F32x16) -> F32x16 {
        zip(a, b, |a, b| a / b)
    }
    #[inline(never)]
    fn fma(self, mut a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
        for lane in 0..16 {
            a.0[lane] = libm::fmaf(a.0[lane], b.0[lane], c.0[lane]);
        }
        a
    }
    #[inline(always)]
    fn min(self, a: F32x16, b: F32x16) -> F32x16 {
        zip(a, b, smaller)
    }
    #[inline(always)]
    fn max(self, a: F32x16, b: F32x16) -> F32x16 {
        zip(a, b, larger)
    }
    #[inline(always)]
    fn abs(self, a: F32x16) -> F32x16 {
        map(a, f32::abs)
    }
    #[inline(always)]
    fn copysign(self, a: F32x16, sign: F32x16) -> F32x16 {
        zip(a, sign, f32::copysign)
    }
    #[inline(always)]
    fn keep_first(self, mut a: F32x16, n: usize) -> F32x16 {
        for x in a.0.iter_mut().skip(n) {
            *x = 0.0;
        }
        a
    }
    #[inline(always)]
    fn expand(self, values: &[f32; 16], mask: u16) -> F32x16 {
        let mut values = values.iter();
        F32x16(core::array::from_fn(|lane| match mask >> lane & 1 {
            1 => values.next().copied().unwrap_or_default(),
            _ => 0.0,
        }))
    }
    #[inline(always)]
    fn sum(self, a: F32x16) -> f32 {
        reduce(a, |a, b| a + b)
    }
    #[inline(always)]
    fn min_lane(self, a: F32x16) -> f32 {
        reduce(a, smaller)
    }
    #[inline(always)]
    fn max_lane(self, a: F32x16) -> f32 {
        reduce(a, larger)
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> I32x16 {
        I32x16([x; 16])
    }
    #[inline(always)]
    fn load_i(self, x: &I32x16) -> I32x16 {
        *x
    }
    #[inline(always)]
    fn store_i(self, x: I32x16, out: &mut I32x16) {
        *out = x;
    }
    #[inline(always)]
    fn add_i(self, a: I32x16, b: I32x16) -> I32x16 {
        zip_i(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn mul_i(self, a: I32x16, b: I32x16) -> I32x16 {
        zip_i(a, b, i32::wrapping_mul)
    }
    #[inline(never)]
    fn to_f32(self, a: I32x16) -> F32x16 {
        F32x16(a.0.map(|x| x as f32))
    }
    #[inline(always)]
    fn bits(self, a: F32x16) -> I32x16 {
        I32x16(a.0.map(|x| x.to_bits().cast_signed()))
    }
    #[inline(always)]
    fn float(self, a: I32x16) -> F32x16 {
        F32x16(a.0.map(|x| f32::from_bits(x.cast_unsigned())))
    }
    #[inline(never)]
    fn shl_i(self, a: I32x16, n: u32) -> I32x16 {
        I32x16(a.0.map(|x| x << n))
    }
    #[inline(never)]
    fn store_low_bytes(self, a: I32x16, flip: u8, out: &mut U8x16) {
        for (byte, x) in out.0.iter_mut().zip(a.0) {
            *byte = x as u8 ^ flip;
        }
    }

    #[inline(always)]
    fn add_weighted_pixels(self, sums: I32x16, pixels: &[[u8; 4]; 4], weights: &[i32; 4]) -> I32x16 {
        let product = |i: usize| weights[i / 4].wrapping_mul(i32::from(pixels[i / 4][i % 4]));
        I32x16(core::array::from_fn(|i| sums.0[i].wrapping_add(product(i))))
    }

    #[inline(always)]
    fn dot_i8<const M: usize, const N: usize>(
        self,
        a: [&[U8x16]; M],
        w: [&[I8x16x4]; N],
        acc: [[I32x16; N]; M],
    ) -> [[I32x16; N]; M] {
        dot_i8::scalar::dot(a, w, acc)
    }
}
