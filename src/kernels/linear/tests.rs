//! Every instruction set against the formulas of docs/numerics.md, written out one product after another, bit for bit.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::kernels::test_data::{Random, bits};
use crate::kernels::{Kernels, Op};
use crate::lanes::U8x16;

/// Which epilogue a case runs with.
#[derive(Clone, Copy, Debug)]
enum Branch {
    Store,
    Add,
    AddScaled,
}

/// One int8 layer in its plain layout.
struct Int8 {
    rows: usize,
    k: usize,
    /// `[rows][k]`.
    q: Vec<u8>,
    row_scale: Vec<f32>,
    zero: Vec<i32>,
    /// `[16 blocks][k]`.
    w: Vec<i8>,
    scale: Vec<F32x16>,
    bias: Vec<F32x16>,
    gamma: Vec<F32x16>,
    /// `[rows][blocks]`: the residual stream.
    x: Vec<F32x16>,
    blocks: Range<usize>,
    branch: Branch,
}

impl Int8 {
    fn new(rows: usize, k: usize, all_blocks: usize, blocks: Range<usize>, branch: Branch, extreme: bool) -> Self {
        let random = &mut Random::new((rows * 10_000 + k) as u64);
        let zero = |random: &mut Random| {
            if extreme { 255 } else { (random.bits() % 256) as i32 }
        };
        Self {
            rows,
            k,
            q: random.codes(rows * k, extreme),
            row_scale: (0..rows).map(|_| random.signed().abs()).collect(),
            zero: (0..rows).map(|_| zero(random)).collect(),
            w: random.weights(16 * all_blocks * k, extreme),
            scale: random.chunks(all_blocks),
            bias: random.chunks(all_blocks),
            gamma: random.chunks(blocks.len()),
            x: random.chunks(rows * blocks.len()),
            blocks,
            branch,
        }
    }

    /// The contents of the epilogue's buffer afterwards.
    fn expected(&self) -> Vec<F32x16> {
        let mut out = self.x.clone();
        for row in 0..self.rows {
            for column in 0..self.blocks.len() {
                for lane in 0..16 {
                    let (block, n) = (self.blocks.start + column, 16 * (self.blocks.start + column) + lane);
                    let (q, w) = (&self.q[row * self.k..][..self.k], &self.w[n * self.k..][..self.k]);
                    let product = |(&q, &w): (&u8, &i8)| (i64::from(q) - i64::from(self.zero[row])) * i64::from(w);
                    let acc: i64 = q.iter().zip(w).map(product).sum();
                    let sum = i32::try_from(acc).unwrap() as f32 * self.row_scale[row];
                    let y = sum.mul_add(self.scale[block].0[lane], self.bias[block].0[lane]);
                    let x = &mut out[row * self.blocks.len() + column].0[lane];
                    *x = match self.branch {
                        Branch::Store => y,
                        Branch::Add => *x + y,
                        Branch::AddScaled => self.gamma[column].0[lane].mul_add(y, *x),
                    };
                }
            }
        }
        out
    }
}

impl Op for &Int8 {
    type Output = Vec<F32x16>;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> Vec<F32x16> {
        let stride = self.k.div_ceil(16);
        let groups = self.k.next_multiple_of(8) / 4;
        // What pads a row is multiplied by zero weights; it need not be zero.
        let mut codes = vec![U8x16([0xa5; 16]); self.rows * stride];
        for (i, &q) in self.q.iter().enumerate() {
            let (row, k) = (i / self.k, i % self.k);
            codes[row * stride + k / 16].0[k % 16] = q ^ S::CODE_XOR;
        }
        let all_blocks = self.scale.len();
        let mut weights = vec![I8x16x4([0; 64]); all_blocks * groups];
        let mut sums = vec![I32x16([0; 16]); all_blocks];
        for (i, &w) in self.w.iter().enumerate() {
            let (n, k) = (i / self.k, i % self.k);
            weights[n / 16 * groups + k / 4].0[n % 16 * 4 + k % 4] = w;
            sums[n / 16].0[n % 16] += i32::from(w);
        }
        let a = Codes { codes: &codes, stride, scale: &self.row_scale, zero: &self.zero };
        // Tight, as the session hands it out.
        let (mut paired_rows, mut paired_weights) =
            (vec![U8x16([7; 16]); self.rows * groups.div_ceil(4)], vec![I8x16x4([7; 64]); groups]);
        let pairs = PairScratch { rows: &mut paired_rows, weights: &mut paired_weights };
        let weights = WeightsI8 { codes: &weights, groups, scale: &self.scale, sums: &sums, bias: &self.bias };
        let (rows, blocks, stride) = (self.rows, self.blocks.clone(), self.blocks.len());
        let mut x = self.x.clone();
        match self.branch {
            Branch::Store => {
                let epilogue = Store { out: &mut x, stride };
                LinearI8 { a, rows, weights, blocks, pairs, epilogue }.run(s);
            }
            Branch::Add => {
                let epilogue = Add { x: &mut x, stride };
                LinearI8 { a, rows, weights, blocks, pairs, epilogue }.run(s);
            }
            Branch::AddScaled => {
                let epilogue = AddScaled { x: &mut x, stride, gamma: &self.gamma };
                LinearI8 { a, rows, weights, blocks, pairs, epilogue }.run(s);
            }
        }
        x
    }
}

