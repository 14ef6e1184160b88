//! Token mixing (Touvron et al. 2021, "ResMLP"): a matrix W over the T tokens, the same for all channels, with the
//! diagonals around it.
//!
//! ```text
//! y[t][c] = factor_c * (sum over u of W[t][u] x[u][c]) + d[t][c]           d[t][c] = fma(offset_c, row_sum_t, bias_factor_c * bias_t)
//!
//! int8    y = fma(f32(sum over u of w[t][u] (q[u][c] - z_c)) * (s_c * factor_c), scale_t, d)
//! float   y = fma((sum over u of W[t][u] x[u][c]) * factor_c, scale_t, d)  fused multiply-add, u in order; scale is 1 in f32
//! ```
//!
//! It is attention with constant weights: rows of W take the place of the softmax, and x the place of v, so a tile is
//! rows of W by chunks of 16 channels. Nothing is transposed: a channel is a lane from the stream to the stream. In
//! int8, x is quantized per channel over all tokens, asymmetrically as rows are elsewhere, into the layout of weights
//! whose inputs are tokens; codes less 128 are signed bytes. The rows of W are read in place where the dot product
//! takes signed activations, and copied, a tile at a time, where it takes unsigned or paired ones.
//!
//! What does not belong here: threads, and which channels a worker takes.

use super::attention::int8::{interleave, start_of_sum};
use super::dot_i8::{pair_groups_in_place, pair_rows};
use super::isa::{Isa, ROUND};
use super::linear::{FloatWeights, dot_float};
use super::rows::asymmetric;
use super::tiles::{Tile, for_tiles, slices};
use super::{Op, Uses};
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// Quantized columns: B chunks of 16 channels of all tokens; to be read.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// `[B][groups]`: codes less 128, paired where [`Isa::PAIRS`]; zero past the last token.
    pub codes: &'a [I8x16x4],
    /// K8 / 4.
    pub groups: usize,
    /// `[B]`: with the factor.
    pub scale: &'a [F32x16],
    /// `[B]`: 128 less the zero point.
    pub zero: &'a [I32x16],
    /// `[B]`: for each channel, the sum of its codes.
    pub sums: &'a [I32x16],
}

/// [`Columns`] to be written.
pub(crate) struct ColumnsMut<'a> {
    pub codes: &'a mut [I8x16x4],
    pub groups: usize,
    pub scale: &'a mut [F32x16],
    pub zero: &'a mut [I32x16],
    pub sums: &'a mut [I32x16],
}

/// Quantizes columns.
pub(crate) struct PackColumns<'a> {
    /// `[T][B]`.
    pub x: &'a [F32x16],
    pub tokens: usize,
    /// `[B]`.
    pub factor: &'a [F32x16],
    pub out: ColumnsMut<'a>,
}

impl Op for PackColumns<'_> {
    type Output = ();
    const USES: Uses = Uses::Pairs;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { x, tokens, factor, out } = self;
        let blocks = factor.len();
        assert!(x.len() == tokens * blocks && 4 * out.groups >= tokens, "columns of all tokens");
        for (block, codes) in out.codes[..blocks * out.groups].chunks_exact_mut(out.groups).enumerate() {
            // The last is zero, or NaN in channels where a token is not finite.
            let (mut lo, mut hi, mut not_finite) = (s.splat(0.0), s.splat(0.0), s.splat(0.0));
            for token in 0..tokens {
                let x = s.load(&x[token * blocks + block]);
                (lo, hi) = (s.min(x, lo), s.max(x, hi));
                not_finite = s.fma(x, s.splat(0.0), not_finite);
            }
            // Of lo, hi and nothing: scale, inverse and zero point.
            let [mut scale, mut inverse, mut zero] = [F32x16([0.0; 16]); 3];
            s.store(lo, &mut scale);
            s.store(hi, &mut inverse);
            for lane in 0..16 {
                (scale.0[lane], inverse.0[lane], zero.0[lane]) = asymmetric(scale.0[lane], inverse.0[lane]);
                out.zero[block].0[lane] = 128 - zero.0[lane] as i32;
            }
            let scale = s.add(s.load(&scale), not_finite);
            s.store(s.mul(scale, s.load(&factor[block])), &mut out.scale[block]);

            let (inverse, zero) = (s.load(&inverse), s.load(&zero));
            let mut sums = s.splat_i(start_of_sum(tokens));
            for (group, out) in codes.iter_mut().enumerate() {
                let mut words = [I32x16([0; 16]); 4];
                for (i, words) in words.iter_mut().enumerate() {
                    let token = 4 * group + i;
                    if token < tokens {
                        let code = s.fma(s.load(&x[token * blocks + block]), inverse, zero);
                        let code = s.min(s.max(code, s.splat(0.0)), s.splat(255.0));
                        // Less 128, and rounded once: 128 is even, so ties go where they went.
                        let code = s.bits(s.add(code, s.splat(ROUND - 128.0)));
                        sums = s.add_i(sums, code);
                        s.store_i(code, words);
                    }
                }
                interleave(&words, out);
            }
            if const { S::PAIRS } {
                pair_groups_in_place(s, codes);
            }
            s.store_i(sums, &mut out.sums[block]);
        }
    }
}

