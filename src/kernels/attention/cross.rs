//! Cross-covariance attention (El-Nouby et al. 2021, "XCiT"): the channels of a head attend to each other, and scores
//! are sums over tokens.
//!
//! ```text
//! n_q[c] = max(sqrt(sum over t of q[t][c]^2), 1e-12)           fused multiply-add, t in order; n_k likewise
//! l[i][j] = (sum over t of q[t][i] k[t][j]) * (1 / n_k[j]) * (1 / n_q[i] * temperature)
//! p[i][j] = exp(l[i][j] - max over j of l[i][j])               P[i][j] = p[i][j] * (1 / sum over j of p[i][j])
//! o[t][i] = sum over j of P[i][j] v[t][j]
//! ```
//!
//! What comes out is P alone, packed as the weights of the model file are: applied to v it is a linear layer made at
//! run time, whose inputs and outputs are the channels of one head. In int8, q and k have a scale per channel over all
//! tokens, which takes the norms up, and P is rne(127 p) with the scale 1 / (the sum of these codes): docs/numerics.md,
//! "Attention, int8".
//!
//! What does not belong here: the product with v.

use super::Tokens;
use super::int8::{PackV, encode, symmetric};
use crate::kernels::isa::Isa;
use crate::kernels::linear::dot_float;
use crate::kernels::math::exp_nonpositive;
use crate::kernels::tiles::{Tile, for_tiles, slices};
use crate::kernels::{Op, Uses};
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16};

/// q and k of one head, within the rows of all: q of all heads, then k, then v.
#[derive(Clone, Copy)]
pub(crate) struct CrossHead<'a> {
    /// `[tokens][3][h][dp]`.
    pub qkv: &'a [F32x16],
    pub tokens: usize,
    pub heads: usize,
    /// Width of a head, not padded.
    pub width: usize,
    /// Which head.
    pub head: usize,
    /// Factor on the scores.
    pub temperature: f32,
}

impl CrossHead<'_> {
    /// dp / 16.
    fn chunks(&self) -> usize {
        self.width.div_ceil(16)
    }

    /// Chunks from token to token.
    fn stride(&self) -> usize {
        3 * self.heads * self.chunks()
    }

    /// Where a chunk of q (`third` 0) or k (1) of token 0 is.
    fn at(&self, third: usize, chunk: usize) -> usize {
        (third * self.heads + self.head) * self.chunks() + chunk
    }

    /// 1 / n of sixteen channels.
    #[inline(always)]
    fn inverse_norm<S: Isa>(&self, s: S, third: usize, chunk: usize) -> S::F {
        let mut squares = s.splat(0.0);
        for x in self.qkv[self.at(third, chunk)..].iter().step_by(self.stride()).take(self.tokens) {
            let x = s.load(x);
            squares = s.fma(x, x, squares);
        }
        let mut norm = F32x16([0.0; 16]);
        s.store(squares, &mut norm);
        // Not a closure, which is not compiled for the instruction set.
        for n in &mut norm.0 {
            *n = 1.0 / s.sqrt(*n).max(1e-12);
        }
        s.load(&norm)
    }
}

/// The softmax of one row of scores, before it is divided by its sum: p in place of the scores.
#[inline(always)]
fn exponentials<S: Isa>(s: S, channels: &Tokens, scores: &mut [F32x16]) {
    let last = scores.len() - 1;
    let padded = s.add(s.load(&scores[last]), s.load(channels.bias(last)));
    s.store(padded, &mut scores[last]);
    let mut max = s.splat(f32::NEG_INFINITY);
    for l in &*scores {
        max = s.max(s.load(l), max);
    }
    let max = s.splat(s.max_lane(max));
    for l in scores {
        s.store(exp_nonpositive(s, s.sub(s.load(l), max)), l);
    }
}

