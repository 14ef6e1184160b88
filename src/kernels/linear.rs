//! Linear layers: rows of activations times weights, then an epilogue that gets the result in registers.
//!
//! ```text
//! int8   y[m][n] = fma(f32(sum over k of q[m][k] w[n][k] - z[m] sums[n]) * s[m], scale[n], bias[n])
//! f16    y[m][n] = fma(sum over k of x[m][k] w[n][k], scale[n], bias[n])            fused multiply-add, k in order
//! f32    the same with scale = 1
//! ```
//!
//! CPUs that compute in f16 multiply f16 layers so (`dot_f16`), with rows in f16: y[m][n] = fma(sum * s[m], scale[n],
//! bias[n]).
//!
//! Weights are read in place in the layout of the model file: blocks of 16 output channels, all inputs of a block
//! together. Callers pass 16 to 64 rows at a time: a block of weights is read from the second-level cache once and
//! used for all rows from the first. Columns are counted in blocks of 16; the padding columns of the last block are
//! computed like all others.
//!
//! What does not belong here: quantizing the activations (`rows`), activation functions.

use core::ops::Range;

use super::dot_i8::{FIRST_LEVEL_GROUPS, pair_rows};
use super::isa::{F16, Isa};
use super::rows::{Codes, Halves};
use super::tiles::{Tile, for_tiles, slices};
use super::{Op, Uses, dot_f16};
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// What happens to 16 outputs of one row. `column` counts blocks of 16 from the start of the operation's `blocks`, so
/// the slices of an epilogue begin at the first computed column.
pub(crate) trait Epilogue {
    fn apply<S: Isa>(&mut self, s: S, row: usize, column: usize, y: S::F);
}

/// Writes y. `out` is `[rows][stride]`.
pub(crate) struct Store<'a> {
    pub out: &'a mut [F32x16],
    pub stride: usize,
}

impl Epilogue for Store<'_> {
    #[inline(always)]
    fn apply<S: Isa>(&mut self, s: S, row: usize, column: usize, y: S::F) {
        s.store(y, &mut self.out[row * self.stride + column]);
    }
}

/// The residual branch: x + y. `x` is `[rows][stride]`.
pub(crate) struct Add<'a> {
    pub x: &'a mut [F32x16],
    pub stride: usize,
}

impl Epilogue for Add<'_> {
    #[inline(always)]
    fn apply<S: Isa>(&mut self, s: S, row: usize, column: usize, y: S::F) {
        let x = &mut self.x[row * self.stride + column];
        s.store(s.add(s.load(x), y), x);
    }
}

/// The residual branch with LayerScale kept: fma(gamma, y, x). `x` is `[rows][stride]`, `gamma` as wide as the columns.
pub(crate) struct AddScaled<'a> {
    pub x: &'a mut [F32x16],
    pub stride: usize,
    pub gamma: &'a [F32x16],
}

impl Epilogue for AddScaled<'_> {
    #[inline(always)]
    fn apply<S: Isa>(&mut self, s: S, row: usize, column: usize, y: S::F) {
        let x = &mut self.x[row * self.stride + column];
        s.store(s.fma(s.load(&self.gamma[column]), y, s.load(x)), x);
    }
}

/// An int8 linear layer's parameters, all of its N / 16 column blocks.
#[derive(Clone, Copy)]
pub(crate) struct WeightsI8<'a> {
    /// `[N/16][groups]`.
    pub codes: &'a [I8x16x4],
    /// K8 / 4.
    pub groups: usize,
    /// `[N/16]`.
    pub scale: &'a [F32x16],
    /// `[N/16]`: for each channel, the sum of its codes.
    pub sums: &'a [I32x16],
    /// `[N/16]`.
    pub bias: &'a [F32x16],
}

/// Where operands are paired for instruction sets that want it so ([`Isa::PAIRS`]); may be empty on others.
#[derive(Default)]
pub(crate) struct PairScratch<'a> {
    /// `[rows][K8 / 16, rounded up]`.
    pub rows: &'a mut [U8x16],
    /// `[groups]`.
    pub weights: &'a mut [I8x16x4],
}

/// An int8 linear layer over the first `rows` rows of `a`, for the column blocks `blocks` of the weights. Rows of `a`
/// hold at least K8 codes.
pub(crate) struct LinearI8<'a, E> {
    pub a: Codes<'a>,
    pub rows: usize,
    pub weights: WeightsI8<'a>,
    pub blocks: Range<usize>,
    pub pairs: PairScratch<'a>,
    pub epilogue: E,
}

