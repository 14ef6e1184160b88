//! Every instruction set against scalar, bit for bit, and scalar against attention written out in f64.

use std::vec;
use std::vec::Vec;

use super::float::{AttendF32, PackKvF32, attend_f32_scratch};
use super::int8::{AttendI8, PackKv, PackQ, PackV, attend_i8_scratch};
use crate::kernels::isa::Isa;
use crate::kernels::test_data::{Random, Unpaired, bits};
use crate::kernels::{Kernels, Op};
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16};

#[derive(Debug)]
struct Case {
    tokens: usize,
    heads: usize,
    dp: usize,
    /// Query rows attended: the first ones.
    rows: usize,
    qkv: Vec<F32x16>,
}

const SCALE: f32 = 0.25;

impl Case {
    fn new(tokens: usize, heads: usize, dp: usize, rows: usize) -> Self {
        let mut qkv = Random::new((tokens * 100 + heads) as u64).chunks(tokens * 3 * heads * dp / 16);
        // Tokens and channels of different size, so that every scale matters.
        for (i, chunk) in qkv.iter_mut().enumerate() {
            chunk.0.iter_mut().enumerate().for_each(|(lane, x)| *x *= 0.5 + (i % 7) as f32 + lane as f32 / 4.0);
        }
        Self { tokens, heads, dp, rows, qkv }
    }

    fn name(&self) -> std::string::String {
        std::format!("T {} h {} dp {} rows {}", self.tokens, self.heads, self.dp, self.rows)
    }

    /// q (0), k (1) or v (2).
    fn get(&self, third: usize, token: usize, head: usize, channel: usize) -> f32 {
        let i = ((token * 3 + third) * self.heads + head) * self.dp + channel;
        self.qkv[i / 16].0[i % 16]
    }
}

/// Everything that the int8 operations write, activation codes as u8.
#[derive(PartialEq)]
struct Int8 {
    q: Vec<u8>,
    q_scale: Vec<u32>,
    k: Vec<I8x16x4>,
    v: Vec<I8x16x4>,
    sums: Vec<I32x16>,
    scales: Vec<u32>,
    out: Vec<F32x16>,
    out_bits: Vec<u32>,
}

struct RunInt8<'a>(&'a Case);

impl Op for RunInt8<'_> {
    type Output = Int8;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> Int8 {
        let Case { tokens, heads, dp, rows, ref qkv } = *self.0;
        let (blocks, chunks) = (tokens.div_ceil(16), dp / 16);
        let (zero, zero_i) = (F32x16([f32::NAN; 16]), I32x16([7; 16]));
        let mut q_codes = vec![U8x16([9; 16]); tokens * heads * chunks];
        let mut q_scale = vec![0.0; tokens * heads];
        let mut k_codes = vec![I8x16x4([9; 64]); blocks * heads * dp / 4];
        let mut k_scale = vec![zero; blocks * heads];
        let mut k_sums = vec![zero_i; blocks * heads];
        let mut v = vec![zero; tokens * heads * chunks];
        // Two calls, as two blocks of rows would: the first of 16 tokens.
        let first = tokens.min(16);
        for (from, rows) in [(0, first), (first, tokens - first)] {
            let (row, block) = (from * heads, from / 16 * heads);
            let (codes, scale) = (&mut q_codes[row * chunks..], &mut q_scale[row..]);
            let (qkv, stride) = (&qkv[3 * row * chunks..], 3 * heads * chunks);
            PackQ { q: qkv, stride, rows, heads, dp, codes, scale }.run(s);
            PackKv {
                kv: qkv.get(heads * chunks..).unwrap_or_default(),
                stride,
                rows,
                heads,
                dp,
                k_codes: &mut k_codes[block * dp / 4..],
                k_scale: &mut k_scale[block..],
                k_sums: &mut k_sums[block..],
                v: &mut v[row * chunks..],
            }
            .run(s);
        }
        let groups = 4 * blocks;
        let mut v_codes = vec![I8x16x4([9; 64]); heads * chunks * groups];
        let mut v_scale = vec![zero; heads * chunks];
        let mut v_sums = vec![zero_i; heads * chunks];
        for head in 0..heads {
            PackV {
                v: &v,
                tokens,
                heads,
                dp,
                head,
                v_codes: &mut v_codes[head * chunks * groups..][..chunks * groups],
                v_scale: &mut v_scale[head * chunks..][..chunks],
                v_sums: &mut v_sums[head * chunks..][..chunks],
            }
            .run(s);
        }
        let scratch = attend_i8_scratch(tokens, dp);
        let mut out = vec![zero; rows * heads * chunks];
        AttendI8 {
            first: 0,
            bias: None,
            rows,
            heads,
            dp,
            tokens,
            attention_scale: SCALE,
            q_codes: &q_codes,
            q_scale: &q_scale,
            k_codes: &k_codes,
            k_scale: &k_scale,
            k_sums: &k_sums,
            v_codes: &v_codes,
            v_scale: &v_scale,
            v_sums: &v_sums,
            scores: &mut vec![zero; scratch.scores],
            p: &mut vec![U8x16([9; 16]); scratch.p],
            q: &mut vec![U8x16([9; 16]); scratch.q],
            out: &mut out,
        }
        .run(s);
        Int8 {
            q: q_codes.iter().flat_map(|q| q.0).map(|q| q ^ S::CODE_XOR).collect(),
            q_scale: q_scale.iter().map(|x| x.to_bits()).collect(),
            k: Unpaired(&k_codes).run(s),
            v: Unpaired(&v_codes).run(s),
            sums: [k_sums, v_sums].concat(),
            scales: bits(&[k_scale, v_scale].concat()),
            out_bits: bits(&out),
            out,
        }
    }
}