/// Scratch of [`CrossI8`].
pub(crate) struct CrossI8Scratch<'a> {
    /// `[dp][Tb]`: q, a row for each channel.
    pub q: &'a mut [U8x16],
    /// `[dp / 16][T16 / 4]`: k, channels as outputs and tokens as inputs.
    pub k: &'a mut [I8x16x4],
    /// `[dp / 16]`.
    pub k_sums: &'a mut [I32x16],
    /// `[dp / 16]`: q's scales over its norms; k's.
    pub scale: [&'a mut [F32x16]; 2],
    /// `[`[`MAX_ROWS`](crate::kernels::tiles::MAX_ROWS)`][dp / 16]`.
    pub scores: &'a mut [F32x16],
}

/// P of one head, in 8 bits.
pub(crate) struct CrossI8<'a> {
    pub of: CrossHead<'a>,
    pub scratch: CrossI8Scratch<'a>,
    /// `[dp / 16][dp / 4]`; zero past the head's width.
    pub codes: &'a mut [I8x16x4],
    /// `[dp / 16]`.
    pub scale: &'a mut [F32x16],
    /// `[dp / 16]`.
    pub sums: &'a mut [I32x16],
}

impl Op for CrossI8<'_> {
    type Output = ();
    // A few percent of the network's products: operands are never paired.
    const USES: Uses = Uses::UnpairedDotI8;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let (of, chunks) = (self.of, self.of.chunks());
        let token_blocks = of.tokens.div_ceil(16);
        self.pack_q(s);
        // k of this head, as v of head `heads + head` of three times as many.
        let (v, heads, head) = (of.qkv, 3 * of.heads, of.heads + of.head);
        let CrossI8Scratch { k, k_sums, scale: [_, k_scale], .. } = &mut self.scratch;
        let (v_codes, v_scale, v_sums) = (&mut **k, &mut **k_scale, &mut **k_sums);
        PackV { v, tokens: of.tokens, heads, dp: 16 * chunks, head, v_codes, v_scale, v_sums }.run(s);
        for (chunk, scale) in self.scratch.scale[1].iter_mut().enumerate() {
            s.store(s.mul(s.load(scale), of.inverse_norm(s, 1, chunk)), scale);
        }

        self.codes.fill(I8x16x4([0; 64]));
        self.scale.fill(F32x16([0.0; 16]));
        self.sums.fill(I32x16([0; 16]));
        let channels = Tokens::new(of.width);
        let mut row = 0;
        while row < of.width {
            let rows = S::TILE_ROWS.min(of.width - row);
            for_tiles(s, rows, 0..chunks, &mut ScoresI8 { op: &mut self, token_blocks, row });
            for m in 0..rows {
                let scores = &mut self.scratch.scores[m * chunks..][..chunks];
                exponentials(s, &channels, scores);
                let (block, lane) = ((row + m) / 16, (row + m) % 16);
                let codes = &mut self.codes[block * 4 * chunks..][..4 * chunks];
                let sum = put_codes(s, scores, lane, codes);
                self.sums[block].0[lane] = sum;
                self.scale[block].0[lane] = 1.0 / sum as f32;
            }
            row += rows;
        }
    }
}

/// rne(127 p) as the inputs of output channel `lane`; their sum.
#[inline(always)]
fn put_codes<S: Isa>(s: S, p: &[F32x16], lane: usize, codes: &mut [I8x16x4]) -> i32 {
    let mut sum = 0;
    for (p, groups) in p.iter().zip(codes.chunks_exact_mut(4)) {
        let mut bytes = U8x16([0; 16]);
        s.store_low_bytes(encode(s, s.load(p), s.splat(127.0)), 0, &mut bytes);
        for (group, bytes) in groups.iter_mut().zip(bytes.0.as_chunks::<4>().0) {
            let bytes = bytes.map(u8::cast_signed);
            group.0.as_chunks_mut::<4>().0[lane] = bytes;
            sum += bytes.iter().map(|&code| i32::from(code)).sum::<i32>();
        }
    }
    sum
}

