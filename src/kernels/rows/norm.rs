//! Norms of rows, alone and followed by [`Quantize`](super::Quantize): LayerNorm (Ba et al. 2016), and RMSNorm (Zhang and
//! Sennrich 2019), which takes no mean out and adds no bias.
//!
//! Each is a [`Measure`]: it measures a row first and writes it afterwards. The two loops over rows are shared.

use core::slice::ChunksExact;

use super::{Encode, Range, whole_rows};
use crate::kernels::isa::Isa;
use crate::kernels::{Op, Uses};
use crate::lanes::F32x16;

/// LayerNorm of every row of `x` `[rows, n]` into `out`, which has the same shape.
pub(crate) struct LayerNorm<'a> {
    pub x: &'a [F32x16],
    /// `[n]`, zero-padded.
    pub weight: &'a [F32x16],
    /// `[n]`, zero-padded.
    pub bias: &'a [F32x16],
    pub n: usize,
    pub eps: f32,
    pub out: &'a mut [F32x16],
}

impl Op for LayerNorm<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        normalize(s, &Centered::new(self.weight, self.bias, self.n, self.eps), self.x, self.out);
    }
}

/// [`LayerNorm`] followed by [`Quantize`](super::Quantize), with one row of f32 between them.
pub(crate) struct LayerNormQuantize<'a, E> {
    pub x: &'a [F32x16],
    pub weight: &'a [F32x16],
    pub bias: &'a [F32x16],
    pub n: usize,
    pub eps: f32,
    /// Scratch, `[n]`.
    pub row: &'a mut [F32x16],
    pub out: E,
}

impl<E: Encode> Op for LayerNormQuantize<'_, E> {
    type Output = ();
    const USES: Uses = E::USES;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        normalize_and_encode(s, &Centered::new(self.weight, self.bias, self.n, self.eps), self.x, self.row, self.out);
    }
}

/// RMSNorm of every row of `x` `[rows, n]` into `out`, which has the same shape. Lanes of `x` past n must be zero.
#[cfg_attr(not(test), expect(dead_code, reason = "no network has it yet"))]
pub(crate) struct RmsNorm<'a> {
    pub x: &'a [F32x16],
    /// `[n]`, zero-padded.
    pub weight: &'a [F32x16],
    pub n: usize,
    pub eps: f32,
    pub out: &'a mut [F32x16],
}

impl Op for RmsNorm<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        normalize(s, &RootMeanSquare::new(self.weight, self.n, self.eps), self.x, self.out);
    }
}

/// [`RmsNorm`] followed by [`Quantize`](super::Quantize), with one row of f32 between them.
#[cfg_attr(not(test), expect(dead_code, reason = "no network has it yet"))]
pub(crate) struct RmsNormQuantize<'a, E> {
    pub x: &'a [F32x16],
    pub weight: &'a [F32x16],
    pub n: usize,
    pub eps: f32,
    /// Scratch, `[n]`.
    pub row: &'a mut [F32x16],
    pub out: E,
}

impl<E: Encode> Op for RmsNormQuantize<'_, E> {
    type Output = ();
    const USES: Uses = E::USES;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        normalize_and_encode(s, &RootMeanSquare::new(self.weight, self.n, self.eps), self.x, self.row, self.out);
    }
}

/// A norm over rows of one length.
trait Measure {
    /// What is measured of a row, in all lanes.
    type Moments<S: Isa>;

    /// Chunks per row.
    fn chunks(&self) -> usize;

    fn moments<S: Isa>(&self, s: S, row: &[F32x16]) -> Self::Moments<S>;

    /// Normalizes one row and returns the range of the result. Lanes past n come out zero.
    fn apply<S: Isa>(&self, s: S, row: &[F32x16], moments: Self::Moments<S>, out: &mut [F32x16]) -> Range<S>;

    /// The next row and its moments.
    #[inline(always)]
    fn next<'x, S: Isa>(&self, s: S, rows: &mut ChunksExact<'x, F32x16>) -> Option<(&'x [F32x16], Self::Moments<S>)> {
        let row = rows.next()?;
        Some((row, self.moments(s, row)))
    }
}

#[inline(always)]
fn normalize<S: Isa>(s: S, norm: &impl Measure, x: &[F32x16], out: &mut [F32x16]) {
    whole_rows(x, norm.chunks());
    assert_eq!(x.len(), out.len(), "out has the shape of x");
    for (row, out) in x.chunks_exact(norm.chunks()).zip(out.chunks_exact_mut(norm.chunks())) {
        norm.apply(s, row, norm.moments(s, row), out);
    }
}

