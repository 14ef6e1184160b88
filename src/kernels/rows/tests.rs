//! Every op on every instruction set against `scalar`, bit for bit (any NaN equals any NaN), and `scalar` against the
//! formulas in f64.

use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::kernels::Kernels;

/// RMSNorm of every row.
type RmsNorm<'a> = RowNorm<'a, false>;
type RmsNormQuantize<'a, E> = RowNormQuantize<'a, E, false>;

/// Widths at the edges of a chunk, and the widths of DeiT-Tiny.
const WIDTHS: [usize; 9] = [1, 15, 16, 17, 31, 48, 192, 197, 768];

/// What a test row holds: ordinary values, or ordinary ones with a few of these among them.
const KINDS: [&[f32]; 7] = [
    &[],
    &[0.0, -0.0, 1.0e-40, -1.0e-40],
    &[3.0e38, -3.0e38],
    &[f32::NAN],
    &[f32::INFINITY],
    &[f32::NEG_INFINITY, f32::NAN],
    &[1.0e-32, -1.0e-31],
];

fn random(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*seed >> 40) as f32 / 8_388_608.0 - 1.0) * 4.0
}

/// `[rows, n]` as chunks, zero-padded. `special` values replace about one in eight, and all where they are tiny.
fn matrix(rows: usize, n: usize, special: &[f32], seed: &mut u64) -> Vec<F32x16> {
    let chunks = n.div_ceil(16);
    let mut x = vec![F32x16([0.0; 16]); rows * chunks];
    for row in 0..rows {
        for k in 0..n {
            let value = random(seed);
            let pick = (value.to_bits() >> 3) as usize;
            let tiny = special.contains(&1.0e-32);
            x[row * chunks + k / 16].0[k % 16] = match special {
                [] => value,
                _ if tiny || pick.is_multiple_of(8) => special[pick / 8 % special.len()],
                _ => value,
            };
        }
    }
    x
}

fn value(x: &[F32x16], row: usize, chunks: usize, k: usize) -> f32 {
    x[row * chunks + k / 16].0[k % 16]
}

/// Codes as u8 whatever the instruction set stores, scales and zero points as bits.
#[derive(PartialEq, Debug)]
struct Quantized {
    codes: Vec<u8>,
    scale: Vec<u32>,
    zero: Vec<i32>,
}

const ROWS: usize = 3;

/// Runs `op` with room for three rows of `chunks` chunks, one chunk of stride beyond, and reads the codes back.
fn quantized(kernels: Kernels, chunks: usize, op: impl FnOnce(CodesMut)) -> Quantized {
    let stride = chunks + 1;
    let mut codes = vec![U8x16([0x55; 16]); ROWS * stride];
    let (mut scale, mut zero) = (vec![f32::NAN; ROWS], vec![-1; ROWS]);
    op(CodesMut { codes: &mut codes, stride, scale: &mut scale, zero: &mut zero });
    let flip = if kernels.name().starts_with("neon") { 0x80 } else { 0 };
    for row in codes.chunks_exact_mut(stride) {
        let (past, written) = row.split_last_mut().unwrap();
        assert_eq!(past.0, [0x55; 16], "chunks past the row stay as they are");
        for code in written.iter_mut().flat_map(|chunk| &mut chunk.0) {
            *code ^= flip;
        }
    }
    Quantized {
        codes: codes.iter().flat_map(|chunk| chunk.0).collect(),
        scale: scale.iter().map(|&scale| one_nan(scale)).collect(),
        zero,
    }
}

fn bits(x: &[F32x16]) -> Vec<u32> {
    x.iter().flat_map(|chunk| chunk.0.map(one_nan)).collect()
}

