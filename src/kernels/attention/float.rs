//! Attention in f32, for f32 and f16 models.
//!
//! ```text
//! t[j] = (sum over c of q[c] k[j][c]) * attention_scale        fused multiply-add, c in order
//! p[j] = exp(t[j] - max over j of t[j])
//! o[c] = (sum over j of p[j] v[j][c]) * (1 / sum(p))           fused multiply-add, j in order
//! ```
//!
//! With a bias by relative position B, t[j] = fma(sum over c, attention_scale, B[j]).

use super::{RelativeBias, Tokens};
use crate::kernels::isa::Isa;
use crate::kernels::linear::dot_float;
use crate::kernels::math::exp_nonpositive;
use crate::kernels::tiles::{MAX_ROWS, Tile, for_tiles, slices};
use crate::kernels::{Op, Uses};
use crate::lanes::F32x16;

/// Transposes k of `rows` tokens, and copies v. The first token is at a multiple of 16, and only the last tokens
/// of all may be a number of rows that is not.
pub(crate) struct PackKvF32<'a> {
    /// Rows of `stride` chunks that begin with k, then v, `[2][h][dp]`.
    pub kv: &'a [F32x16],
    pub stride: usize,
    pub rows: usize,
    pub heads: usize,
    /// Head width, padded to 16.
    pub dp: usize,
    /// `[ceil(rows / 16)][h][dp]` chunks, of which each is one channel of 16 tokens; zero past the last token.
    pub k: &'a mut [F32x16],
    /// `[rows][h][dp]`.
    pub v: &'a mut [F32x16],
}

impl Op for PackKvF32<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let width = self.heads * self.dp / 16;
        self.k[..self.rows.div_ceil(16) * 16 * width].fill(F32x16([0.0; 16]));
        for row in 0..self.rows {
            let (k, v) = self.kv[row * self.stride..][..2 * width].split_at(width);
            self.v[row * width..][..width].copy_from_slice(v);
            let block = &mut self.k[row / 16 * 16 * width..][..16 * width];
            for (channel, &x) in block.iter_mut().zip(k.iter().flat_map(|k| &k.0)) {
                channel.0[row % 16] = x;
            }
        }
    }
}

/// F32x16 of the scratch that [`AttendF32`] needs for this many tokens, whatever the instruction set and the rows.
pub(crate) const fn attend_f32_scratch(tokens: usize) -> usize {
    MAX_ROWS * tokens.div_ceil(16)
}

/// Attention of `rows` query rows, any of the tokens, over all tokens.
pub(crate) struct AttendF32<'a> {
    /// The token of the first query row.
    pub first: usize,
    pub rows: usize,
    pub heads: usize,
    pub dp: usize,
    pub tokens: usize,
    /// 1 / sqrt(d).
    pub attention_scale: f32,
    /// `[rows][h][dp]`.
    pub q: &'a [F32x16],
    /// `[Tb][h][dp]` chunks: see [`PackKvF32`].
    pub k: &'a [F32x16],
    /// `[tokens][h][dp]`.
    pub v: &'a [F32x16],
    /// Added to the scores.
    pub bias: Option<RelativeBias<'a>>,
    /// See [`attend_f32_scratch`].
    pub scores: &'a mut [F32x16],
    /// `[rows][h][dp]`.
    pub out: &'a mut [F32x16],
}

impl Op for AttendF32<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let tokens = Tokens::new(self.tokens);
        for head in 0..self.heads {
            let mut row = 0;
            while row < self.rows {
                let rows = S::FLOAT_TILE_ROWS.min(self.rows - row);
                if let Some(bias) = &self.bias {
                    for (m, scores) in self.scores.chunks_exact_mut(tokens.blocks).take(rows).enumerate() {
                        bias.row(self.heads, head, self.first + row + m, scores);
                    }
                }
                let mut max = [F32x16([f32::NEG_INFINITY; 16]); MAX_ROWS];
                let mut scores = Scores { op: &mut self, tokens: &tokens, head, row, max: &mut max };
                for_tiles(s, rows, 0..tokens.blocks, &mut scores);
                let mut inverse_sum = [0.0; MAX_ROWS];
                for (m, inverse_sum) in inverse_sum[..rows].iter_mut().enumerate() {
                    let max = s.max_lane(s.load(&max[m]));
                    *inverse_sum = 1.0 / self.probabilities(s, &tokens, m, max);
                }
                let chunks = self.dp / 16;
                for_tiles(s, rows, 0..chunks, &mut Values { op: &mut self, tokens: &tokens, head, row, inverse_sum });
                row += rows;
            }
        }
    }
}

