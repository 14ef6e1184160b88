//! Talking heads (Shazeer et al. 2020): attention whose heads are mixed, linearly, before and after the softmax.
//!
//! ```text
//! t[h][j] = the score of query and key j in head h, times attention_scale
//! l[g][j] = b_l[g] + sum over h of W_l[g][h] t[h][j]           fused multiply-add, h in order, from the bias on
//! p[g][j] = exp(l[g][j] - max over j of l[g][j]) * (1 / sum over j of it)
//! w[g][j] = b_w[g] + sum over h of W_w[g][h] p[h][j]           likewise
//! o[g][c] = sum over j of w[g][j] v[j][c]
//! ```
//!
//! The mixing is f32 in every precision. In int8, w of a query and head is quantized again, symmetrically (its weights
//! have both signs): o[g][c] = f32(sum over j of codes) * (s_V[c] * s_w); docs/numerics.md, "Talking heads".
//!
//! Products and values are those of plain attention ([`AttendI8`], [`AttendF32`]). The tiles of scores stay apart: here
//! all heads' scores of a row are mixed before there is a maximum, there bias and maximum are taken in the tile.
//!
//! A tile's rows of scores of all heads are kept, `[rows][heads][Tb]`, and a row of all heads beside them.

use super::Tokens;
use super::float::AttendF32;
use super::int8::{AttendI8, Values, quantize};
use crate::kernels::dot_i8::{pair_rows, pair_rows_in_place};
use crate::kernels::isa::Isa;
use crate::kernels::math::exp_nonpositive;
use crate::kernels::tiles::{MAX_ROWS, Tile, for_tiles, slices};
use crate::kernels::{Op, Uses};
use crate::lanes::F32x16;

/// The two mixings of heads. Row g of a matrix `[heads, pad16(heads)]` makes head g.
#[derive(Clone, Copy)]
pub(crate) struct TalkingHeads<'a> {
    pub logits: &'a [F32x16],
    /// `[pad16(heads)]`.
    pub logits_bias: &'a [F32x16],
    pub weights: &'a [F32x16],
    /// `[pad16(heads)]`.
    pub weights_bias: &'a [F32x16],
}

/// F32x16 of scratch for this many tokens and heads.
pub(crate) const fn talking_scratch(tokens: usize, heads: usize) -> usize {
    (MAX_ROWS + 1) * heads * tokens.div_ceil(16)
}

/// `out[g] = bias[g] + sum over h of matrix[g][h] x[h]`, chunk by chunk, plus `last` in the last chunk of each head.
#[inline(always)]
fn mix<S: Isa>(
    s: S,
    matrix: &[F32x16],
    bias: &[F32x16],
    x: &[F32x16],
    blocks: usize,
    last: &F32x16,
    out: &mut [F32x16],
) {
    let stride = bias.len();
    for (head, out) in out.chunks_exact_mut(blocks).enumerate() {
        let row = &matrix[head * stride..][..stride];
        for (chunk, out) in out.iter_mut().enumerate() {
            let mut sum = s.splat(bias[head / 16].0[head % 16]);
            for (from, x) in x.chunks_exact(blocks).enumerate() {
                sum = s.fma(s.splat(row[from / 16].0[from % 16]), s.load(&x[chunk]), sum);
            }
            if chunk + 1 == blocks {
                sum = s.add(sum, s.load(last));
            }
            s.store(sum, out);
        }
    }
}

/// Scores of one query, all heads, to weights; `mixed` is as long.
#[inline(always)]
fn talk<S: Isa>(s: S, talking: &TalkingHeads<'_>, tokens: &Tokens, scores: &mut [F32x16], mixed: &mut [F32x16]) {
    mix(s, talking.logits, talking.logits_bias, scores, tokens.blocks, tokens.bias(tokens.blocks - 1), mixed);
    for row in mixed.chunks_exact_mut(tokens.blocks) {
        let mut max = s.splat(f32::NEG_INFINITY);
        for l in &*row {
            max = s.max(s.load(l), max);
        }
        let max = s.splat(s.max_lane(max));
        let mut sum = s.splat(0.0);
        for l in &mut *row {
            let p = exp_nonpositive(s, s.sub(s.load(l), max));
            sum = s.add(sum, p);
            s.store(p, l);
        }
        let inverse = s.splat(1.0 / s.sum(sum));
        for p in row {
            s.store(s.mul(s.load(p), inverse), p);
        }
    }
    mix(s, talking.weights, talking.weights_bias, mixed, tokens.blocks, &F32x16([0.0; 16]), scores);
}

/// [`AttendI8`] with talking heads. Its scratch: [`talking_scratch`] scores, codes as for [`AttendI8`].
pub(crate) struct TalkingI8<'a> {
    pub attend: AttendI8<'a>,
    pub talking: TalkingHeads<'a>,
}