fn assert_int8(case: &Int8, what: &str) {
    let expected = bits(&case.expected());
    for kernels in Kernels::available() {
        assert!(bits(&kernels.run(case)) == expected, "{}: {what}", kernels.name());
    }
}

#[test]
fn int8_at_every_tile_edge() {
    for rows in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17] {
        for branch in [Branch::Store, Branch::Add, Branch::AddScaled] {
            assert_int8(&Int8::new(rows, 40, 3, 0..3, branch, false), &std::format!("{rows} rows, {branch:?}"));
        }
    }
}

#[test]
fn int8_at_every_group_edge() {
    for k in [1, 4, 8, 12, 16, 24, 40, 192, 588] {
        assert_int8(&Int8::new(9, k, 2, 0..2, Branch::Store, false), &std::format!("K = {k}"));
    }
}

#[test]
fn int8_extremes() {
    for k in [8, 64, 4096] {
        assert_int8(&Int8::new(9, k, 2, 0..2, Branch::Add, true), &std::format!("K = {k}"));
    }
}

#[test]
fn int8_some_of_the_column_blocks() {
    for blocks in [0..0, 0..1, 1..2, 1..4, 2..5, 4..5] {
        let what = std::format!("{blocks:?}");
        assert_int8(&Int8::new(7, 24, 5, blocks, Branch::AddScaled, false), &what);
    }
}

/// One f32 or f16 layer.
struct Float<'a, W> {
    rows: usize,
    k: usize,
    a: &'a [F32x16],
    weights: &'a [W],
    scale: Option<&'a [F32x16]>,
    bias: &'a [F32x16],
    blocks: Range<usize>,
}

impl<W: FloatWeights> Op for &Float<'_, W> {
    type Output = Vec<F32x16>;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> Vec<F32x16> {
        let stride = self.blocks.len();
        let mut out = vec![F32x16([f32::NAN; 16]); self.rows * stride];
        LinearFloat {
            a: self.a,
            a_stride: self.k.div_ceil(16),
            k: self.k,
            rows: self.rows,
            weights: self.weights,
            scale: self.scale,
            bias: self.bias,
            blocks: self.blocks.clone(),
            epilogue: Store { out: &mut out, stride },
        }
        .run(s);
        out
    }
}

impl<W: FloatWeights> Float<'_, W> {
    /// `widen` gives a weight's value.
    fn assert(&self, widen: impl Fn(&W, usize) -> f32) {
        let mut expected = Vec::new();
        for row in 0..self.rows {
            for block in self.blocks.clone() {
                expected.push(F32x16(core::array::from_fn(|lane| {
                    let mut acc = 0.0_f32;
                    for k in 0..self.k {
                        let x = self.a[row * self.k.div_ceil(16) + k / 16].0[k % 16];
                        acc = x.mul_add(widen(&self.weights[block * self.k + k], lane), acc);
                    }
                    let scale = self.scale.map_or(1.0, |scale| scale[block].0[lane]);
                    acc.mul_add(scale, self.bias[block].0[lane])
                })));
            }
        }
        for kernels in Kernels::available() {
            assert!(
                bits(&kernels.run(self)) == bits(&expected),
                "{}: {} rows, K = {}, blocks {:?}",
                kernels.name(),
                self.rows,
                self.k,
                self.blocks
            );
        }
    }
}