/// What belongs to tokens, `[pad16(T) / 16]` each, and to the channels of the columns, `[B]` each; see the module
/// documentation.
#[derive(Clone, Copy)]
pub(crate) struct Diagonals<'a> {
    /// `None` in f32.
    pub scale: Option<&'a [F32x16]>,
    pub bias: &'a [F32x16],
    pub row_sum: &'a [F32x16],
    pub offset: &'a [F32x16],
    pub bias_factor: &'a [F32x16],
}

impl Diagonals<'_> {
    /// y, from the sum times the channel's factor.
    #[inline(always)]
    fn finish<S: Isa>(&self, s: S, product: S::F, token: usize, block: usize) -> S::F {
        let bias = s.mul(s.load(&self.bias_factor[block]), s.splat(lane(self.bias, token)));
        let bias = s.fma(s.load(&self.offset[block]), s.splat(lane(self.row_sum, token)), bias);
        let scale = match self.scale {
            Some(scale) => lane(scale, token),
            None => 1.0,
        };
        s.fma(product, s.splat(scale), bias)
    }
}

#[inline(always)]
fn lane(values: &[F32x16], i: usize) -> f32 {
    values[i / 16].0[i % 16]
}

/// Mixes quantized columns.
pub(crate) struct MixI8<'a> {
    /// `[T][pad16(T) / 16]`: codes of W as signed bytes.
    pub rows: &'a [U8x16],
    pub tokens: usize,
    /// `[pad16(T) / 16]`: for each row, the sum of its codes.
    pub sums: &'a [I32x16],
    pub x: Columns<'a>,
    pub diagonals: Diagonals<'a>,
    /// `[MAX_ROWS][pad16(T) / 16]`.
    pub scratch: &'a mut [U8x16],
    /// `[T][B]`.
    pub out: &'a mut [F32x16],
}

impl Op for MixI8<'_> {
    type Output = ();
    const USES: Uses = Uses::DotI8;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { rows, tokens, sums, x, diagonals, scratch, out } = self;
        let (chunks, blocks) = (tokens.div_ceil(16), diagonals.offset.len());
        let mut first = 0;
        while first < tokens {
            let height = S::TILE_ROWS.min(tokens - first);
            let mut rows = &rows[first * chunks..][..height * chunks];
            if const { S::PAIRS || S::CODE_XOR == 0 } {
                let copy = &mut scratch[..height * chunks];
                if const { S::PAIRS } {
                    pair_rows(s, rows, chunks, height, chunks, copy);
                } else {
                    for (copy, row) in copy.iter_mut().zip(rows) {
                        for (copy, code) in copy.0.iter_mut().zip(row.0) {
                            *copy = code ^ 0x80;
                        }
                    }
                }
                rows = copy;
            }
            let out = &mut *out;
            for_tiles(s, height, 0..blocks, &mut TileI8 { rows, chunks, first, sums, x, diagonals, out });
            first += height;
        }
    }
}

/// The rows of W from `first` on.
struct TileI8<'a> {
    rows: &'a [U8x16],
    chunks: usize,
    first: usize,
    sums: &'a [I32x16],
    x: Columns<'a>,
    diagonals: Diagonals<'a>,
    out: &'a mut [F32x16],
}