impl CrossI8<'_> {
    /// Codes of q by channel, plus 128, and their scales over the norms. Past the last token anything may stand: k is
    /// zero there.
    #[inline(always)]
    fn pack_q<S: Isa>(&mut self, s: S) {
        let of = self.of;
        let token_blocks = of.tokens.div_ceil(16);
        for chunk in 0..of.chunks() {
            let tokens = || of.qkv[of.at(0, chunk)..].iter().step_by(of.stride()).take(of.tokens);
            let mut max = s.splat(0.0);
            for x in tokens() {
                max = s.max(s.abs(s.load(x)), max);
            }
            let (mut scale, mut inverse) = (F32x16([0.0; 16]), F32x16([0.0; 16]));
            s.store(max, &mut scale);
            for (scale, inverse) in scale.0.iter_mut().zip(&mut inverse.0) {
                (*scale, *inverse) = symmetric(*scale);
            }
            let scale_over_norm = s.mul(s.load(&scale), of.inverse_norm(s, 0, chunk));
            s.store(scale_over_norm, &mut self.scratch.scale[0][chunk]);
            let rows = &mut self.scratch.q[16 * chunk * token_blocks..][..16 * token_blocks];
            for (token, x) in tokens().enumerate() {
                let mut bytes = U8x16([0; 16]);
                s.store_low_bytes(encode(s, s.load(x), s.load(&inverse)), 0x80 ^ S::CODE_XOR, &mut bytes);
                for (row, byte) in rows.chunks_exact_mut(token_blocks).zip(bytes.0) {
                    row[token / 16].0[token % 16] = byte;
                }
            }
        }
    }
}

/// l of the channels from `row` on, into the scratch; column blocks are chunks of channels.
struct ScoresI8<'a, 'b> {
    op: &'a mut CrossI8<'b>,
    token_blocks: usize,
    row: usize,
}

impl<S: Isa> Tile<S> for ScoresI8<'_, '_> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let (of, blocks) = (self.op.of, self.token_blocks);
        let CrossI8Scratch { q, k, k_sums, scale: [q_scale, k_scale], scores } = &mut self.op.scratch;
        let q = slices(q, (self.row + row) * blocks, blocks, blocks);
        let groups = 4 * blocks;
        let k = slices(k, block * groups, groups, groups);
        let zero = s.splat_i(i32::from(S::CODE_XOR) - 128);
        let mut start = [s.splat_i(0); N];
        for (n, start) in start.iter_mut().enumerate() {
            *start = s.mul_i(zero, s.load_i(&k_sums[block + n]));
        }
        let acc = s.dot_i8::<M, N>(q, k, [start; M]);
        for (m, acc) in acc.iter().enumerate() {
            let channel = self.row + row + m;
            let r = s.splat(q_scale[channel / 16].0[channel % 16] * of.temperature);
            let out = &mut scores[(row + m) * of.chunks() + block..][..N];
            for (n, &acc) in acc.iter().enumerate() {
                s.store(s.mul(s.mul(s.to_f32(acc), s.load(&k_scale[block + n])), r), &mut out[n]);
            }
        }
    }
}

/// Scratch of [`CrossF32`].
pub(crate) struct CrossF32Scratch<'a> {
    /// `[dp][Tb]`: q, a row for each channel.
    pub q: &'a mut [F32x16],
    /// `[dp / 16]`: 1 / n of q; of k.
    pub inverse_norm: [&'a mut [F32x16]; 2],
    /// `[`[`MAX_ROWS`](crate::kernels::tiles::MAX_ROWS)`][dp / 16]`.
    pub scores: &'a mut [F32x16],
}

/// P of one head, in f32.
pub(crate) struct CrossF32<'a> {
    pub of: CrossHead<'a>,
    pub scratch: CrossF32Scratch<'a>,
    /// `[dp / 16][dp]`: for each chunk of outputs all inputs; zero past the head's width.
    pub values: &'a mut [F32x16],
}

