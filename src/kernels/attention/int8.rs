//! Attention with 8-bit Q, K, V and probabilities; docs/numerics.md, "Attention, int8".
//!
//! ```text
//! t[j] = f32(sum over c of Q[c] K[j][c]) * s_K[j]        m = max over j of t[j]
//! p[j] = rne(255 * exp((t[j] - m) * r))                  r = s_Q * attention_scale
//! o[c] = f32(sum over j of p[j] V[j][c]) * (s_V[c] * (1 / f32(sum over j of p[j])))
//! ```
//!
//! With a bias by relative position B, t[j] = fma(f32(sum over c) * s_K[j], r, B[j]) and p[j] = rne(255 * exp(t[j] -
//! m)).
//!
//! Both products are the int8 tile of linear layers, so Q is stored as u8 with zero point 128, p as u8 with zero point
//! 0, both xor [`Isa::CODE_XOR`]; what the stored bytes are off is corrected with the sums of K over channels and of V
//! over tokens. K and V are packed paired where [`Isa::PAIRS`]; Q and p are paired tile by tile.

use super::{RelativeBias, Tokens};
use crate::kernels::dot_i8::{pair_groups_in_place, pair_rows, pair_rows_in_place};
use crate::kernels::isa::{Isa, ROUND, rounded};
use crate::kernels::math::exp_nonpositive;
use crate::kernels::tiles::{MAX_ROWS, Tile, for_tiles, slices};
use crate::kernels::{Op, Uses};
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16};

/// Scale and inverse scale of symmetric codes for the largest magnitude `max`.
#[inline(always)]
pub(super) fn symmetric(max: f32) -> (f32, f32) {
    if max < 1e-30 { (0.0, 0.0) } else { (max / 127.0, 127.0 / max) }
}

/// Symmetric codes: rne(clamp(x * inv, -127, 127)), plus the bits of [`ROUND`]. x * inv is at most 127 and what
/// rounding adds; NaN becomes -127.
#[inline(always)]
pub(super) fn encode<S: Isa>(s: S, x: S::F, inv: S::F) -> S::I {
    rounded(s, s.max(s.mul(x, inv), s.splat(-127.0)))
}

/// What a sum of `n` numbers from [`rounded`] starts from, to become the sum of the integers.
pub(crate) fn start_of_sum(n: usize) -> i32 {
    ROUND.to_bits().wrapping_mul(n as u32).wrapping_neg().cast_signed()
}

/// The sum of sixteen i32, wrapping.
#[inline(always)]
fn sum_lanes<S: Isa>(s: S, x: S::I) -> i32 {
    let mut lanes = I32x16([0; 16]);
    s.store_i(x, &mut lanes);
    lanes.0.iter().fold(0, |sum, &x| sum.wrapping_add(x))
}

/// Quantizes q of `rows` tokens.
pub(crate) struct PackQ<'a> {
    /// Rows of `stride` chunks that begin with q, `[h][dp]`.
    pub q: &'a [F32x16],
    pub stride: usize,
    pub rows: usize,
    pub heads: usize,
    /// Head width, padded to 16.
    pub dp: usize,
    /// `[rows][h][dp]`: code + 128.
    pub codes: &'a mut [U8x16],
    /// `[rows][h]`.
    pub scale: &'a mut [f32],
}

impl Op for PackQ<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let (heads, chunks) = (self.heads, self.dp / 16);
        for row in 0..self.rows {
            let q = &self.q[row * self.stride..][..heads * chunks];
            for (head, q) in q.chunks_exact(chunks).enumerate() {
                let place = row * heads + head;
                let codes = &mut self.codes[place * chunks..][..chunks];
                self.scale[place] = quantize(s, q, 0x80 ^ S::CODE_XOR, |chunk, bytes| codes[chunk] = bytes);
            }
        }
    }
}