/// The bits, one pattern for every NaN.
fn one_nan(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

/// Calls `compute` for every instruction set and demands the result of `scalar`.
fn same_everywhere<T: PartialEq + core::fmt::Debug>(what: &str, mut compute: impl FnMut(Kernels) -> T) {
    let expected = compute(Kernels::scalar());
    for kernels in Kernels::available() {
        assert!(compute(kernels) == expected, "{} differs: {what}", kernels.name());
    }
}

/// Every width, with every kind of special value, named.
fn cases() -> impl Iterator<Item = (usize, &'static [f32], String)> {
    WIDTHS.into_iter().flat_map(|n| KINDS.into_iter().map(move |kind| (n, kind, format!("n = {n}, {kind:?}"))))
}

#[test]
fn quantize_is_the_same_everywhere() {
    let mut seed = 1;
    for (n, kind, what) in cases() {
        let chunks = n.div_ceil(16);
        let x = matrix(ROWS, n, kind, &mut seed);
        same_everywhere(&what, |kernels| {
            quantized(kernels, chunks, |out| kernels.run(Quantize { x: &x, chunks, out }))
        });
    }
}

#[test]
fn layer_norm_is_the_same_everywhere() {
    let mut seed = 2;
    for (n, kind, what) in cases() {
        let chunks = n.div_ceil(16);
        let x = matrix(ROWS, n, kind, &mut seed);
        let (weight, bias) = (&matrix(1, n, &[], &mut seed), &matrix(1, n, &[], &mut seed));
        let eps = 1.0e-6;
        same_everywhere(&what, |kernels| {
            let mut out = vec![F32x16([7.0; 16]); x.len()];
            kernels.run(LayerNorm { x: &x, weight, bias, n, eps, out: &mut out });
            let together = quantized(kernels, chunks, |out| {
                let row = &mut vec![F32x16([0.0; 16]); chunks];
                kernels.run(LayerNormQuantize { x: &x, weight, bias, n, eps, row, out });
            });
            let apart = quantized(kernels, chunks, |codes| kernels.run(Quantize { x: &out, chunks, out: codes }));
            assert_eq!(together, apart, "{}: {what}", kernels.name());
            (bits(&out), together)
        });
    }
}

#[test]
fn rms_norm_is_the_same_everywhere() {
    let mut seed = 8;
    for (n, kind, what) in cases() {
        let chunks = n.div_ceil(16);
        let x = matrix(ROWS, n, kind, &mut seed);
        let (weight, bias) = (&matrix(1, n, &[], &mut seed), &matrix(1, n, &[], &mut seed));
        let eps = 1.0e-6;
        same_everywhere(&what, |kernels| {
            let mut out = vec![F32x16([7.0; 16]); x.len()];
            kernels.run(RmsNorm { x: &x, weight, bias, n, eps, out: &mut out });
            let together = quantized(kernels, chunks, |out| {
                let row = &mut vec![F32x16([0.0; 16]); chunks];
                kernels.run(RmsNormQuantize { x: &x, weight, bias, n, eps, row, out });
            });
            let apart = quantized(kernels, chunks, |codes| kernels.run(Quantize { x: &out, chunks, out: codes }));
            assert_eq!(together, apart, "{}: {what}", kernels.name());
            (bits(&out), together)
        });
    }
}

/// Norm and rounding to f16 in one step give the same as one after the other.
#[test]
fn norms_are_rounded_to_f16_as_any_rows() {
    fn halves(chunks: usize, op: impl FnOnce(HalvesMut)) -> (Vec<[u16; 16]>, Vec<u32>) {
        let (mut values, mut scale) = (vec![F16x16([0x5555; 16]); ROWS * chunks], vec![f32::NAN; ROWS]);
        op(HalvesMut { values: &mut values, stride: chunks, scale: &mut scale });
        (values.iter().map(|chunk| chunk.0).collect(), scale.iter().map(|scale| scale.to_bits()).collect())
    }
    let mut seed = 9;
    for kernels in Kernels::available().filter(|kernels| kernels.computes_f16()) {
        for n in WIDTHS {
            let (chunks, eps) = (n.div_ceil(16), 1.0e-6);
            let x = matrix(ROWS, n, &[], &mut seed);
            let (weight, bias) = (&matrix(1, n, &[], &mut seed), &matrix(1, n, &[], &mut seed));
            let (mut layer, mut rms) = (x.clone(), x.clone());
            kernels.run(LayerNorm { x: &x, weight, bias, n, eps, out: &mut layer });
            kernels.run(RmsNorm { x: &x, weight, bias, n, eps, out: &mut rms });
            let apart = |x| halves(chunks, |out| kernels.run(Quantize { x, chunks, out }));
            let row = &mut vec![F32x16([0.0; 16]); chunks];
            let together =
                halves(chunks, |out| kernels.run(LayerNormQuantize { x: &x, weight, bias, n, eps, row, out }));
            assert_eq!(together, apart(&layer), "{} n = {n}", kernels.name());
            let row = &mut vec![F32x16([0.0; 16]); chunks];
            let together = halves(chunks, |out| kernels.run(RmsNormQuantize { x: &x, weight, bias, n, eps, row, out }));
            assert_eq!(together, apart(&rms), "{} n = {n}", kernels.name());
        }
    }
}

#[test]
fn activate_scale_and_add_are_the_same_everywhere() {
    let mut seed = 3;
    for (n, kind, what) in cases() {
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::GeluQuick, Activation::SwiGlu] {
            let (chunks, out_chunks) = match activation {
                Activation::SwiGlu => (2 * n.div_ceil(16), n.div_ceil(16)),
                _ => (n.div_ceil(16), n.div_ceil(16)),
            };
            let x = matrix(ROWS, 16 * chunks, kind, &mut seed);
            let gamma = &matrix(1, 16 * chunks, &[], &mut seed);
            same_everywhere(&format!("{activation:?}, {what}"), |kernels| {
                let (mut alone, mut with_codes) = (x.clone(), x.clone());
                kernels.run(Activate { x: &mut alone, chunks, activation });
                let together = quantized(kernels, out_chunks, |out| {
                    kernels.run(ActivateQuantize { x: &mut with_codes, chunks, activation, out });
                });
                assert_eq!(bits(&alone), bits(&with_codes), "{}: {what}", kernels.name());
                let apart = quantized(kernels, out_chunks, |out| {
                    let rows = alone.chunks_exact(chunks).flat_map(|row| &row[..out_chunks]);
                    let x = &rows.copied().collect::<Vec<_>>();
                    kernels.run(Quantize { x, chunks: out_chunks, out });
                });
                assert_eq!(together, apart, "{}: {what}", kernels.name());
                kernels.run(Scale { y: &mut alone, gamma });
                kernels.run(AddRows { x: &mut alone, y: &x, gamma: None });
                kernels.run(AddRows { x: &mut alone, y: &x, gamma: Some(gamma) });
                kernels.run(Affine { x: &mut alone, factor: gamma, offset: &x[..chunks] });
                (bits(&alone), together)
            });
        }
    }
}