impl Op for CrossF32<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let (of, chunks) = (self.of, self.of.chunks());
        let token_blocks = of.tokens.div_ceil(16);
        for (third, norms) in self.scratch.inverse_norm.iter_mut().enumerate() {
            for (chunk, norm) in norms.iter_mut().enumerate() {
                s.store(of.inverse_norm(s, third, chunk), norm);
            }
        }
        for chunk in 0..chunks {
            let rows = &mut self.scratch.q[16 * chunk * token_blocks..][..16 * token_blocks];
            for token in 0..of.tokens {
                let x = &of.qkv[of.at(0, chunk) + token * of.stride()];
                for (row, &x) in rows.chunks_exact_mut(token_blocks).zip(&x.0) {
                    row[token / 16].0[token % 16] = x;
                }
            }
        }

        self.values.fill(F32x16([0.0; 16]));
        let channels = Tokens::new(of.width);
        let mut row = 0;
        while row < of.width {
            let rows = S::FLOAT_TILE_ROWS.min(of.width - row);
            for_tiles(s, rows, 0..chunks, &mut ScoresF32 { op: &mut self, token_blocks, row });
            for m in 0..rows {
                let scores = &mut self.scratch.scores[m * chunks..][..chunks];
                exponentials(s, &channels, scores);
                let mut sum = s.splat(0.0);
                for p in &*scores {
                    sum = s.add(sum, s.load(p));
                }
                let inverse_sum = 1.0 / s.sum(sum);
                let (block, lane) = ((row + m) / 16, (row + m) % 16);
                let inputs = self.values[block * 16 * chunks..][..of.width].iter_mut();
                for (value, p) in inputs.zip(scores.iter().flat_map(|p| &p.0)) {
                    value.0[lane] = p * inverse_sum;
                }
            }
            row += rows;
        }
    }
}

/// l of the channels from `row` on, into the scratch; column blocks are chunks of channels.
struct ScoresF32<'a, 'b> {
    op: &'a mut CrossF32<'b>,
    token_blocks: usize,
    row: usize,
}

impl<S: Isa> Tile<S> for ScoresF32<'_, '_> {
    const ROWS: usize = S::FLOAT_TILE_ROWS;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let (of, blocks) = (self.op.of, self.token_blocks);
        let CrossF32Scratch { q, inverse_norm: [q_norm, k_norm], scores } = &mut self.op.scratch;
        let q = slices(q, (self.row + row) * blocks, blocks, blocks);
        let k = slices(of.qkv, of.at(1, block), 1, (of.tokens - 1) * of.stride() + 1);
        let acc = dot_float::<S, F32x16, M, N>(s, q, of.tokens, k, of.stride());
        for (m, acc) in acc.iter().enumerate() {
            let channel = self.row + row + m;
            let r = s.splat(q_norm[channel / 16].0[channel % 16] * of.temperature);
            let out = &mut scores[(row + m) * of.chunks() + block..][..N];
            for (n, &acc) in acc.iter().enumerate() {
                s.store(s.mul(s.mul(acc, s.load(&k_norm[block + n])), r), &mut out[n]);
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::kernels::Kernels;
    use crate::kernels::test_data::{Random, bits};
    use crate::kernels::tiles::MAX_ROWS;

    const NAN: F32x16 = F32x16([f32::NAN; 16]);
    const TEMPERATURE: f32 = -7.5;

    struct Case {
        tokens: usize,
        heads: usize,
        width: usize,
        qkv: Vec<F32x16>,
    }

    impl Case {
        /// Channels of different size, so that every norm and scale matters; zero past the width.
        fn new(tokens: usize, heads: usize, width: usize) -> Self {
            let chunks = width.div_ceil(16);
            let mut qkv = Random::new((tokens * 100 + width) as u64).chunks(tokens * 3 * heads * chunks);
            for (i, chunk) in qkv.iter_mut().enumerate() {
                for (lane, x) in chunk.0.iter_mut().enumerate() {
                    let channel = 16 * (i % chunks) + lane;
                    *x *= if channel < width { 0.5 + (channel % 7) as f32 } else { 0.0 };
                }
            }
            Self { tokens, heads, width, qkv }
        }

        fn of(&self, head: usize) -> CrossHead<'_> {
            let &Self { tokens, heads, width, ref qkv } = self;
            CrossHead { qkv, tokens, heads, width, head, temperature: TEMPERATURE }
        }

        fn get(&self, third: usize, token: usize, head: usize, channel: usize) -> f32 {
            let i = ((token * 3 + third) * self.heads + head) * self.width.next_multiple_of(16) + channel;
            self.qkv[i / 16].0[i % 16]
        }

        /// P [width][width] of q and k, `x`, in this many steps up to the largest of each row, or exact.
        fn matrix(&self, [q, k]: &[Vec<Vec<f64>>; 2], steps: Option<f64>) -> Vec<Vec<f64>> {
            let dot = |i: usize, j: usize| q.iter().zip(k).map(|(q, k)| q[i] * k[j]).sum::<f64>();
            let row = |i: usize| {
                let score = |j| dot(i, j) * f64::from(TEMPERATURE);
                let scores: Vec<f64> = (0..self.width).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let p = scores.iter().map(|l| (l - max).exp());
                let p: Vec<f64> = p.map(|p| steps.map_or(p, |n| (n * p).round_ties_even())).collect();
                let sum: f64 = p.iter().sum();
                p.iter().map(|p| p / sum).collect()
            };
            (0..self.width).map(row).collect()
        }
    }

    struct RunI8<'a>(CrossHead<'a>);