/// Quantizes k of `rows` tokens, and copies v. The first token is at a multiple of 16, and only the last
/// tokens of all may be a number of rows that is not.
pub(crate) struct PackKv<'a> {
    /// Rows of `stride` chunks that begin with k, then v, `[2][h][dp]`.
    pub kv: &'a [F32x16],
    pub stride: usize,
    pub rows: usize,
    pub heads: usize,
    /// Head width, padded to 16.
    pub dp: usize,
    /// `[ceil(rows / 16)][h][dp / 4]`, tokens as output channels, paired where [`Isa::PAIRS`]; zero codes past the
    /// last.
    pub k_codes: &'a mut [I8x16x4],
    /// `[ceil(rows / 16)][h]`, a lane for each token; zero past the last.
    pub k_scale: &'a mut [F32x16],
    /// `[ceil(rows / 16)][h]`: for each token, the sum of its codes.
    pub k_sums: &'a mut [I32x16],
    /// `[rows][h][dp]`.
    pub v: &'a mut [F32x16],
}

/// Activation codes that are all 1 read as u8 and as i8: their product with packed codes is the sums of these.
/// As long as the widest head.
const ONES: [U8x16; 64] = [U8x16([1; 16]); 64];

impl Op for PackKv<'_> {
    type Output = ();
    const USES: Uses = Uses::DotI8;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let (heads, chunks) = (self.heads, self.dp / 16);
        let width = heads * chunks;
        let blocks = self.rows.div_ceil(16);
        if !self.rows.is_multiple_of(16) {
            self.k_codes[(blocks - 1) * 4 * width..][..4 * width].fill(I8x16x4([0; 64]));
            self.k_scale[(blocks - 1) * heads..][..heads].fill(F32x16([0.0; 16]));
        }
        for row in 0..self.rows {
            let (k, v) = self.kv[row * self.stride..][..2 * width].split_at(width);
            let (block, lane) = (row / 16, row % 16);
            for (head, k) in k.chunks_exact(chunks).enumerate() {
                let place = block * heads + head;
                let codes = &mut self.k_codes[place * 4 * chunks..][..4 * chunks];
                self.k_scale[place].0[lane] = quantize(s, k, 0, |chunk, bytes| {
                    let bytes = bytes.0.map(u8::cast_signed);
                    for (group, bytes) in codes[4 * chunk..][..4].iter_mut().zip(bytes.as_chunks::<4>().0) {
                        group.0.as_chunks_mut::<4>().0[lane] = *bytes;
                    }
                });
            }
            self.v[row * width..][..width].copy_from_slice(v);
        }
        if const { S::PAIRS } {
            pair_groups_in_place(s, &mut self.k_codes[..blocks * 4 * width]);
        }
        for (sums, codes) in self.k_sums.iter_mut().zip(self.k_codes.chunks_exact(4 * chunks)).take(blocks * heads) {
            let [[sum]] = s.dot_i8::<1, 1>([&ONES[..chunks]], [codes], [[s.splat_i(0)]]);
            s.store_i(sum, sums);
        }
    }
}

/// Symmetric codes of one head's row, handed to `store` by chunks of 16, each byte xor `flip`. Returns the scale.
#[inline(always)]
pub(super) fn quantize<S: Isa>(s: S, x: &[F32x16], flip: u8, mut store: impl FnMut(usize, U8x16)) -> f32 {
    let mut max = s.splat(0.0);
    for x in x {
        max = s.max(s.abs(s.load(x)), max);
    }
    let (scale, inv) = symmetric(s.max_lane(max));
    let inv = s.splat(inv);
    for (chunk, x) in x.iter().enumerate() {
        let mut bytes = U8x16([0; 16]);
        s.store_low_bytes(encode(s, s.load(x), inv), flip, &mut bytes);
        store(chunk, bytes);
    }
    scale
}

/// Quantizes one head's v, per channel over all tokens.
pub(crate) struct PackV<'a> {
    /// `[tokens][h][dp]`.
    pub v: &'a [F32x16],
    pub tokens: usize,
    pub heads: usize,
    pub dp: usize,
    /// Which head.
    pub head: usize,
    /// `[dp / 16][T16 / 4]`, tokens as inputs, paired where [`Isa::PAIRS`]; zero codes past the last.
    pub v_codes: &'a mut [I8x16x4],
    /// `[dp / 16]`.
    pub v_scale: &'a mut [F32x16],
    /// `[dp / 16]`: for each channel, the sum of its codes.
    pub v_sums: &'a mut [I32x16],
}