#[test]
fn kept_channels_are_added_in_their_order() {
    let mut seed = 4;
    for (n, kind, what) in cases() {
        for share in [0, 1, 8, 15, 16] {
            let keeps: Vec<bool> = (0..n).map(|_| ((random(&mut seed) + 4.0) * 2.0) < share as f32).collect();
            let kept: Vec<[u8; 2]> = keeps
                .chunks(16)
                .map(|bits| bits.iter().rev().fold(0, |mask: u16, &bit| mask << 1 | u16::from(bit)).to_le_bytes())
                .collect();
            let channels: Vec<usize> = (0..n).filter(|&channel| keeps[channel]).collect();
            let (x, y) = (matrix(ROWS, n, &[], &mut seed), matrix(ROWS, channels.len(), kind, &mut seed));
            same_everywhere(&format!("{what}, {} of {n}", channels.len()), |kernels| {
                let mut sum = x.clone();
                kernels.run(AddKept { x: &mut sum, y: &y, kept: &kept });
                bits(&sum)
            });
            let (mut sum, mut expected) = (x.clone(), x);
            Kernels::scalar().run(AddKept { x: &mut sum, y: &y, kept: &kept });
            for row in 0..ROWS {
                for (i, &channel) in channels.iter().enumerate() {
                    let y = value(&y, row, channels.len().div_ceil(16), i);
                    expected[row * kept.len() + channel / 16].0[channel % 16] += y;
                }
            }
            assert_eq!(bits(&sum), bits(&expected), "{what}, {} of {n}", channels.len());
        }
    }
}

#[test]
fn branches_are_added_with_their_factor_fused() {
    let (mut x, y, gamma) = ([F32x16([0.3; 16]); 4], [F32x16([-1.7; 16]); 4], [F32x16([1.1; 16]), F32x16([0.0; 16])]);
    Kernels::scalar().run(AddRows { x: &mut x, y: &y, gamma: Some(&gamma) });
    assert_eq!((x[2].0[5], x[3].0[5]), (libm::fmaf(1.1, -1.7, 0.3), 0.3));
    Kernels::scalar().run(AddRows { x: &mut x, y: &y, gamma: None });
    assert_eq!(x[1].0[0], 0.3 - 1.7);
    Kernels::scalar().run(Affine { x: &mut x, factor: &gamma, offset: &y[..2] });
    assert_eq!(x[1].0[0], -1.7);
}