/// t of one head and of the query rows from `row` on, into the scratch.
struct Scores<'a, 'b> {
    op: &'a mut AttendF32<'b>,
    tokens: &'a Tokens,
    head: usize,
    row: usize,
    /// Of each row: lane by lane, the largest so far.
    max: &'a mut [F32x16; MAX_ROWS],
}

impl<S: Isa> Tile<S> for Scores<'_, '_> {
    const ROWS: usize = S::FLOAT_TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let AttendF32 { attention_scale, bias: relative, .. } = *self.op;
        let acc = self.op.products::<S, M, N>(s, self.head, self.row + row, block);
        let out = &mut self.op.scores[row * self.tokens.blocks + block..];
        for (m, (acc, max)) in acc.iter().zip(&mut self.max[row..][..M]).enumerate() {
            let out = &mut out[m * self.tokens.blocks..][..N];
            let mut best = s.load(max);
            for (n, &acc) in acc.iter().enumerate() {
                let bias = if relative.is_some() { &out[n] } else { self.tokens.bias(block + n) };
                let t = s.fma(acc, s.splat(attention_scale), s.load(bias));
                s.store(t, &mut out[n]);
                best = s.max(t, best);
            }
            s.store(best, max);
        }
    }
}

impl AttendF32<'_> {
    /// q k of one head: for the query rows from `row` on, and the keys of the 16-token blocks from `block` on.
    #[inline(always)]
    pub(super) fn products<S: Isa, const M: usize, const N: usize>(
        &self,
        s: S,
        head: usize,
        row: usize,
        block: usize,
    ) -> [[S::F; N]; M] {
        let Self { heads, dp, q, k, .. } = *self;
        let chunks = dp / 16;
        let q = slices(q, (row * heads + head) * chunks, heads * chunks, chunks);
        dot_float::<S, F32x16, M, N>(s, q, dp, slices(k, (block * heads + head) * dp, heads * dp, dp), 1)
    }

    /// The sums over tokens of a weight times v, of one head's chunks from `block` on.
    #[inline(always)]
    pub(super) fn weighted<S: Isa, const M: usize, const N: usize>(
        &self,
        s: S,
        weights: [&[F32x16]; M],
        head: usize,
        block: usize,
    ) -> [[S::F; N]; M] {
        let Self { heads, dp, tokens, v, .. } = *self;
        let (first, step) = (head * (dp / 16) + block, heads * (dp / 16));
        dot_float::<S, F32x16, M, N>(s, weights, tokens, slices(v, first, 1, (tokens - 1) * step + 1), step)
    }

    /// p in place of the scores of row `m` in the scratch; returns their sum.
    #[inline(always)]
    fn probabilities<S: Isa>(&mut self, s: S, tokens: &Tokens, m: usize, max: f32) -> f32 {
        let max = s.splat(max);
        let mut sum = s.splat(0.0);
        for t in &mut self.scores[m * tokens.blocks..][..tokens.blocks] {
            let p = exp_nonpositive(s, s.sub(s.load(t), max));
            sum = s.add(sum, p);
            s.store(p, t);
        }
        s.sum(sum)
    }
}

/// o of one head and of the query rows from `row` on; column blocks are chunks of its channels.
struct Values<'a, 'b> {
    op: &'a mut AttendF32<'b>,
    tokens: &'a Tokens,
    head: usize,
    row: usize,
    inverse_sum: [f32; MAX_ROWS],
}

impl<S: Isa> Tile<S> for Values<'_, '_> {
    const ROWS: usize = S::FLOAT_TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let (chunks, blocks) = (self.op.dp / 16, self.tokens.blocks);
        let (first, step) = (self.head * chunks + block, self.op.heads * chunks);
        let p = slices(self.op.scores, row * blocks, blocks, blocks);
        let acc = self.op.weighted::<S, M, N>(s, p, self.head, block);
        let out = &mut self.op.out[(self.row + row) * step + first..];
        for (m, (acc, &inverse_sum)) in acc.iter().zip(&self.inverse_sum[row..][..M]).enumerate() {
            let out = &mut out[m * step..][..N];
            for (n, &acc) in acc.iter().enumerate() {
                s.store(s.mul(acc, s.splat(inverse_sum)), &mut out[n]);
            }
        }
    }
}