impl Op for PackV<'_> {
    type Output = ();
    const USES: Uses = Uses::Pairs;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let chunks = self.dp / 16;
        let groups = 4 * self.tokens.div_ceil(16);
        for chunk in 0..chunks {
            let at = |token: usize| (token * self.heads + self.head) * chunks + chunk;
            // Zero, or NaN in channels where a token is not finite: all of attention shows it then.
            let (mut max, mut not_finite) = (s.splat(0.0), s.splat(0.0));
            for token in 0..self.tokens {
                let v = s.load(&self.v[at(token)]);
                max = s.max(s.abs(v), max);
                not_finite = s.fma(v, s.splat(0.0), not_finite);
            }
            let (scale, inv) = (&mut self.v_scale[chunk], &mut F32x16([0.0; 16]));
            s.store(max, scale);
            for (scale, inv) in scale.0.iter_mut().zip(&mut inv.0) {
                (*scale, *inv) = symmetric(*scale);
            }
            s.store(s.add(s.load(scale), not_finite), scale);
            let inv = s.load(inv);
            let mut sums = s.splat_i(start_of_sum(self.tokens));
            let block = &mut self.v_codes[chunk * groups..][..groups];
            for (group, out) in block.iter_mut().enumerate() {
                let mut codes = [I32x16([0; 16]); 4];
                for (i, codes) in codes.iter_mut().enumerate() {
                    if 4 * group + i < self.tokens {
                        let code = encode(s, s.load(&self.v[at(4 * group + i)]), inv);
                        sums = s.add_i(sums, code);
                        s.store_i(code, codes);
                    }
                }
                interleave(&codes, out);
            }
            if const { S::PAIRS } {
                pair_groups_in_place(s, block);
            }
            s.store_i(sums, &mut self.v_sums[chunk]);
        }
    }
}

/// `out[c][i]` is the low byte of `codes[i][c]`.
#[inline(always)]
pub(crate) fn interleave(codes: &[I32x16; 4], out: &mut I8x16x4) {
    let mut words = [0_u32; 16];
    for (i, codes) in codes.iter().enumerate() {
        for (word, &code) in words.iter_mut().zip(&codes.0) {
            *word |= u32::from(code as u8) << (8 * i);
        }
    }
    for (out, word) in out.0.chunks_exact_mut(4).zip(words) {
        out.copy_from_slice(&word.to_le_bytes().map(u8::cast_signed));
    }
}

/// Sizes of the scratch buffers of [`AttendI8`].
pub(crate) struct AttendI8Scratch {
    /// F32x16 of `scores`.
    pub scores: usize,
    /// U8x16 of `p`.
    pub p: usize,
    /// U8x16 of `q`.
    pub q: usize,
}

/// The scratch that [`AttendI8`] needs for this many tokens and heads `dp` wide, whatever the instruction set and the
/// rows.
pub(crate) const fn attend_i8_scratch(tokens: usize, dp: usize) -> AttendI8Scratch {
    let chunks = MAX_ROWS * tokens.div_ceil(16);
    AttendI8Scratch { scores: chunks, p: chunks, q: MAX_ROWS * dp / 16 }
}

/// Attention of `rows` query rows, any of the tokens, over all tokens.
pub(crate) struct AttendI8<'a> {
    /// The token of the first query row.
    pub first: usize,
    pub rows: usize,
    pub heads: usize,
    pub dp: usize,
    pub tokens: usize,
    /// 1 / sqrt(d); not negative.
    pub attention_scale: f32,
    /// `[rows][h][dp]`, `q_scale` `[rows][h]`: see [`PackKv`].
    pub q_codes: &'a [U8x16],
    pub q_scale: &'a [f32],
    /// `[Tb][h][dp / 4]`, `k_scale` and `k_sums` `[Tb][h]`: see [`PackKv`].
    pub k_codes: &'a [I8x16x4],
    pub k_scale: &'a [F32x16],
    pub k_sums: &'a [I32x16],
    /// `[h][dp / 16][T16 / 4]`, `v_scale` and `v_sums` `[h][dp / 16]`: see [`PackV`].
    pub v_codes: &'a [I8x16x4],
    pub v_scale: &'a [F32x16],
    pub v_sums: &'a [I32x16],
    /// Added to the scores.
    pub bias: Option<RelativeBias<'a>>,
    /// See [`attend_i8_scratch`].
    pub scores: &'a mut [F32x16],
    /// See [`attend_i8_scratch`].
    pub p: &'a mut [U8x16],
    /// See [`attend_i8_scratch`].
    pub q: &'a mut [U8x16],
    /// `[rows][h][dp]`.
    pub out: &'a mut [F32x16],
}