#[test]
fn codes_give_the_values_back() {
    let (n, mut seed) = (197_usize, 4);
    let chunks = n.div_ceil(16);
    let x = matrix(ROWS, n, &[], &mut seed);
    let kernels = Kernels::scalar();
    let q = quantized(kernels, chunks, |out| kernels.run(Quantize { x: &x, chunks, out }));
    for row in 0..ROWS {
        let (scale, zero) = (f32::from_bits(q.scale[row]), q.zero[row]);
        let codes = &q.codes[row * 16 * (chunks + 1)..][..n];
        for (k, &code) in codes.iter().enumerate() {
            let back = scale * (i32::from(code) - zero) as f32;
            let error = (back - value(&x, row, chunks, k)).abs();
            // Half a step; at the ends of the range the rounded zero point may cost another half.
            assert!(error <= 1.001 * scale, "row {row}, k {k}: {error} with scale {scale}");
            assert!(error <= 0.501 * scale || code == 0 || code == 255, "row {row}, k {k}: {error}, scale {scale}");
        }
        assert_eq!((codes.iter().min(), codes.iter().max()), (Some(&0), Some(&255)), "the whole range is used");
    }
}

#[test]
fn constant_and_one_sided_rows_quantize_as_written() {
    let kernels = Kernels::scalar();
    let of = |x: [f32; 16]| {
        let x = [F32x16(x); ROWS];
        let q = quantized(kernels, 1, |out| kernels.run(Quantize { x: &x, chunks: 1, out }));
        (f32::from_bits(q.scale[0]), q.zero[0], q.codes[0])
    };
    assert_eq!(of([0.0; 16]), (0.0, 0, 0));
    assert_eq!(of([2.55; 16]), (2.55 / 255.0, 0, 255));
    assert_eq!(of([-2.55; 16]), (2.55 / 255.0, 255, 0));
    assert_eq!(of([1.0e-31; 16]), (0.0, 0, 0), "a range below 1e-30 counts as none");
}

/// A code cannot say that a value is not finite, so the scale does.
#[test]
fn rows_that_are_not_finite_have_a_scale_that_is_not() {
    for kernels in Kernels::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 7, 16, 40, 47] {
                let mut x = [F32x16([1.0; 16]); 3 * ROWS];
                x[3 + at / 16].0[at % 16] = bad;
                let q = quantized(kernels, 3, |out| kernels.run(Quantize { x: &x, chunks: 3, out }));
                let finite: Vec<_> = q.scale.iter().map(|&scale| f32::from_bits(scale).is_finite()).collect();
                assert_eq!(finite, (0..ROWS).map(|row| row != 1).collect::<Vec<_>>(), "{} {bad}", kernels.name());
            }
        }
    }
}

#[test]
fn layer_norm_equals_the_formula_in_f64() {
    let mut seed = 5;
    for n in WIDTHS {
        let chunks = n.div_ceil(16);
        let x = matrix(ROWS, n, &[], &mut seed);
        let (weight, bias) = (&matrix(1, n, &[], &mut seed), &matrix(1, n, &[], &mut seed));
        let mut out = vec![F32x16([7.0; 16]); x.len()];
        Kernels::scalar().run(LayerNorm { x: &x, weight, bias, n, eps: 1.0e-3, out: &mut out });
        for row in 0..ROWS {
            let of = |k| f64::from(value(&x, row, chunks, k));
            let mean = (0..n).map(of).sum::<f64>() / n as f64;
            let variance = (0..n).map(|k| (of(k) - mean).powi(2)).sum::<f64>() / n as f64;
            for k in 0..16 * chunks {
                let (w, b) = (f64::from(value(weight, 0, chunks, k)), f64::from(value(bias, 0, chunks, k)));
                let exact = if k < n { (of(k) - mean) / (variance + 1.0e-3).sqrt() * w + b } else { 0.0 };
                let error = (f64::from(value(&out, row, chunks, k)) - exact).abs();
                assert!(error < 1.0e-5, "n = {n}, k = {k}: {error:e}");
            }
        }
    }
}

