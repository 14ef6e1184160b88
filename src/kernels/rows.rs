//! Row-wise operations of the f32 stream: norms, activation functions, quantization of activations (or rounding to
//! f16), LayerScale as a pass.
//!
//! A matrix `[rows, n]` is stored as `rows * ceil(n / 16)` chunks of sixteen floats, zero in the lanes past n. Every op
//! takes whole rows and works row by row, so a caller may cut a matrix into blocks of rows as it likes: the bits stay
//! the same. Formulas and their order: docs/numerics.md ("Activations, int8", "LayerNorm and RMSNorm", "exp and the
//! activation functions").
//!
//! Every op panics on entry, before it writes, if its slices do not have the shapes that its fields state.
//! What does not belong here: anything that mixes rows (attention, linear layers).

mod norm;

pub(crate) use norm::{RowNorm, RowNormQuantize};

use super::isa::{F16, Isa, ROUND};
use super::{Op, Uses, math};
use crate::bytes::floats;
use crate::config::Activation;
use crate::lanes::{F16x16, F32x16, U8x16, channels};

/// LayerNorm of every row.
pub(crate) type LayerNorm<'a> = RowNorm<'a, true>;

/// [`LayerNorm`] followed by [`Quantize`].
pub(crate) type LayerNormQuantize<'a, E> = RowNormQuantize<'a, E, true>;

/// Rows of 8-bit activation codes with one scale and one zero point each; to be read.
#[derive(Clone, Copy)]
pub(crate) struct Codes<'a> {
    /// `[rows, stride]`; stored bytes are the u8 codes xor [`Isa::CODE_XOR`].
    pub codes: &'a [U8x16],
    /// Chunks of sixteen codes from row to row.
    pub stride: usize,
    /// `[rows]`: x = scale * (code - zero).
    pub scale: &'a [f32],
    /// `[rows]`, 0 to 255.
    pub zero: &'a [i32],
}

/// [`Codes`] to be written. Chunks of a row past its width stay as they are.
pub(crate) struct CodesMut<'a> {
    pub codes: &'a mut [U8x16],
    pub stride: usize,
    pub scale: &'a mut [f32],
    pub zero: &'a mut [i32],
}

/// Rows of f16 with a power of two taken out of each; to be read. Only where the CPU has [`Isa::f16`].
#[derive(Clone, Copy)]
pub(crate) struct Halves<'a> {
    /// `[rows, stride]`, below 2 in magnitude.
    pub values: &'a [F16x16],
    /// Chunks of sixteen values from row to row.
    pub stride: usize,
    /// `[rows]`: x = scale * value.
    pub scale: &'a [f32],
}

/// [`Halves`] to be written. Chunks of a row past its width stay as they are.
pub(crate) struct HalvesMut<'a> {
    pub values: &'a mut [F16x16],
    pub stride: usize,
    pub scale: &'a mut [f32],
}

/// Rows in a form that matrices take: [`CodesMut`] or [`HalvesMut`].
pub(crate) trait Encode {
    /// See [`Op::USES`]: [`Uses::Lanes`] or [`Uses::F16`].
    const USES: Uses;

    /// Panics unless there is room for `rows` rows of `chunks` chunks.
    fn check(&self, rows: usize, chunks: usize);

    /// Writes row `index`, whose values span `range`.
    fn encode<S: Isa>(&mut self, s: S, index: usize, row: &[F32x16], range: Range<S>);
}

impl Encode for HalvesMut<'_> {
    const USES: Uses = Uses::F16;

    fn check(&self, rows: usize, chunks: usize) {
        assert!(self.stride >= chunks && self.values.len() >= rows * self.stride, "too few values");
        assert!(self.scale.len() >= rows, "too few scales");
    }

    #[inline(always)]
    fn encode<S: Isa>(&mut self, s: S, index: usize, row: &[F32x16], range: Range<S>) {
        let Some(f16) = s.f16() else { unreachable!("no arithmetic in f16") };
        let (scale, inverse) = range.power_of_two(s);
        self.scale[index] = scale;
        let inverse = s.splat(inverse);
        let values = &mut self.values[index * self.stride..][..row.len()];
        for (x, value) in row.iter().zip(values) {
            f16.store(s.mul(s.load(x), inverse), value);
        }
    }
}