impl<E: Epilogue> Op for LinearI8<'_, E> {
    type Output = ();
    const USES: Uses = Uses::DotI8;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        if const { S::PAIRS } {
            let chunks = self.weights.groups.div_ceil(4);
            pair_rows(s, self.a.codes, self.a.stride, self.rows, chunks, self.pairs.rows);
            (self.a.codes, self.a.stride) = (core::mem::take(&mut self.pairs.rows), chunks);
        }
        for_tiles(s, self.rows, self.blocks.clone(), &mut self);
    }
}

impl<E> LinearI8<'_, E> {
    /// Prefetches the weights that the tiles after this strip of `N` blocks begin with, a piece for each full tile of
    /// `height` rows: hardware sees a strip end in the first-level cache, time after time, and does not run ahead.
    /// Strips that do not fit there are read from the second level by every tile, and hardware follows.
    #[inline(always)]
    fn prefetch_next<S: Isa, const N: usize>(&self, s: S, row: usize, height: usize, block: usize) {
        let strip = N * self.weights.groups;
        let piece = strip.div_ceil(self.rows / height);
        let first = block * self.weights.groups + strip + row / height * piece;
        if strip <= FIRST_LEVEL_GROUPS
            && let Some(piece) = self.weights.codes.get(first..first + piece)
        {
            for group in piece {
                s.prefetch(group);
            }
        }
    }
}

impl<S: Isa, E: Epilogue> Tile<S> for LinearI8<'_, E> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    fn enter<const N: usize>(&mut self, s: S, block: usize) {
        if const { S::PAIRS } {
            let WeightsI8 { codes, groups, .. } = self.weights;
            let (w, _) = codes[block * groups..][..N * groups].as_chunks::<2>();
            let (paired, _) = self.pairs.weights[..N * groups].as_chunks_mut::<2>();
            for (&w, paired) in w.iter().zip(paired) {
                *paired = s.pair_groups(w);
            }
        }
    }

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let WeightsI8 { codes, groups, scale, sums, bias } = self.weights;
        let stride = self.a.stride;
        let a = slices(self.a.codes, row * stride, stride, stride);
        let w = match const { S::PAIRS } {
            true => slices(self.pairs.weights, 0, groups, groups),
            false => slices(codes, block * groups, groups, groups),
        };
        if const { M == S::TILE_ROWS } {
            self.prefetch_next::<S, N>(s, row, M, block);
        }
        let mut acc = s.dot_i8::<M, N>(a, w, [[s.splat_i(0); N]; M]);
        // A loop of its own: in one with the epilogue, the accumulators go through memory.
        let (zero, row_scale) = (&self.a.zero[row..][..M], &self.a.scale[row..][..M]);
        for (acc, zero) in acc.iter_mut().zip(zero) {
            let zero = s.splat_i(i32::from(S::CODE_XOR) - zero);
            for (acc, sums) in acc.iter_mut().zip(&sums[block..][..N]) {
                *acc = s.add_i(*acc, s.mul_i(zero, s.load_i(sums)));
            }
        }
        for (m, (acc, &row_scale)) in acc.iter().zip(row_scale).enumerate() {
            let row_scale = s.splat(row_scale);
            for (n, &acc) in acc.iter().enumerate() {
                let sum = s.mul(s.to_f32(acc), row_scale);
                let y = s.fma(sum, s.load(&scale[block + n]), s.load(&bias[block + n]));
                self.epilogue.apply(s, row + m, block + n - self.blocks.start, y);
            }
        }
    }
}

/// An f16 linear layer multiplied in f16, over the first `rows` rows of `a`, for the column blocks `blocks` of the
/// weights. Only where the CPU has [`Isa::f16`].
pub(crate) struct LinearF16<'a, E> {
    pub a: Halves<'a>,
    pub rows: usize,
    /// Inputs, not padded.
    pub k: usize,
    /// `[N/16][k]`.
    pub weights: &'a [F16x16],
    /// `[N/16]`.
    pub scale: &'a [F32x16],
    /// `[N/16]`.
    pub bias: &'a [F32x16],
    pub blocks: Range<usize>,
    pub epilogue: E,
}

impl<E: Epilogue> Op for LinearF16<'_, E> {
    type Output = ();
    const USES: Uses = Uses::F16;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        for_tiles(s, self.rows, self.blocks.clone(), &mut self);
    }
}