impl Op for TalkingI8<'_> {
    type Output = ();
    const USES: Uses = Uses::DotI8;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let op = &mut self.attend;
        let (heads, tokens) = (op.heads, Tokens::new(op.tokens));
        let padding = op.tokens.next_multiple_of(16) - op.tokens;
        let mut row = 0;
        while row < op.rows {
            let rows = S::TILE_ROWS.min(op.rows - row);
            for head in 0..heads {
                if const { S::PAIRS } {
                    let (first, chunks) = ((row * heads + head) * op.dp / 16, op.dp / 16);
                    pair_rows(s, &op.q_codes[first..], heads * chunks, rows, chunks, op.q);
                }
                for_tiles(s, rows, 0..tokens.blocks, &mut ScoresI8 { op, blocks: tokens.blocks, head, row });
            }
            let (scores, mixed) = op.scores.split_at_mut(MAX_ROWS * heads * tokens.blocks);
            for scores in scores.chunks_exact_mut(heads * tokens.blocks).take(rows) {
                talk(s, &self.talking, &tokens, scores, &mut mixed[..heads * tokens.blocks]);
                for weights in scores.chunks_exact_mut(tokens.blocks) {
                    weights[tokens.blocks - 1].0[16 - padding..].fill(0.0);
                }
            }
            for head in 0..heads {
                let mut scale = [0.0; MAX_ROWS];
                for (m, scale) in scale[..rows].iter_mut().enumerate() {
                    let weights = &op.scores[(m * heads + head) * tokens.blocks..][..tokens.blocks];
                    let codes = &mut op.p[m * tokens.blocks..][..tokens.blocks];
                    *scale = quantize(s, weights, 0x80 ^ S::CODE_XOR, |chunk, bytes| codes[chunk] = bytes);
                }
                if const { S::PAIRS } {
                    pair_rows_in_place(s, &mut op.p[..rows * tokens.blocks], tokens.blocks);
                }
                let chunks = op.dp / 16;
                for_tiles(s, rows, 0..chunks, &mut Values::<128> { op, blocks: tokens.blocks, head, row, scale });
            }
            row += rows;
        }
    }
}

/// t of one head and of the query rows from `row` on.
struct ScoresI8<'a, 'b> {
    op: &'a mut AttendI8<'b>,
    blocks: usize,
    head: usize,
    row: usize,
}

impl<S: Isa> Tile<S> for ScoresI8<'_, '_> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let AttendI8 { heads, q_scale, k_scale, attention_scale, .. } = *self.op;
        let (query, key) = ((self.row + row) * heads + self.head, block * heads + self.head);
        let acc = self.op.products::<S, M, N>(s, self.head, (self.row, row), block);
        for (m, acc) in acc.iter().enumerate() {
            let r = s.splat(q_scale[query + m * heads] * attention_scale);
            let out = &mut self.op.scores[((row + m) * heads + self.head) * self.blocks + block..][..N];
            for (n, &acc) in acc.iter().enumerate() {
                let t = s.mul(s.mul(s.to_f32(acc), s.load(&k_scale[key + n * heads])), r);
                s.store(t, &mut out[n]);
            }
        }
    }
}

/// [`AttendF32`] with talking heads. Its scratch: [`talking_scratch`].
pub(crate) struct TalkingF32<'a> {
    pub attend: AttendF32<'a>,
    pub talking: TalkingHeads<'a>,
}

impl Op for TalkingF32<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let op = &mut self.attend;
        let (heads, tokens) = (op.heads, Tokens::new(op.tokens));
        let mut row = 0;
        while row < op.rows {
            let rows = S::FLOAT_TILE_ROWS.min(op.rows - row);
            for head in 0..heads {
                for_tiles(s, rows, 0..tokens.blocks, &mut ScoresF32 { op, blocks: tokens.blocks, head, row });
            }
            let (scores, mixed) = op.scores.split_at_mut(MAX_ROWS * heads * tokens.blocks);
            for scores in scores.chunks_exact_mut(heads * tokens.blocks).take(rows) {
                talk(s, &self.talking, &tokens, scores, &mut mixed[..heads * tokens.blocks]);
            }
            for head in 0..heads {
                for_tiles(s, rows, 0..op.dp / 16, &mut ValuesF32 { op, blocks: tokens.blocks, head, row });
            }
            row += rows;
        }
    }
}

/// t of one head and of the query rows from `row` on.
struct ScoresF32<'a, 'b> {
    op: &'a mut AttendF32<'b>,
    blocks: usize,
    head: usize,
    row: usize,
}

impl<S: Isa> Tile<S> for ScoresF32<'_, '_> {
    const ROWS: usize = S::FLOAT_TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let AttendF32 { heads, attention_scale, .. } = *self.op;
        let acc = self.op.products::<S, M, N>(s, self.head, self.row + row, block);
        for (m, acc) in acc.iter().enumerate() {
            let out = &mut self.op.scores[((row + m) * heads + self.head) * self.blocks + block..][..N];
            for (out, &acc) in out.iter_mut().zip(acc) {
                s.store(s.mul(acc, s.splat(attention_scale)), out);
            }
        }
    }
}

/// o of one head and of the query rows from `row` on; column blocks are chunks of its channels.
struct ValuesF32<'a, 'b> {
    op: &'a mut AttendF32<'b>,
    blocks: usize,
    head: usize,
    row: usize,
}

impl<S: Isa> Tile<S> for ValuesF32<'_, '_> {
    const ROWS: usize = S::FLOAT_TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let (heads, chunks, blocks) = (self.op.heads, self.op.dp / 16, self.blocks);
        let (first, step) = (self.head * chunks + block, heads * chunks);
        let w = slices(self.op.scores, (row * heads + self.head) * blocks, heads * blocks, blocks);
        let acc = self.op.weighted::<S, M, N>(s, w, self.head, block);
        for (m, acc) in acc.iter().enumerate() {
            let out = &mut self.op.out[(self.row + row + m) * step + first..][..N];
            for (out, &acc) in out.iter_mut().zip(acc) {
                s.store(acc, out);
            }
        }
    }
}
