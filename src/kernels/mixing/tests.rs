//! Every instruction set against the formulas of docs/numerics.md, written out one product after another, bit for bit.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::kernels::Kernels;
use crate::kernels::test_data::{Random, bits};
use crate::kernels::tiles::MAX_ROWS;
use crate::layout::k8;

/// Numbers of tokens at the edges of tiles, groups and chunks, and ResMLP's.
const TOKENS: [usize; 13] = [1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 31, 196];

/// What some of x are replaced by.
const KINDS: [&[f32]; 5] = [&[], &[0.0, -0.0, 1.0e-40], &[f32::NAN, 1.0e30], &[f32::INFINITY], &[f32::NEG_INFINITY]];

struct Case {
    tokens: usize,
    blocks: usize,
    /// `[T][T]`.
    w: Vec<i8>,
    /// `[T][B]`.
    x: Vec<F32x16>,
    /// `[pad16(T)]` each.
    scale: Vec<F32x16>,
    bias: Vec<F32x16>,
    row_sum: Vec<F32x16>,
    /// `[B]` each.
    factor: Vec<F32x16>,
    offset: Vec<F32x16>,
    bias_factor: Vec<F32x16>,
}

impl Case {
    fn new(tokens: usize, blocks: usize, special: &[f32], extreme: bool) -> Self {
        let random = &mut Random::new((100 * tokens + blocks) as u64);
        let mut x = random.chunks(tokens * blocks);
        for x in x.iter_mut().flat_map(|x| &mut x.0) {
            let pick = random.bits() as usize;
            match special {
                [] => *x *= 8.0,
                _ if pick.is_multiple_of(8) => *x = special[pick / 8 % special.len()],
                _ => {}
            }
        }
        let of_tokens = tokens.div_ceil(16);
        Self {
            tokens,
            blocks,
            w: random.weights(tokens * tokens, extreme),
            x,
            scale: random.chunks(of_tokens),
            bias: random.chunks(of_tokens),
            row_sum: random.chunks(of_tokens),
            factor: random.chunks(blocks),
            offset: random.chunks(blocks),
            bias_factor: random.chunks(blocks),
        }
    }

    fn diagonals(&self, scaled: bool) -> Diagonals<'_> {
        let (bias, row_sum) = (&self.bias, &self.row_sum);
        let (offset, bias_factor) = (&self.offset, &self.bias_factor);
        Diagonals { scale: scaled.then_some(&self.scale[..]), bias, row_sum, offset, bias_factor }
    }

    fn rows<T: Copy, C>(&self, padding: T, value: impl Fn(i8) -> T, chunk: impl Fn([T; 16]) -> C) -> Vec<C> {
        let row = |row: &[i8]| {
            let mut padded = vec![padding; row.len().next_multiple_of(16)];
            padded.iter_mut().zip(row).for_each(|(to, from)| *to = value(*from));
            padded.as_chunks::<16>().0.iter().map(|values| chunk(*values)).collect::<Vec<C>>()
        };
        self.w.chunks_exact(self.tokens).flat_map(row).collect()
    }

    fn int8(&self, kernels: Kernels) -> Vec<u32> {
        let &Self { tokens, blocks, ref x, ref factor, .. } = self;
        let groups = k8(tokens) / 4;
        let mut codes = vec![I8x16x4([9; 64]); blocks * groups];
        let mut scale = vec![F32x16([f32::NAN; 16]); blocks];
        let (mut zero, mut sums) = (vec![I32x16([9; 16]); blocks], vec![I32x16([9; 16]); blocks]);
        let out = ColumnsMut { codes: &mut codes, groups, scale: &mut scale, zero: &mut zero, sums: &mut sums };
        kernels.run(PackColumns { x, tokens, factor, out });

        let mut row_sums = vec![I32x16([9; 16]); tokens.div_ceil(16)];
        for (t, row) in self.w.chunks_exact(tokens).enumerate() {
            row_sums[t / 16].0[t % 16] = row.iter().map(|w| i32::from(*w)).sum();
        }
        let mut y = vec![F32x16([0.0; 16]); tokens * blocks];
        kernels.run(MixI8 {
            rows: &self.rows(0, i8::cast_unsigned, U8x16),
            tokens,
            sums: &row_sums,
            x: Columns { codes: &codes, groups, scale: &scale, zero: &zero, sums: &sums },
            diagonals: self.diagonals(true),
            scratch: &mut vec![U8x16([7; 16]); MAX_ROWS * tokens.div_ceil(16)],
            out: &mut y,
        });
        bits(&y)
    }

    fn float<W: FloatRows>(&self, kernels: Kernels, rows: &[W], scaled: bool) -> Vec<u32> {
        let &Self { tokens, blocks, ref x, ref factor, .. } = self;
        let mut y = vec![F32x16([0.0; 16]); tokens * blocks];
        kernels.run(MixFloat {
            rows,
            tokens,
            x,
            factor,
            diagonals: self.diagonals(scaled),
            wide: &mut vec![F32x16([f32::NAN; 16]); MAX_ROWS * tokens.div_ceil(16)],
            out: &mut y,
        });
        bits(&y)
    }

    /// y, from each output's sum times its channel's factor.
    fn expected(&self, scaled: bool, product: impl Fn(usize, usize) -> f32) -> Vec<u32> {
        let mut y = vec![F32x16([0.0; 16]); self.tokens * self.blocks];
        for t in 0..self.tokens {
            for c in 0..16 * self.blocks {
                let (token, channel) = (|v: &[F32x16]| v[t / 16].0[t % 16], |v: &[F32x16]| v[c / 16].0[c % 16]);
                let bias = channel(&self.bias_factor) * token(&self.bias);
                let bias = libm::fmaf(channel(&self.offset), token(&self.row_sum), bias);
                let scale = if scaled { token(&self.scale) } else { 1.0 };
                y[t * self.blocks + c / 16].0[c % 16] = libm::fmaf(product(t, c), scale, bias);
            }
        }
        bits(&y)
    }

    fn column(&self, c: usize) -> Vec<f32> {
        self.x.chunks_exact(self.blocks).map(|row| row[c / 16].0[c % 16]).collect()
    }
}