#[inline(always)]
fn normalize_and_encode<S: Isa, E: Encode>(s: S, norm: &impl Measure, x: &[F32x16], row: &mut [F32x16], mut out: E) {
    out.check(whole_rows(x, norm.chunks()), norm.chunks());
    let normalized = &mut row[..norm.chunks()];
    let mut rows = x.chunks_exact(norm.chunks());
    let mut following = norm.next(s, &mut rows);
    let mut index = 0;
    while let Some((row, moments)) = following {
        let range = norm.apply(s, row, moments, normalized);
        // Before this row is quantized: two chains that do not wait for each other (twice as fast with AVX-512 at
        // 192 channels).
        following = norm.next(s, &mut rows);
        out.encode(s, index, normalized, range);
        index += 1;
    }
}

/// The parameters of one LayerNorm over `n` channels.
struct Centered<'a> {
    weight: &'a [F32x16],
    bias: &'a [F32x16],
    inverse_n: f32,
    eps: f32,
    /// Lanes of the last chunk that hold channels, 1 to 16.
    last_lanes: usize,
}

impl<'a> Centered<'a> {
    fn new(weight: &'a [F32x16], bias: &'a [F32x16], n: usize, eps: f32) -> Self {
        let chunks = n.div_ceil(16);
        assert!(n > 0 && weight.len() == chunks && bias.len() == chunks, "weight and bias have n channels");
        Self { weight, bias, inverse_n: 1.0 / n as f32, eps, last_lanes: n - 16 * (chunks - 1) }
    }
}

impl Measure for Centered<'_> {
    /// Mean, and 1 / sqrt(variance + eps).
    type Moments<S: Isa> = (S::F, S::F);

    #[inline(always)]
    fn chunks(&self) -> usize {
        self.weight.len()
    }

    #[inline(always)]
    fn moments<S: Isa>(&self, s: S, row: &[F32x16]) -> (S::F, S::F) {
        let mut sum = s.splat(0.0);
        for x in row {
            sum = s.add(sum, s.load(x));
        }
        let mean = s.splat(s.sum(sum) * self.inverse_n);
        let mut squares = s.splat(0.0);
        let (last, whole) = row.split_last().expect("a row has at least one chunk");
        for x in whole {
            let centered = s.sub(s.load(x), mean);
            squares = s.fma(centered, centered, squares);
        }
        let centered = s.keep_first(s.sub(s.load(last), mean), self.last_lanes);
        squares = s.fma(centered, centered, squares);
        let variance = s.sum(squares) * self.inverse_n;
        (mean, s.splat(1.0 / s.sqrt(variance + self.eps)))
    }

    /// Lanes past n come out zero because weight and bias are zero there.
    #[inline(always)]
    fn apply<S: Isa>(
        &self,
        s: S,
        row: &[F32x16],
        (mean, inverse_deviation): (S::F, S::F),
        out: &mut [F32x16],
    ) -> Range<S> {
        let mut range = Range::zero(s);
        for (((x, y), weight), bias) in row.iter().zip(out).zip(self.weight).zip(self.bias) {
            let unit = s.mul(s.sub(s.load(x), mean), inverse_deviation);
            let normalized = s.fma(unit, s.load(weight), s.load(bias));
            range.include(s, normalized);
            s.store(normalized, y);
        }
        range
    }
}

/// The parameters of one RMSNorm over `n` channels.
struct RootMeanSquare<'a> {
    weight: &'a [F32x16],
    inverse_n: f32,
    eps: f32,
}

impl<'a> RootMeanSquare<'a> {
    #[cfg_attr(not(test), expect(dead_code, reason = "no network has it yet"))]
    fn new(weight: &'a [F32x16], n: usize, eps: f32) -> Self {
        assert!(n > 0 && weight.len() == n.div_ceil(16), "weight has n channels");
        Self { weight, inverse_n: 1.0 / n as f32, eps }
    }
}

impl Measure for RootMeanSquare<'_> {
    /// 1 / sqrt(mean square + eps).
    type Moments<S: Isa> = S::F;

    #[inline(always)]
    fn chunks(&self) -> usize {
        self.weight.len()
    }

    #[inline(always)]
    fn moments<S: Isa>(&self, s: S, row: &[F32x16]) -> S::F {
        let mut squares = s.splat(0.0);
        for x in row {
            let x = s.load(x);
            squares = s.fma(x, x, squares);
        }
        let mean = s.sum(squares) * self.inverse_n;
        s.splat(1.0 / s.sqrt(mean + self.eps))
    }

    #[inline(always)]
    fn apply<S: Isa>(&self, s: S, row: &[F32x16], inverse: S::F, out: &mut [F32x16]) -> Range<S> {
        let mut range = Range::zero(s);
        for ((x, y), weight) in row.iter().zip(out).zip(self.weight) {
            let normalized = s.mul(s.mul(s.load(x), inverse), s.load(weight));
            range.include(s, normalized);
            s.store(normalized, y);
        }
        range
    }
}