impl Encode for CodesMut<'_> {
    const USES: Uses = Uses::Lanes;

    fn check(&self, rows: usize, chunks: usize) {
        assert!(self.stride >= chunks && self.codes.len() >= rows * self.stride, "too few codes");
        assert!(self.scale.len() >= rows && self.zero.len() >= rows, "too few scales or zero points");
    }

    #[inline(always)]
    fn encode<S: Isa>(&mut self, s: S, index: usize, row: &[F32x16], range: Range<S>) {
        let (scale, inverse, zero) = range.parameters(s);
        self.scale[index] = scale;
        self.zero[index] = zero as i32;
        let (inverse, zero) = (s.splat(inverse), s.splat(zero));
        let codes = &mut self.codes[index * self.stride..][..row.len()];
        for (x, code) in row.iter().zip(codes) {
            // At most 255.5: the scale comes from the row's own range.
            s.store_codes(s.fma(s.load(x), inverse, zero), code);
        }
    }
}

/// Scale, its inverse, and the zero point (a whole number) of 8-bit codes for values from `lo`, at most 0, to `hi`, at
/// least 0. An infinite range has an infinite scale, so that whatever is computed from the codes is not finite, either.
#[inline(always)]
pub(crate) fn asymmetric(lo: f32, hi: f32) -> (f32, f32, f32) {
    let range = hi - lo;
    let inverse = if range < 1.0e-30 { 0.0 } else { 255.0 / range };
    let scale = if range < 1.0e-30 { 0.0 } else { range / 255.0 };
    let zero = -lo * inverse;
    // Written out: NaN (an infinite lo times 0) becomes 0.
    let zero = if zero > 0.0 { zero } else { 0.0 };
    let zero = if zero < 255.0 { zero } else { 255.0 };
    (scale, inverse, (zero + ROUND) - ROUND)
}

/// Lane by lane the least and the greatest value of a row so far, and zero.
#[derive(Clone, Copy)]
pub(crate) struct Range<S: Isa> {
    lo: S::F,
    hi: S::F,
    /// Zero, or NaN where a value was NaN (or infinite), which the other two pass over.
    not_finite: S::F,
}

impl<S: Isa> Range<S> {
    #[inline(always)]
    pub(super) fn zero(s: S) -> Self {
        Self { lo: s.splat(0.0), hi: s.splat(0.0), not_finite: s.splat(0.0) }
    }

    #[inline(always)]
    pub(super) fn include(&mut self, s: S, x: S::F) {
        self.lo = s.min(x, self.lo);
        self.hi = s.max(x, self.hi);
        self.not_finite = s.fma(x, s.splat(0.0), self.not_finite);
    }

    /// Scale, its inverse, and the zero point (a whole number). The scale of a row that is not finite is not finite.
    #[inline(always)]
    pub(super) fn parameters(self, s: S) -> (f32, f32, f32) {
        let (scale, inverse, zero) = asymmetric(s.min_lane(self.lo), s.max_lane(self.hi));
        (scale + s.sum(self.not_finite), inverse, zero)
    }

    /// The power of two that leaves the greatest magnitude in [1, 2), and its inverse; zeros for rows that are (almost)
    /// zero. Beyond 1e38 the scale is infinite. (NaN stays NaN in f16.)
    #[inline(always)]
    fn power_of_two(self, s: S) -> (f32, f32) {
        let max = s.max_lane(s.max(s.abs(self.lo), self.hi));
        if max < 1.0e-30 {
            return (0.0, 0.0);
        } else if max >= 1.0e38 {
            return (f32::INFINITY, 0.0);
        }
        // The field of the exponent alone; the field of the inverse is 254 minus it.
        let exponent = max.to_bits() & 0x7f80_0000;
        (f32::from_bits(exponent), f32::from_bits((254 << 23) - exponent))
    }
}