#[test]
fn rms_norm_equals_the_formula_in_f64() {
    let mut seed = 10;
    for n in WIDTHS {
        let chunks = n.div_ceil(16);
        let x = matrix(ROWS, n, &[], &mut seed);
        let (weight, bias) = (&matrix(1, n, &[], &mut seed), &matrix(1, n, &[], &mut seed));
        let mut out = vec![F32x16([7.0; 16]); x.len()];
        Kernels::scalar().run(RmsNorm { x: &x, weight, bias, n, eps: 1.0e-3, out: &mut out });
        for row in 0..ROWS {
            let of = |k| f64::from(value(&x, row, chunks, k));
            let mean = (0..n).map(|k| of(k).powi(2)).sum::<f64>() / n as f64;
            for k in 0..16 * chunks {
                let (w, b) = (f64::from(value(weight, 0, chunks, k)), f64::from(value(bias, 0, chunks, k)));
                let exact = if k < n { of(k) / (mean + 1.0e-3).sqrt() * w + b } else { 0.0 };
                let error = (f64::from(value(&out, row, chunks, k)) - exact).abs();
                assert!(error < 5.0e-6, "n = {n}, k = {k}: {error:e}");
            }
        }
    }
}

/// A row of one value: the order of the operations, written out.
#[test]
fn rms_norm_rounds_in_the_stated_order() {
    let (x, weight, bias, eps) = (1.7_f32, -3.3_f32, 0.1_f32, 1.0e-6_f32);
    let row = |value| [F32x16(core::array::from_fn(|lane| if lane == 0 { value } else { 0.0 }))];
    let mut out = [F32x16([7.0; 16])];
    let (x_row, weight_row, bias_row) = (row(x), row(weight), row(bias));
    let norm = RmsNorm { x: &x_row, weight: &weight_row, bias: &bias_row, n: 1, eps, out: &mut out };
    Kernels::scalar().run(norm);
    assert_eq!(out[0].0[0], libm::fmaf(x * (1.0 / libm::sqrtf(x * x + eps)), weight, bias));
}

#[test]
fn swiglu_multiplies_up_by_the_gated_half() {
    let mut x = [F32x16([1.5; 16]), F32x16([-2.0; 16])];
    Kernels::scalar().run(Activate { x: &mut x, chunks: 2, activation: Activation::SwiGlu });
    let exact = -2.0 * 1.5 / (1.0 + libm::exp(-1.5));
    assert!((f64::from(x[0].0[3]) - exact).abs() < 1.0e-6);
}

#[test]
#[should_panic(expected = "too few codes")]
fn too_small_an_output_is_refused() {
    let (mut codes, mut scale, mut zero) = ([U8x16([0; 16])], [0.0; 2], [0; 2]);
    let out = CodesMut { codes: &mut codes, stride: 1, scale: &mut scale, zero: &mut zero };
    Kernels::scalar().run(Quantize { x: &[F32x16([0.0; 16]); 2], chunks: 1, out });
}

#[test]
fn rows_of_f16_have_a_power_of_two_taken_out() {
    let mut seed = 7;
    for kernels in Kernels::available().filter(|kernels| kernels.computes_f16()) {
        for (n, kind, what) in cases() {
            let chunks = n.div_ceil(16);
            let x = matrix(ROWS, n, kind, &mut seed);
            let stride = chunks + 1;
            let (mut values, mut scale) = (vec![F16x16([0x5555; 16]); ROWS * stride], vec![f32::NAN; ROWS]);
            let out = HalvesMut { values: &mut values, stride, scale: &mut scale };
            kernels.run(Quantize { x: &x, chunks, out });
            for row in 0..ROWS {
                let max = (0..n).map(|k| value(&x, row, chunks, k).abs()).fold(0.0, f32::max);
                let usable = (1.0e-30..1.0e38).contains(&max);
                let expected_scale = match usable {
                    true => max.log2().floor().exp2(),
                    false if max < 1.0e-30 => 0.0,
                    false => f32::INFINITY,
                };
                assert_eq!(scale[row], expected_scale, "{what}");
                for k in 0..n {
                    let got = half::f16::from_bits(values[row * stride + k / 16].0[k % 16]);
                    let unit = value(&x, row, chunks, k) * if usable { 1.0 / expected_scale } else { 0.0 };
                    let expected = half::f16::from_f32(unit);
                    assert!(got == expected || got.is_nan() && expected.is_nan(), "{what}: {got} {expected}");
                }
                assert_eq!(values[row * stride + chunks].0, [0x5555; 16], "chunks past the row stay as they are");
            }
        }
    }
}