struct RunF32<'a>(&'a Case);

impl Op for RunF32<'_> {
    type Output = Vec<F32x16>;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> Vec<F32x16> {
        let Case { tokens, heads, dp, rows, ref qkv } = *self.0;
        let nan = F32x16([f32::NAN; 16]);
        let width = heads * dp / 16;
        let [mut q, mut v, mut out] = [tokens, tokens, rows].map(|rows| vec![nan; rows * width]);
        let mut k = vec![nan; tokens.div_ceil(16) * 16 * width];
        for (q, qkv) in q.chunks_exact_mut(width).zip(qkv.chunks_exact(3 * width)) {
            q.copy_from_slice(&qkv[..width]);
        }
        PackKvF32 { kv: &qkv[width..], stride: 3 * width, rows: tokens, heads, dp, k: &mut k, v: &mut v }.run(s);
        AttendF32 {
            first: 0,
            bias: None,
            rows,
            heads,
            dp,
            tokens,
            attention_scale: SCALE,
            q: &q,
            k: &k,
            v: &v,
            scores: &mut vec![nan; attend_f32_scratch(tokens)],
            out: &mut out,
        }
        .run(s);
        out
    }
}

/// Symmetric codes and their scale, from the formula.
fn symmetric(x: impl Iterator<Item = f32> + Clone) -> (Vec<i64>, f32) {
    let max = x.clone().fold(0.0_f32, |max, x| max.max(x.abs()));
    let inv = if max < 1e-30 { 0.0 } else { 127.0 / max };
    let code = |x: f32| (x * inv).clamp(-127.0, 127.0).round_ties_even() as i64;
    (x.map(code).collect(), if max < 1e-30 { 0.0 } else { max / 127.0 })
}

/// docs/numerics.md, "Attention, int8", exact sums and f64 where the order of f32 operations would matter.
fn int8_reference(case: &Case, row: usize, head: usize) -> Vec<f64> {
    let head_row = |third, token| (0..case.dp).map(move |c| case.get(third, token, head, c));
    let (q, q_scale) = symmetric(head_row(0, row));
    let t: Vec<f32> = (0..case.tokens)
        .map(|token| {
            let (k, k_scale) = symmetric(head_row(1, token));
            q.iter().zip(&k).map(|(q, k)| q * k).sum::<i64>() as f32 * k_scale
        })
        .collect();
    let max = t.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let r = f64::from(q_scale * SCALE);
    let p = |t: &f32| (255.0 * (f64::from(t - max) * r).exp()).round_ties_even();
    let p: Vec<f64> = t.iter().map(p).collect();
    let sum: f64 = p.iter().sum();
    let output = |channel| {
        let (v, v_scale) = symmetric((0..case.tokens).map(|token| case.get(2, token, head, channel)));
        p.iter().zip(&v).map(|(p, &v)| p * v as f64).sum::<f64>() * f64::from(v_scale) / sum
    };
    (0..case.dp).map(output).collect()
}