/// Activations `[rows, 16 * chunks]` to 8 bits, or to f16.
pub(crate) struct Quantize<'a, E> {
    pub x: &'a [F32x16],
    /// Chunks per row.
    pub chunks: usize,
    pub out: E,
}

impl<E: Encode> Op for Quantize<'_, E> {
    type Output = ();
    const USES: Uses = E::USES;
    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        self.out.check(whole_rows(self.x, self.chunks), self.chunks);
        for (index, row) in self.x.chunks_exact(self.chunks).enumerate() {
            let mut range = Range::zero(s);
            for x in row {
                range.include(s, s.load(x));
            }
            self.out.encode(s, index, row, range);
        }
    }
}

/// The number of rows of `chunks` chunks in `x`.
fn whole_rows(x: &[F32x16], chunks: usize) -> usize {
    assert!(chunks > 0 && x.len().is_multiple_of(chunks), "not a whole number of rows");
    x.len() / chunks
}

/// The activation function of an MLP on rows of `chunks` chunks, in place. SwiGLU's result is in the first half of each
/// row.
pub(crate) struct Activate<'a> {
    pub x: &'a mut [F32x16],
    /// Chunks per row, even for SwiGLU.
    pub chunks: usize,
    pub activation: Activation,
}

impl Op for Activate<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        whole_rows(self.x, self.chunks);
        for row in self.x.chunks_exact_mut(self.chunks) {
            activate_row(s, row, self.activation);
        }
    }
}

/// [`Activate`] followed by [`Quantize`] of the result: of the first half of each row for SwiGLU.
pub(crate) struct ActivateQuantize<'a, E> {
    /// Holds the activated values afterwards.
    pub x: &'a mut [F32x16],
    pub chunks: usize,
    pub activation: Activation,
    pub out: E,
}

impl<E: Encode> Op for ActivateQuantize<'_, E> {
    type Output = ();
    const USES: Uses = match E::USES {
        Uses::Lanes => Uses::Polynomials,
        more => more,
    };
    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let halves = if self.activation == Activation::SwiGlu { 2 } else { 1 };
        self.out.check(whole_rows(self.x, self.chunks), self.chunks / halves);
        for (index, row) in self.x.chunks_exact_mut(self.chunks).enumerate() {
            let range = activate_row(s, row, self.activation);
            self.out.encode(s, index, &row[..self.chunks / halves], range);
        }
    }
}

/// Activates one row in place and returns the range of the result.
#[inline(always)]
fn activate_row<S: Isa>(s: S, row: &mut [F32x16], activation: Activation) -> Range<S> {
    match activation {
        Activation::Gelu => map_row::<S, Gelu>(s, row),
        Activation::GeluTanh => map_row::<S, GeluTanh>(s, row),
        Activation::GeluQuick => map_row::<S, GeluQuick>(s, row),
        Activation::SwiGlu => gate_row(s, row),
    }
}

/// A function of one value. A type and not a closure, so that it is inlined wherever the instruction set is known.
trait Map {
    fn map<S: Isa>(s: S, x: S::F) -> S::F;
}

struct Gelu;
struct GeluTanh;
struct GeluQuick;

impl Map for Gelu {
    #[inline(always)]
    fn map<S: Isa>(s: S, x: S::F) -> S::F {
        math::gelu(s, x)
    }
}

impl Map for GeluTanh {
    #[inline(always)]
    fn map<S: Isa>(s: S, x: S::F) -> S::F {
        math::gelu_tanh(s, x)
    }
}

impl Map for GeluQuick {
    #[inline(always)]
    fn map<S: Isa>(s: S, x: S::F) -> S::F {
        math::gelu_quick(s, x)
    }
}

#[inline(always)]
fn map_row<S: Isa, M: Map>(s: S, row: &mut [F32x16]) -> Range<S> {
    let mut range = Range::zero(s);
    for x in row {
        let y = M::map(s, s.load(x));
        range.include(s, y);
        s.store(y, x);
    }
    range
}