#[test]
fn float_at_every_edge() {
    let random = &mut Random::new(5);
    for (rows, k) in
        [(0_usize, 8_usize), (1, 1), (1, 588), (2, 16), (5, 17), (6, 31), (7, 32), (8, 33), (13, 48), (17, 5)]
    {
        for (all_blocks, blocks) in [(1, 0..1), (2, 0..2), (4, 1..4)] {
            let a = &random.chunks(rows * k.div_ceil(16));
            let (scale, bias) = (&random.chunks(all_blocks), &random.chunks(all_blocks));
            let weights = &random.chunks(all_blocks * k);
            let f32_layer = Float { rows, k, a, weights, scale: None, bias, blocks: blocks.clone() };
            f32_layer.assert(|w, lane| w.0[lane]);
            let half = |x: f32| half::f16::from_f32(x).to_bits();
            let weights: &Vec<F16x16> = &weights.iter().map(|w| F16x16(w.0.map(half))).collect();
            let f16_layer = Float { rows, k, a, weights, scale: Some(scale), bias, blocks };
            f16_layer.assert(|w, lane| half::f16::from_bits(w.0[lane]).to_f32());
        }
    }
}

/// One layer multiplied in f16.
struct Half<'a> {
    rows: usize,
    k: usize,
    a: &'a [F16x16],
    row_scale: &'a [f32],
    weights: &'a [F16x16],
    scale: &'a [F32x16],
    bias: &'a [F32x16],
    blocks: Range<usize>,
}

impl Op for &Half<'_> {
    type Output = Vec<F32x16>;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> Vec<F32x16> {
        let stride = self.blocks.len();
        let mut out = vec![F32x16([f32::NAN; 16]); self.rows * stride];
        LinearF16 {
            a: Halves { values: self.a, stride: self.k.div_ceil(16), scale: self.row_scale },
            rows: self.rows,
            k: self.k,
            weights: self.weights,
            scale: self.scale,
            bias: self.bias,
            blocks: self.blocks.clone(),
            epilogue: Store { out: &mut out, stride },
        }
        .run(s);
        out
    }
}

impl Half<'_> {
    /// The formula, with the fused multiply-add of f16 done in f64, where the sum of these operands is exact.
    fn expected(&self) -> Vec<F32x16> {
        let value = |bits: u16| half::f16::from_bits(bits).to_f64();
        let output = |row: usize, block: usize, lane: usize| {
            let mut sum = 0.0_f32;
            for first in (0..self.k).step_by(dot_f16::BLOCK) {
                let mut acc = half::f16::ZERO;
                for k in first..self.k.min(first + dot_f16::BLOCK) {
                    let x = value(self.a[row * self.k.div_ceil(16) + k / 16].0[k % 16]);
                    let w = value(self.weights[block * self.k + k].0[lane]);
                    acc = half::f16::from_f64(x * w + acc.to_f64());
                }
                sum += acc.to_f32();
            }
            (sum * self.row_scale[row]).mul_add(self.scale[block].0[lane], self.bias[block].0[lane])
        };
        let blocks = |row| self.blocks.clone().map(move |block| (row, block));
        let all = (0..self.rows).flat_map(blocks);
        all.map(|(row, block)| F32x16(core::array::from_fn(|lane| output(row, block, lane)))).collect()
    }
}

#[test]
fn f16_at_every_edge_on_cpus_that_compute_in_it() {
    let random = &mut Random::new(6);
    for (rows, k) in
        [(0_usize, 8_usize), (1, 1), (1, 588), (2, 16), (5, 17), (6, 31), (7, 63), (8, 64), (9, 65), (16, 200), (19, 5)]
    {
        for (all_blocks, blocks) in [(1, 0..1), (4, 1..4)] {
            // Multiples of 2^-10 below 2: their products and sums are exact in f64.
            let mut halves = |len: usize| -> Vec<F16x16> {
                let half = |x: f32| half::f16::from_f32((x * 2048.0).round() / 1024.0).to_bits();
                random.chunks(len).iter().map(|x| F16x16(x.0.map(half))).collect()
            };
            let (a, weights) = (&halves(rows * k.div_ceil(16)), &halves(all_blocks * k));
            let (scale, bias) = (&random.chunks(all_blocks), &random.chunks(all_blocks));
            let row_scale: &Vec<f32> = &(0..rows).map(|row| 0.25 * (1 << row) as f32).collect();
            let layer = Half { rows, k, a, row_scale, weights, scale, bias, blocks };
            let expected = bits(&layer.expected());
            for kernels in Kernels::available().filter(|kernels| kernels.computes_f16()) {
                assert!(bits(&kernels.run(&layer)) == expected, "{}: {rows} rows, K = {k}", kernels.name());
            }
        }
    }
}