impl<S: Isa> Tile<S> for TileI8<'_> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let Columns { codes, groups, scale, zero, sums } = self.x;
        let (first, blocks) = (self.first + row, self.diagonals.offset.len());
        // Where activations are unsigned, the rows are codes + 128.
        let excess = s.splat_i(i32::from(S::CODE_XOR) - 128);
        let mut start = [[s.splat_i(0); N]; M];
        for (m, start) in start.iter_mut().enumerate() {
            let row_sum = s.splat_i(self.sums[(first + m) / 16].0[(first + m) % 16]);
            for (n, start) in start.iter_mut().enumerate() {
                let of_zero = s.mul_i(s.load_i(&zero[block + n]), row_sum);
                *start = s.add_i(of_zero, s.mul_i(excess, s.load_i(&sums[block + n])));
            }
        }
        let a = slices(self.rows, row * self.chunks, self.chunks, self.chunks);
        let acc = s.dot_i8::<M, N>(a, slices(codes, block * groups, groups, groups), start);
        for (m, acc) in acc.iter().enumerate() {
            for (n, &acc) in acc.iter().enumerate() {
                let product = s.mul(s.to_f32(acc), s.load(&scale[block + n]));
                let y = self.diagonals.finish(s, product, first + m, block + n);
                s.store(y, &mut self.out[(first + m) * blocks + block + n]);
            }
        }
    }
}

/// Rows of the matrix of an f32 (`W` is [`F32x16`]) or f16 (`W` is [`F16x16`]) model.
pub(crate) trait FloatRows: FloatWeights {
    /// The same in f32; `wide` is as long, or empty for f32.
    fn widen<'a, S: Isa>(s: S, rows: &'a [Self], wide: &'a mut [F32x16]) -> &'a [F32x16];
}

impl FloatRows for F32x16 {
    #[inline(always)]
    fn widen<'a, S: Isa>(_: S, rows: &'a [Self], _: &'a mut [F32x16]) -> &'a [F32x16] {
        rows
    }
}

impl FloatRows for F16x16 {
    #[inline(always)]
    fn widen<'a, S: Isa>(s: S, rows: &'a [Self], wide: &'a mut [F32x16]) -> &'a [F32x16] {
        let wide = &mut wide[..rows.len()];
        for (row, wide) in rows.iter().zip(&mut *wide) {
            s.store(s.load_f16(row), wide);
        }
        wide
    }
}

/// Mixes columns in f32.
pub(crate) struct MixFloat<'a, W> {
    /// `[T][pad16(T) / 16]`.
    pub rows: &'a [W],
    pub tokens: usize,
    /// `[T][B]`.
    pub x: &'a [F32x16],
    /// `[B]`.
    pub factor: &'a [F32x16],
    pub diagonals: Diagonals<'a>,
    /// `[MAX_ROWS][pad16(T) / 16]` for f16.
    pub wide: &'a mut [F32x16],
    /// `[T][B]`.
    pub out: &'a mut [F32x16],
}

impl<W: FloatRows> Op for MixFloat<'_, W> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { rows, tokens, x, factor, diagonals, wide, out } = self;
        let (chunks, blocks) = (tokens.div_ceil(16), factor.len());
        let mut first = 0;
        while first < tokens {
            let height = S::FLOAT_TILE_ROWS.min(tokens - first);
            let rows = W::widen(s, &rows[first * chunks..][..height * chunks], wide);
            let out = &mut *out;
            let tile = &mut TileFloat { rows, chunks, first, tokens, x, factor, diagonals, out };
            for_tiles(s, height, 0..blocks, tile);
            first += height;
        }
    }
}

/// The rows of W from `first` on.
struct TileFloat<'a> {
    rows: &'a [F32x16],
    chunks: usize,
    first: usize,
    tokens: usize,
    x: &'a [F32x16],
    factor: &'a [F32x16],
    diagonals: Diagonals<'a>,
    out: &'a mut [F32x16],
}

impl<S: Isa> Tile<S> for TileFloat<'_> {
    const ROWS: usize = S::FLOAT_TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let (first, blocks) = (self.first + row, self.factor.len());
        let a = slices(self.rows, row * self.chunks, self.chunks, self.chunks);
        let x = slices(self.x, block, 1, (self.tokens - 1) * blocks + 1);
        let acc = dot_float::<S, F32x16, M, N>(s, a, self.tokens, x, blocks);
        for (m, acc) in acc.iter().enumerate() {
            for (n, &acc) in acc.iter().enumerate() {
                let product = s.mul(acc, s.load(&self.factor[block + n]));
                let y = self.diagonals.finish(s, product, first + m, block + n);
                s.store(y, &mut self.out[(first + m) * blocks + block + n]);
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