/// `[gate | up]` to `[up * silu(gate) | up]`.
#[inline(always)]
fn gate_row<S: Isa>(s: S, row: &mut [F32x16]) -> Range<S> {
    let (gate, up) = row.split_at_mut(row.len() / 2);
    let mut range = Range::zero(s);
    for (gate, up) in gate.iter_mut().zip(up) {
        let y = s.mul(s.load(up), math::silu(s, s.load(gate)));
        range.include(s, y);
        s.store(y, gate);
    }
    range
}

/// `x = factor * x + offset` over the rows of `x` `[rows, n]`, fused.
pub(crate) struct Affine<'a> {
    pub x: &'a mut [F32x16],
    /// `[n]`.
    pub factor: &'a [F32x16],
    /// `[n]`.
    pub offset: &'a [F32x16],
}

impl Op for Affine<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        whole_rows(self.x, self.factor.len());
        for row in self.x.chunks_exact_mut(self.factor.len()) {
            for ((x, factor), offset) in row.iter_mut().zip(self.factor).zip(self.offset) {
                s.store(s.fma(s.load(x), s.load(factor), s.load(offset)), x);
            }
        }
    }
}

/// `y = gamma * y` over the rows of `y` `[rows, n]`: LayerScale as a separate pass.
pub(crate) struct Scale<'a> {
    pub y: &'a mut [F32x16],
    /// `[n]`.
    pub gamma: &'a [F32x16],
}

impl Op for Scale<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        whole_rows(self.y, self.gamma.len());
        for row in self.y.chunks_exact_mut(self.gamma.len()) {
            for (y, gamma) in row.iter_mut().zip(self.gamma) {
                s.store(s.mul(s.load(gamma), s.load(y)), y);
            }
        }
    }
}

/// `x + y`, or `fma(gamma, y, x)`, over the rows of `x` `[rows, n]`: the end of a residual branch whose last operation
/// is no matrix.
pub(crate) struct AddRows<'a> {
    pub x: &'a mut [F32x16],
    /// The shape of `x`.
    pub y: &'a [F32x16],
    /// `[n]`.
    pub gamma: Option<&'a [F32x16]>,
}

impl Op for AddRows<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        assert_eq!(self.x.len(), self.y.len(), "y has the shape of x");
        let Some(gamma) = self.gamma else {
            for (x, y) in self.x.iter_mut().zip(self.y) {
                s.store(s.add(s.load(x), s.load(y)), x);
            }
            return;
        };
        whole_rows(self.y, gamma.len());
        for (x, y) in self.x.chunks_exact_mut(gamma.len()).zip(self.y.chunks_exact(gamma.len())) {
            for ((x, y), gamma) in x.iter_mut().zip(y).zip(gamma) {
                s.store(s.fma(s.load(gamma), s.load(y), s.load(x)), x);
            }
        }
    }
}

/// Adds the rows of `y`, which hold the channels of a mask one after another, to those channels of the rows of `x`
/// `[rows, n]`.
pub(crate) struct AddKept<'a> {
    pub x: &'a mut [F32x16],
    /// `[rows, channels of the mask]`.
    pub y: &'a [F32x16],
    /// `[n]`, bit l of mask c for channel 16 c + l.
    pub kept: &'a [[u8; 2]],
}

impl Op for AddKept<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let rows = whole_rows(self.x, self.kept.len());
        let stride = channels(self.kept).div_ceil(16);
        assert_eq!(self.y.len(), rows * stride, "y has a column for each channel");
        if stride == 0 {
            return;
        }
        for (x, y) in self.x.chunks_exact_mut(self.kept.len()).zip(self.y.chunks_exact(stride)) {
            let mut y = floats(y);
            for (x, mask) in x.iter_mut().zip(self.kept) {
                let mask = u16::from_le_bytes(*mask);
                let mut last = [0.0; 16];
                let values = y.first_chunk().unwrap_or_else(|| {
                    last[..y.len()].copy_from_slice(y);
                    &last
                });
                s.store(s.add(s.load(x), s.expand(values, mask)), x);
                y = y.get(mask.count_ones() as usize..).unwrap_or(&[]);
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