impl Op for AttendI8<'_> {
    type Output = ();
    const USES: Uses = Uses::DotI8;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let tokens = Tokens::new(self.tokens);
        let chunks = self.dp / 16;
        for head in 0..self.heads {
            let mut row = 0;
            while row < self.rows {
                let rows = S::TILE_ROWS.min(self.rows - row);
                if let Some(bias) = &self.bias {
                    for (m, scores) in self.scores.chunks_exact_mut(tokens.blocks).take(rows).enumerate() {
                        bias.row(self.heads, head, self.first + row + m, scores);
                    }
                }
                if const { S::PAIRS } {
                    let first = (row * self.heads + head) * chunks;
                    pair_rows(s, &self.q_codes[first..], self.heads * chunks, rows, chunks, self.q);
                }
                for_tiles(s, rows, 0..tokens.blocks, &mut Scores { op: &mut self, tokens: &tokens, head, row });
                // All rows first: chains that do not wait for each other.
                let mut max = [0.0; MAX_ROWS];
                for (max, t) in max.iter_mut().zip(self.scores[..rows * tokens.blocks].chunks_exact(tokens.blocks)) {
                    *max = largest(s, t);
                }
                let mut inverse_sum = [0.0; MAX_ROWS];
                for (m, inverse_sum) in inverse_sum[..rows].iter_mut().enumerate() {
                    *inverse_sum = 1.0 / self.probabilities(s, &tokens, head, row, m, max[m]) as f32;
                }
                if const { S::PAIRS } {
                    pair_rows_in_place(s, &mut self.p[..rows * tokens.blocks], tokens.blocks);
                }
                let (op, blocks, scale) = (&mut self, tokens.blocks, inverse_sum);
                for_tiles(s, rows, 0..chunks, &mut Values::<0> { op, blocks, head, row, scale });
                row += rows;
            }
        }
    }
}

/// The largest score of a row.
#[inline(always)]
fn largest<S: Isa>(s: S, t: &[F32x16]) -> f32 {
    let mut max = s.splat(f32::NEG_INFINITY);
    for t in t {
        max = s.max(s.load(t), max);
    }
    s.max_lane(max)
}

/// t of one head and of the query rows from `row` on, into the scratch.
struct Scores<'a, 'b> {
    op: &'a mut AttendI8<'b>,
    tokens: &'a Tokens,
    head: usize,
    row: usize,
}

impl<S: Isa> Tile<S> for Scores<'_, '_> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let AttendI8 { heads, q_scale, k_scale, attention_scale, bias: relative, .. } = *self.op;
        let (query, key) = ((self.row + row) * heads + self.head, block * heads + self.head);
        let acc = self.op.products::<S, M, N>(s, self.head, (self.row, row), block);
        let (mut scale, mut bias) = ([s.splat(0.0); N], [s.splat(0.0); N]);
        for n in 0..N {
            (scale[n], bias[n]) = (s.load(&k_scale[key + n * heads]), s.load(self.tokens.bias(block + n)));
        }
        let out = &mut self.op.scores[row * self.tokens.blocks + block..];
        for (m, acc) in acc.iter().enumerate() {
            let out = &mut out[m * self.tokens.blocks..][..N];
            let r = s.splat(q_scale[query + m * heads] * attention_scale);
            for (n, &acc) in acc.iter().enumerate() {
                let acc = s.to_f32(acc);
                let t = match relative {
                    None => s.fma(acc, scale[n], bias[n]),
                    Some(_) => s.fma(s.mul(acc, scale[n]), r, s.load(&out[n])),
                };
                s.store(t, &mut out[n]);
            }
        }
    }
}