/// Attention in f64.
fn f64_reference(case: &Case, row: usize, head: usize) -> Vec<f64> {
    let get = |third, token, channel| f64::from(case.get(third, token, head, channel));
    let t = |token| (0..case.dp).map(|c| get(0, row, c) * get(1, token, c)).sum::<f64>() * f64::from(SCALE);
    let t: Vec<f64> = (0..case.tokens).map(t).collect();
    let max = t.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = t.iter().map(|t| (t - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    let output = |c| p.iter().enumerate().map(|(token, p)| p * get(2, token, c)).sum::<f64>() / sum;
    (0..case.dp).map(output).collect()
}

/// Largest error of `out` against `reference`, relative to the largest v.
fn error(case: &Case, out: &[F32x16], reference: fn(&Case, usize, usize) -> Vec<f64>) -> f64 {
    let mut worst = 0.0_f64;
    let largest = case.qkv.iter().flat_map(|x| x.0).fold(0.0_f32, |max, x| max.max(x.abs()));
    for row in 0..case.rows {
        for head in 0..case.heads {
            for (channel, expected) in reference(case, row, head).into_iter().enumerate() {
                let i = (row * case.heads + head) * case.dp + channel;
                worst = worst.max((f64::from(out[i / 16].0[i % 16]) - expected).abs());
            }
        }
    }
    worst / f64::from(largest)
}

fn others() -> impl Iterator<Item = Kernels> {
    Kernels::available().filter(|&kernels| kernels != Kernels::scalar())
}

fn assert_all_equal(case: &Case) -> (Vec<F32x16>, Vec<F32x16>) {
    let int8 = Kernels::scalar().run(RunInt8(case));
    let float = Kernels::scalar().run(RunF32(case));
    for kernels in others() {
        let got = kernels.run(RunInt8(case));
        // `out` holds NaNs in one test, which no comparison accepts; `out_bits` stands for it.
        let got = Int8 { out: int8.out.clone(), ..got };
        let name = kernels.name();
        assert!(got.q == int8.q && got.q_scale == int8.q_scale, "{name}: q, {}", case.name());
        assert!(got.k == int8.k && got.v == int8.v && got.sums == int8.sums, "{name}: k, v, {}", case.name());
        assert!(got.scales == int8.scales, "{name}: scales, {}", case.name());
        assert!(got.out_bits == int8.out_bits, "{name}: out, {}", case.name());
        assert!(bits(&kernels.run(RunF32(case))) == bits(&float), "{name}: f32, {}", case.name());
    }
    (int8.out, float)
}

#[test]
fn all_instruction_sets_agree_and_are_right() {
    for (tokens, heads, dp, rows) in [
        (1, 1, 16, 1),
        (5, 3, 32, 5),
        (16, 1, 64, 16),
        (17, 3, 16, 9),
        (33, 2, 48, 7),
        (50, 1, 64, 13),
        (65, 3, 32, 3),
        (197, 1, 64, 2),
        (197, 3, 64, 1),
        (40, 1, 16, 0),
    ] {
        let case = Case::new(tokens, heads, dp, rows);
        let (int8, float) = assert_all_equal(&case);
        let [formula, quantized, exact] = [
            error(&case, &int8, int8_reference),
            error(&case, &int8, f64_reference),
            error(&case, &float, f64_reference),
        ];
        assert!(formula < 2e-6, "{formula:e} {}", case.name());
        assert!(exact < 1e-5, "{exact:e} {}", case.name());
        // Sharp softmax of wide rows: what 8 bits lose, not a measure of a model.
        assert!(quantized < 0.15, "{quantized:e} {}", case.name());
    }
}

#[test]
fn zero_and_broken_rows_give_the_same_bits() {
    let mut case = Case::new(21, 1, 16, 21);
    case.qkv.iter_mut().step_by(5).for_each(|chunk| *chunk = F32x16([0.0; 16]));
    let zeros = assert_all_equal(&case).0;
    assert!(zeros.iter().flat_map(|x| x.0).all(f32::is_finite));
    for (i, broken) in [f32::NAN, f32::INFINITY, -3.0e38, 1.0e-40].into_iter().enumerate() {
        case.qkv[3 * (3 + i)].0[2] = broken;
        case.qkv[3 * (9 + i) + 1].0[4] = broken;
        case.qkv[3 * i + 2].0[4 + i] = broken;
    }
    assert_all_equal(&case);
}
