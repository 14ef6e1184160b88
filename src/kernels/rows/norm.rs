//! Norms of rows, alone and followed by [`Quantize`](super::Quantize): LayerNorm (Ba et al. 2016), and RMSNorm (Zhang
//! and Sennrich 2019), which takes no mean out. They share all code; `CENTERED` says which of the two it is.

use core::slice::ChunksExact;

use super::{Encode, Range, whole_rows};
use crate::kernels::isa::Isa;
use crate::kernels::{Op, Uses};
use crate::lanes::F32x16;

/// A norm of every row of `x` `[rows, n]` into `out`, which has the same shape. Lanes of `x` past n must be zero.
pub(crate) struct RowNorm<'a, const CENTERED: bool> {
    pub x: &'a [F32x16],
    /// `[n]`, zero-padded.
    pub weight: &'a [F32x16],
    /// `[n]`, zero-padded.
    pub bias: &'a [F32x16],
    pub n: usize,
    pub eps: f32,
    pub out: &'a mut [F32x16],
}

impl<const CENTERED: bool> Op for RowNorm<'_, CENTERED> {
    type Output = ();
    const USES: Uses = Uses::Lanes;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let norm = Norm::<CENTERED>::new(self.weight, self.bias, self.n, self.eps);
        whole_rows(self.x, norm.chunks());
        assert_eq!(self.x.len(), self.out.len(), "out has the shape of x");
        for (row, out) in self.x.chunks_exact(norm.chunks()).zip(self.out.chunks_exact_mut(norm.chunks())) {
            norm.apply(s, row, norm.moments(s, row), out);
        }
    }
}

/// [`RowNorm`] followed by [`Quantize`](super::Quantize), with one row of f32 between them.
pub(crate) struct RowNormQuantize<'a, E, const CENTERED: bool> {
    pub x: &'a [F32x16],
    pub weight: &'a [F32x16],
    pub bias: &'a [F32x16],
    pub n: usize,
    pub eps: f32,
    /// Scratch, `[n]`.
    pub row: &'a mut [F32x16],
    pub out: E,
}

impl<E: Encode, const CENTERED: bool> Op for RowNormQuantize<'_, E, CENTERED> {
    type Output = ();
    const USES: Uses = E::USES;
    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let norm = Norm::<CENTERED>::new(self.weight, self.bias, self.n, self.eps);
        self.out.check(whole_rows(self.x, norm.chunks()), norm.chunks());
        let normalized = &mut self.row[..norm.chunks()];
        let mut rows = self.x.chunks_exact(norm.chunks());
        let mut following = norm.next(s, &mut rows);
        let mut index = 0;
        while let Some((row, moments)) = following {
            let range = norm.apply(s, row, moments, normalized);
            // Before this row is quantized: two chains that do not wait for each other (twice as fast with AVX-512 at
            // 192 channels).
            following = norm.next(s, &mut rows);
            self.out.encode(s, index, normalized, range);
            index += 1;
        }
    }
}

/// Mean, and 1 / sqrt(variance + eps), each in all lanes. RMSNorm takes the mean square for the variance, and does not
/// read the mean.
type Moments<S> = (<S as Isa>::F, <S as Isa>::F);

/// The parameters of one norm over `n` channels.
struct Norm<'a, const CENTERED: bool> {
    weight: &'a [F32x16],
    bias: &'a [F32x16],
    inverse_n: f32,
    eps: f32,
    /// Lanes of the last chunk that hold channels, 1 to 16.
    last_lanes: usize,
}

impl<'a, const CENTERED: bool> Norm<'a, CENTERED> {
    fn new(weight: &'a [F32x16], bias: &'a [F32x16], n: usize, eps: f32) -> Self {
        let chunks = n.div_ceil(16);
        assert!(n > 0 && weight.len() == chunks && bias.len() == chunks, "weight and bias have n channels");
        Self { weight, bias, inverse_n: 1.0 / n as f32, eps, last_lanes: n - 16 * (chunks - 1) }
    }

    fn chunks(&self) -> usize {
        self.weight.len()
    }

    /// The next row and its moments.
    #[inline(always)]
    fn next<'x, S: Isa>(&self, s: S, rows: &mut ChunksExact<'x, F32x16>) -> Option<(&'x [F32x16], Moments<S>)> {
        let row = rows.next()?;
        Some((row, self.moments(s, row)))
    }

    /// Normalizes one row and returns the range of the result. Lanes past n come out zero because weight and bias are
    /// zero there.
    #[inline(always)]
    fn apply<S: Isa>(
        &self,
        s: S,
        row: &[F32x16],
        (mean, inverse_deviation): Moments<S>,
        out: &mut [F32x16],
    ) -> Range<S> {
        let mut range = Range::zero(s);
        for (((x, y), weight), bias) in row.iter().zip(out).zip(self.weight).zip(self.bias) {
            let unit = s.mul(self.centered(s, s.load(x), mean), inverse_deviation);
            let normalized = s.fma(unit, s.load(weight), s.load(bias));
            range.include(s, normalized);
            s.store(normalized, y);
        }
        range
    }

    #[inline(always)]
    fn moments<S: Isa>(&self, s: S, row: &[F32x16]) -> Moments<S> {
        let mean = s.splat(if CENTERED { self.sum(s, row) * self.inverse_n } else { 0.0 });
        let mut squares = s.splat(0.0);
        let (last, whole) = row.split_last().expect("a row has at least one chunk");
        for x in whole {
            let centered = self.centered(s, s.load(x), mean);
            squares = s.fma(centered, centered, squares);
        }
        let last = self.centered(s, s.load(last), mean);
        let last = if CENTERED { s.keep_first(last, self.last_lanes) } else { last };
        squares = s.fma(last, last, squares);
        let variance = s.sum(squares) * self.inverse_n;
        (mean, s.splat(1.0 / s.sqrt(variance + self.eps)))
    }

    #[inline(always)]
    fn sum<S: Isa>(&self, s: S, row: &[F32x16]) -> f32 {
        let mut sum = s.splat(0.0);
        for x in row {
            sum = s.add(sum, s.load(x));
        }
        s.sum(sum)
    }

    #[inline(always)]
    fn centered<S: Isa>(&self, s: S, x: S::F, mean: S::F) -> S::F {
        if CENTERED { s.sub(x, mean) } else { x }
    }
}