impl AttendI8<'_> {
    /// q k of one head: for the rows of a tile that begins at query row `first`, from its row `row` on, and the keys of
    /// the 16-token blocks from `block` on.
    #[inline(always)]
    pub(super) fn products<S: Isa, const M: usize, const N: usize>(
        &self,
        s: S,
        head: usize,
        (first, row): (usize, usize),
        block: usize,
    ) -> [[S::I; N]; M] {
        let Self { heads, dp, q_codes, k_codes, k_sums, .. } = *self;
        let (chunks, groups) = (dp / 16, dp / 4);
        let (query, key) = ((first + row) * heads + head, block * heads + head);
        let q = match const { S::PAIRS } {
            true => slices(self.q, row * chunks, chunks, chunks),
            false => slices(q_codes, query * chunks, heads * chunks, chunks),
        };
        let k = slices(k_codes, key * groups, heads * groups, groups);
        let zero = s.splat_i(i32::from(S::CODE_XOR) - 128);
        let mut start = [s.splat_i(0); N];
        for (n, start) in start.iter_mut().enumerate() {
            *start = s.mul_i(zero, s.load_i(&k_sums[key + n * heads]));
        }
        s.dot_i8::<M, N>(q, k, [start; M])
    }

    /// p of row `row + m`, whose scores are those of `m` in the scratch; returns the sum of its codes.
    #[inline(always)]
    fn probabilities<S: Isa>(&mut self, s: S, tokens: &Tokens, head: usize, row: usize, m: usize, max: f32) -> i32 {
        let r = match self.bias {
            None => self.q_scale[(row + m) * self.heads + head] * self.attention_scale,
            // t has it.
            Some(_) => 1.0,
        };
        let (r, max) = (s.splat(r), s.splat(max));
        let t = &self.scores[m * tokens.blocks..][..tokens.blocks];
        let p = &mut self.p[m * tokens.blocks..][..tokens.blocks];
        let mut sum = s.splat_i(start_of_sum(tokens.blocks));
        for (t, p) in t.iter().zip(p) {
            let x = s.mul(s.sub(s.load(t), max), r);
            let code = rounded(s, s.mul(s.splat(255.0), exp_nonpositive(s, x)));
            sum = s.add_i(sum, code);
            s.store_low_bytes(code, S::CODE_XOR, p);
        }
        sum_lanes(s, sum)
    }
}

/// o of one head and of the query rows from `row` on; column blocks are chunks of its channels. The codes of the
/// weights have the zero point `ZERO`.
pub(super) struct Values<'a, 'b, const ZERO: i32> {
    pub op: &'a mut AttendI8<'b>,
    /// 16-token blocks.
    pub blocks: usize,
    pub head: usize,
    pub row: usize,
    /// Of each row, for its weights.
    pub scale: [f32; MAX_ROWS],
}

impl<S: Isa, const ZERO: i32> Tile<S> for Values<'_, '_, ZERO> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let AttendI8 { heads, dp, v_codes, v_scale, v_sums, .. } = *self.op;
        let (chunks, blocks) = (dp / 16, self.blocks);
        let first = self.head * chunks + block;
        let groups = 4 * blocks;
        let p = slices(self.op.p, row * blocks, blocks, blocks);
        let v = slices(v_codes, first * groups, groups, groups);
        let zero = s.splat_i(i32::from(S::CODE_XOR) - ZERO);
        let mut start = [s.splat_i(0); N];
        for (n, start) in start.iter_mut().enumerate() {
            *start = s.mul_i(zero, s.load_i(&v_sums[first + n]));
        }
        let acc = s.dot_i8::<M, N>(p, v, [start; M]);
        let (width, v_scale) = (heads * chunks, &v_scale[first..][..N]);
        let out = &mut self.op.out[(self.row + row) * width + first..];
        for (m, (acc, &scale)) in acc.iter().zip(&self.scale[row..][..M]).enumerate() {
            let out = &mut out[m * width..][..N];
            for (n, &acc) in acc.iter().enumerate() {
                let scale = s.mul(s.load(&v_scale[n]), s.splat(scale));
                s.store(s.mul(s.to_f32(acc), scale), &mut out[n]);
            }
        }
    }
}