    impl Op for RunI8<'_> {
        type Output = (Vec<I8x16x4>, Vec<F32x16>, Vec<I32x16>);
        const USES: Uses = Uses::UnpairedDotI8;

        #[inline(always)]
        fn run<S: Isa>(self, s: S) -> Self::Output {
            let (of, chunks, blocks) = (self.0, self.0.chunks(), self.0.tokens.div_ceil(16));
            let mut codes = vec![I8x16x4([9; 64]); chunks * 4 * chunks];
            let (mut scale, mut sums) = (vec![NAN; chunks], vec![I32x16([9; 16]); chunks]);
            let scratch = CrossI8Scratch {
                q: &mut vec![U8x16([9; 16]); 16 * chunks * blocks],
                k: &mut vec![I8x16x4([9; 64]); chunks * 4 * blocks],
                k_sums: &mut vec![I32x16([9; 16]); chunks],
                scale: [&mut vec![NAN; chunks], &mut vec![NAN; chunks]],
                scores: &mut vec![NAN; MAX_ROWS * chunks],
            };
            CrossI8 { of, scratch, codes: &mut codes, scale: &mut scale, sums: &mut sums }.run(s);
            (codes, scale, sums)
        }
    }

    struct RunF32<'a>(CrossHead<'a>);

    impl Op for RunF32<'_> {
        type Output = Vec<F32x16>;

        #[inline(always)]
        fn run<S: Isa>(self, s: S) -> Vec<F32x16> {
            let (of, chunks, blocks) = (self.0, self.0.chunks(), self.0.tokens.div_ceil(16));
            let mut values = vec![NAN; chunks * 16 * chunks];
            let scratch = CrossF32Scratch {
                // Past the last token nothing is read.
                q: &mut vec![NAN; 16 * chunks * blocks],
                inverse_norm: [&mut vec![NAN; chunks], &mut vec![NAN; chunks]],
                scores: &mut vec![NAN; MAX_ROWS * chunks],
            };
            CrossF32 { of, scratch, values: &mut values }.run(s);
            values
        }
    }

    #[test]
    fn every_instruction_set_agrees_and_scalar_is_right() {
        for (tokens, heads, width) in [(1, 1, 1), (5, 2, 7), (16, 1, 16), (17, 3, 12), (33, 1, 40), (50, 2, 48)] {
            let case = Case::new(tokens, heads, width);
            for head in 0..heads {
                let int8 = Kernels::scalar().run(RunI8(case.of(head)));
                let float = Kernels::scalar().run(RunF32(case.of(head)));
                for kernels in Kernels::available() {
                    let got = kernels.run(RunI8(case.of(head)));
                    assert!(got.0 == int8.0 && got.2 == int8.2, "{} {tokens} {width}", kernels.name());
                    assert_eq!(bits(&got.1), bits(&int8.1), "{} {tokens} {width}", kernels.name());
                    assert_eq!(bits(&kernels.run(RunF32(case.of(head)))), bits(&float), "{} {tokens}", kernels.name());
                }

                // Unit columns of q and k, exact and from their codes: [third][token][channel].
                let mut unit = [(); 2].map(|()| vec![vec![0.0; width]; tokens]);
                let mut coded = unit.clone();
                for (third, c) in (0..2).flat_map(|third| (0..width).map(move |c| (third, c))) {
                    let x: Vec<f32> = (0..tokens).map(|t| case.get(third, t, head, c)).collect();
                    let norm = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                    let max = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
                    for (t, x) in x.into_iter().enumerate() {
                        unit[third][t][c] = f64::from(x) / norm;
                        let code = (x * (127.0 / max)).round_ties_even();
                        coded[third][t][c] = f64::from(code) * f64::from(max / 127.0) / norm;
                    }
                }
                let (exact, formula) = (case.matrix(&unit, None), case.matrix(&coded, Some(127.0)));
                let chunks = width.div_ceil(16);
                for (i, j) in (0..16 * chunks).flat_map(|i| (0..16 * chunks).map(move |j| (i, j))) {
                    let (block, lane) = (i / 16, i % 16);
                    let code = int8.0[block * 4 * chunks + j / 4].0[4 * lane + j % 4];
                    let got = f64::from(code) * f64::from(int8.1[block].0[lane]);
                    let value = f64::from(float[block * 16 * chunks + j].0[lane]);
                    if i < width && j < width {
                        assert!((value - exact[i][j]).abs() < 2e-6, "{tokens} {width}: P[{i}][{j}] {value}");
                        // A code may fall to the other side of a half.
                        assert!((got - formula[i][j]).abs() < 0.02, "{tokens} {width}: P[{i}][{j}] {got}");
                    } else {
                        assert_eq!((code, value), (0, 0.0), "{tokens} {width}: padding at {i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn zero_and_broken_channels_give_the_same_bits() {
        let mut case = Case::new(21, 1, 20);
        for row in case.qkv.chunks_exact_mut(6) {
            (row[0].0[3], row[2].0[5]) = (0.0, 0.0);
        }
        let even = Kernels::scalar().run(RunF32(case.of(0)));
        assert!((0..20).all(|j| (even[j].0[3] - 0.05).abs() < 1e-6), "a channel of zeros attends evenly");
        for (i, broken) in [f32::NAN, f32::INFINITY, -3.0e38, 1.0e-40].into_iter().enumerate() {
            (case.qkv[6 * i].0[4 + i], case.qkv[6 * i + 2].0[8 + i]) = (broken, broken);
        }
        let float = bits(&Kernels::scalar().run(RunF32(case.of(0))));
        let (codes, scale, sums) = Kernels::scalar().run(RunI8(case.of(0)));
        for kernels in Kernels::available() {
            let got = kernels.run(RunI8(case.of(0)));
            assert!(got.0 == codes && bits(&got.1) == bits(&scale) && got.2 == sums, "{}", kernels.name());
            assert_eq!(bits(&kernels.run(RunF32(case.of(0)))), float, "{}", kernels.name());
        }
    }
}