#[test]
fn int8_is_what_the_formulas_say() {
    for (tokens, kind) in TOKENS.into_iter().flat_map(|t| KINDS.map(|kind| (t, kind))) {
        let case = Case::new(tokens, 1 + tokens % 3, kind, tokens % 2 == 1);
        // Per channel: the codes less the zero point, and the scale.
        let columns: Vec<(Vec<i64>, f32)> = (0..16 * case.blocks)
            .map(|c| {
                let x = case.column(c);
                let bound = |pick: fn(f32, f32) -> f32| x.iter().fold(0.0f32, |bound, x| pick(bound, *x));
                let (scale, inverse, zero) = asymmetric(bound(f32::min), bound(f32::max));
                let code = |x: &f32| {
                    let code = libm::fmaf(*x, inverse, zero);
                    if code > 0.0 { i64::from(libm::rintf(code.min(255.0)) as i32) } else { 0 }
                };
                // Zero, or NaN.
                let not_finite: f32 = x.iter().map(|x| x * 0.0).sum();
                (x.iter().map(|x| code(x) - zero as i64).collect(), scale + not_finite)
            })
            .collect();
        let expected = case.expected(true, |t, c| {
            let row = &case.w[t * tokens..][..tokens];
            let sum: i64 = row.iter().zip(&columns[c].0).map(|(w, q)| i64::from(*w) * q).sum();
            sum as f32 * (columns[c].1 * case.factor[c / 16].0[c % 16])
        });
        for kernels in Kernels::available() {
            assert!(case.int8(kernels) == expected, "{}: {tokens} tokens, {kind:?}", kernels.name());
        }
    }
}

#[test]
fn f32_and_f16_are_what_the_formulas_say() {
    for (tokens, kind) in TOKENS.into_iter().flat_map(|t| KINDS.map(|kind| (t, kind))) {
        let case = Case::new(tokens, 1 + tokens % 3, kind, false);
        let columns: Vec<Vec<f32>> = (0..16 * case.blocks).map(|c| case.column(c)).collect();
        // Every int8 is an f16.
        let [plain, scaled] = [false, true].map(|scaled| {
            case.expected(scaled, |t, c| {
                let row = &case.w[t * tokens..][..tokens];
                let sum = row.iter().zip(&columns[c]).fold(0.0, |sum, (w, x)| libm::fmaf(f32::from(*w), *x, sum));
                sum * case.factor[c / 16].0[c % 16]
            })
        });
        let f32_rows = case.rows(0.0, f32::from, F32x16);
        let f16_rows = case.rows(0, |w| half::f16::from_f32(f32::from(w)).to_bits(), F16x16);
        for kernels in Kernels::available() {
            let name = kernels.name();
            assert!(case.float(kernels, &f32_rows, false) == plain, "{name}: f32, {tokens} tokens, {kind:?}");
            assert!(case.float(kernels, &f16_rows, true) == scaled, "{name}: f16, {tokens} tokens, {kind:?}");
        }
    }
}
