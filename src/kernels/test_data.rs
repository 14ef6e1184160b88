//! Operands for the tests of kernels: reproducible, and extreme where that matters.

use std::vec::Vec;

use super::Op;
use super::isa::Isa;
use crate::lanes::{F32x16, I8x16x4};

/// A multiplicative congruence of which the high bits are used.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Uniform within [-1, 1).
    pub(crate) fn signed(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Activation codes: uniform, or only 0 and 255.
    pub(crate) fn codes(&mut self, len: usize, extreme: bool) -> Vec<u8> {
        (0..len).map(|_| if extreme { [0, 255][self.bits() as usize % 2] } else { self.bits() as u8 }).collect()
    }

    /// Weights: uniform within [-127, 127], or only these two.
    pub(crate) fn weights(&mut self, len: usize, extreme: bool) -> Vec<i8> {
        let mut weight = || match extreme {
            true => [-127, 127][self.bits() as usize % 2],
            false => (self.bits() % 255) as i8,
        };
        (0..len).map(|_| weight().max(-127)).collect()
    }

    pub(crate) fn chunks(&mut self, len: usize) -> Vec<F32x16> {
        (0..len).map(|_| F32x16(core::array::from_fn(|_| self.signed()))).collect()
    }
}

/// Weights in the order of the model file, whatever the order is that the instruction set multiplies them in.
pub(crate) struct Unpaired<'a>(pub &'a [I8x16x4]);

impl Op for Unpaired<'_> {
    type Output = Vec<I8x16x4>;

    #[inline(always)]
    fn run<S: Isa>(self, _: S) -> Vec<I8x16x4> {
        let mut out = self.0.to_vec();
        if const { S::PAIRS } {
            for (pair, out) in self.0.chunks_exact(2).zip(out.chunks_exact_mut(2)) {
                for (i, &code) in pair.iter().flat_map(|group| &group.0).enumerate() {
                    let (channel, k) = (i / 8, i % 8);
                    out[k / 4].0[4 * channel + k % 4] = code;
                }
            }
        }
        out
    }
}

/// The bits of all lanes, one pattern for every NaN.
pub(crate) fn bits(x: &[F32x16]) -> Vec<u32> {
    let canonical = |x: &f32| {
        if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
    };
    x.iter().flat_map(|x| &x.0).map(canonical).collect()
}