impl<S: Isa, E: Epilogue> Tile<S> for LinearF16<'_, E> {
    const ROWS: usize = dot_f16::TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let Some(f16) = s.f16() else { unreachable!("no arithmetic in f16") };
        let stride = self.a.stride;
        let a = slices(self.a.values, row * stride, stride, stride);
        let w = slices(self.weights, block * self.k, self.k, self.k);
        let acc = f16.dot::<M, N>(a, self.k, w, 1);
        for (m, acc) in acc.iter().enumerate() {
            let row_scale = s.splat(self.a.scale[row + m]);
            for (n, &acc) in acc.iter().enumerate() {
                let sum = s.mul(acc, row_scale);
                let y = s.fma(sum, s.load(&self.scale[block + n]), s.load(&self.bias[block + n]));
                self.epilogue.apply(s, row + m, block + n - self.blocks.start, y);
            }
        }
    }
}

/// Sixteen weights as they are stored.
pub(crate) trait FloatWeights: Copy {
    fn load<S: Isa>(&self, s: S) -> S::F;
}

impl FloatWeights for F32x16 {
    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> S::F {
        s.load(self)
    }
}

impl FloatWeights for F16x16 {
    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> S::F {
        s.load_f16(self)
    }
}

/// `sum over i < k of a[m][i] * w[n][i * step]`, fused multiply-add in the order of i: the f32 tile. Panics if a row
/// or a block is shorter.
#[inline(always)]
pub(crate) fn dot_float<S: Isa, W: FloatWeights, const M: usize, const N: usize>(
    s: S,
    a: [&[F32x16]; M],
    k: usize,
    w: [&[W]; N],
    step: usize,
) -> [[S::F; N]; M] {
    let mut acc = [[s.splat(0.0); N]; M];
    for chunk in 0..k.div_ceil(16) {
        let mut lanes = [&a[0][chunk].0; M];
        for (lanes, a) in lanes.iter_mut().zip(a) {
            *lanes = &a[chunk].0;
        }
        for lane in 0..16.min(k - 16 * chunk) {
            let at = (16 * chunk + lane) * step;
            let mut weights = [s.splat(0.0); N];
            for (weights, w) in weights.iter_mut().zip(w) {
                *weights = w[at].load(s);
            }
            for (acc, lanes) in acc.iter_mut().zip(lanes) {
                let x = s.splat(lanes[lane]);
                for (acc, &weights) in acc.iter_mut().zip(&weights) {
                    *acc = s.fma(x, weights, *acc);
                }
            }
        }
    }
    acc
}

/// An f32 (`W` is [`F32x16`]) or f16 (`W` is [`F16x16`]) linear layer over `rows` rows, for the column blocks `blocks`
/// of the weights.
pub(crate) struct LinearFloat<'a, W, E> {
    /// `[rows][a_stride]`.
    pub a: &'a [F32x16],
    pub a_stride: usize,
    /// Inputs, not padded.
    pub k: usize,
    pub rows: usize,
    /// `[N/16][k]`.
    pub weights: &'a [W],
    /// `[N/16]`; f32 layers have none.
    pub scale: Option<&'a [F32x16]>,
    /// `[N/16]`.
    pub bias: &'a [F32x16],
    pub blocks: Range<usize>,
    pub epilogue: E,
}

impl<W: FloatWeights, E: Epilogue> Op for LinearFloat<'_, W, E> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        for_tiles(s, self.rows, self.blocks.clone(), &mut self);
    }
}

impl<S: Isa, W: FloatWeights, E: Epilogue> Tile<S> for LinearFloat<'_, W, E> {
    const ROWS: usize = S::FLOAT_TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let a = slices(self.a, row * self.a_stride, self.a_stride, self.a_stride);
        let w = slices(self.weights, block * self.k, self.k, self.k);
        let acc = dot_float::<S, W, M, N>(s, a, self.k, w, 1);
        for (m, acc) in acc.iter().enumerate() {
            for (n, &acc) in acc.iter().enumerate() {
                let bias = s.load(&self.bias[block + n]);
                let y = match self.scale {
                    Some(scale) => s.fma(acc, s.load(&scale[block + n]), bias),
                    None => s.add(acc, bias),
                };
                self.epilogue.apply(s, row + m, block + n - self.blocks.start, y);
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
