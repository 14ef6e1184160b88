//! Weights as a model file stores them; docs/numerics.md, "Weights, int8" and "Weights, f16".
//!
//! Codes are still row by row here, `[n, k]`; `pack` puts them into the kernels' order.

use half::f16;
use serde::Serialize;
use vitlet::parts::Branch;

use crate::diagonal;
use crate::error::Error;
use crate::network::Linear;
use crate::options::WeightScale;

/// A linear layer with its values as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// `[n, k]`.
    pub values: Values,
    /// `[n]`; empty for f32.
    pub scale: Vec<f32>,
    /// `[n]`.
    pub bias: Vec<f32>,
}

/// Values in one of the three precisions.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Codes in [-127, 127] with the sum of each row.
    Int8 {
        /// `[n, k]`.
        codes: Vec<i8>,
        /// `[n]`.
        sums: Vec<i32>,
    },
    /// `[n, k]`.
    F16(Vec<f16>),
    /// `[n, k]`.
    F32(Vec<f32>),
}

/// Codes `clamp(rne(W / s), -127, 127)`, `s = m / 127`.
pub fn quantize_int8(linear: &Linear, weight_scale: WeightScale) -> Packed {
    let mut maxima: Vec<f32> = linear.rows().map(max_abs).collect();
    if weight_scale == WeightScale::PerTensor {
        let all = max_abs(&maxima);
        maxima.fill(all);
    }
    let scale: Vec<f32> = maxima.iter().map(|m| m / 127.0).collect();
    let mut codes = Vec::with_capacity(linear.weight.len());
    let mut sums = Vec::with_capacity(linear.n);
    for (row, &s) in linear.rows().zip(&scale) {
        let start = codes.len();
        // A row of zeros, or one so small that its scale is zero in f32, has zero codes.
        codes.extend(row.iter().map(|w| if s == 0.0 { 0 } else { code(w / s) }));
        sums.push(codes[start..].iter().map(|&c| i32::from(c)).sum());
    }
    Packed { n: linear.n, k: linear.k, values: Values::Int8 { codes, sums }, scale, bias: linear.bias.clone() }
}

/// Rounds to the nearest code, ties to even: adding 1.5 * 2^23 leaves no bits below the point.
fn code(quotient: f32) -> i8 {
    const ROUND: f32 = 12_582_912.0;
    ((quotient.clamp(-127.0, 127.0) + ROUND) - ROUND) as i8
}

/// `h = f16(W / s)` with the power of two `s` that puts each row's largest value into [1, 2).
pub fn quantize_f16(linear: &Linear) -> Packed {
    let scale: Vec<f32> = linear.rows().map(|row| power_of_two(max_abs(row))).collect();
    let mut values = Vec::with_capacity(linear.weight.len());
    for (row, s) in linear.rows().zip(&scale) {
        values.extend(row.iter().map(|w| f16::from_f32(w / s)));
    }
    Packed { n: linear.n, k: linear.k, values: Values::F16(values), scale, bias: linear.bias.clone() }
}

/// `h = f16(W)` with scale 1: what folding into f16 weights does.
///
/// # Errors
/// A weight that overflows f16.
pub fn quantize_f16_unscaled(linear: &Linear) -> Result<Packed, Error> {
    let values: Vec<f16> = linear.weight.iter().map(|w| f16::from_f32(*w)).collect();
    match values.iter().position(|h| h.is_infinite()) {
        Some(at) => {
            let why = format!("weight {} overflows f16; --layerscale fold keeps it in the scale", linear.weight[at]);
            Err(Error::new("--layerscale fold-weights", why))
        }
        None => Ok(Packed {
            n: linear.n,
            k: linear.k,
            values: Values::F16(values),
            scale: vec![1.0; linear.n],
            bias: linear.bias.clone(),
        }),
    }
}

/// The weights as they are.
pub fn keep_f32(linear: Linear) -> Packed {
    Packed { n: linear.n, k: linear.k, values: Values::F32(linear.weight), scale: Vec::new(), bias: linear.bias }
}

/// `diag(d) (W x + b)` after quantization: |d| into the scale, the sign into int8 codes (whose scales must not be
/// negative) or into the scale of f16, d into the bias.
///
/// # Panics
/// For f32 values, which have no scale: use [`diagonal::scale_rows`].
pub fn fold_into_scale(packed: &mut Packed, d: &[f32]) {
    match &mut packed.values {
        Values::Int8 { codes, sums } => {
            let rows = codes.chunks_exact_mut(packed.k).zip(sums);
            for ((row, sum), _) in rows.zip(d).filter(|(_, g)| **g < 0.0) {
                row.iter_mut().for_each(|code| *code = -*code);
                *sum = -*sum;
            }
            packed.scale.iter_mut().zip(d).for_each(|(s, g)| *s *= g.abs());
        }
        Values::F16(_) => diagonal::scale(&mut packed.scale, d),
        Values::F32(_) => panic!("f32 weights have no scale"),
    }
    diagonal::scale(&mut packed.bias, d);
}

/// The largest power of two that is not above `x` (1 for zero; 2^-126 for the denormal).
fn power_of_two(x: f32) -> f32 {
    match x.to_bits() >> 23 {
        _ if x == 0.0 => 1.0,
        0 => f32::MIN_POSITIVE,
        exponent => f32::from_bits(exponent << 23),
    }
}

fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, w| m.max(w.abs()))
}

/// What quantization did to the weights of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damage {
    /// Signal to noise in dB, over all weights; infinite where nothing was lost.
    pub sqnr_db: f64,
    /// Weights that are not zero and became zero in f16.
    pub f16_underflows: usize,
}

impl Damage {
    /// Every weight is stored as it is.
    pub const NONE: Self = Self { sqnr_db: f64::INFINITY, f16_underflows: 0 };
}

/// Compares a layer as stored with `diag(gamma) W` (`W` where there is no gamma).
pub fn damage(packed: &Packed, linear: &Linear, gamma: Option<&[f32]>) -> Damage {
    let (mut signal, mut noise, mut f16_underflows) = (0.0, 0.0, 0);
    for (n, row) in linear.rows().enumerate() {
        let at = n * packed.k;
        let g = gamma.map_or(1.0, |g| f64::from(g[n]));
        let mut add = |k: usize, stored: f64| {
            let want = f64::from(row[k]) * g;
            signal += want * want;
            noise += (want - stored) * (want - stored);
        };
        match &packed.values {
            Values::Int8 { codes, .. } => {
                let s = f64::from(packed.scale[n]);
                codes[at..at + packed.k].iter().enumerate().for_each(|(k, &c)| add(k, f64::from(c) * s));
            }
            Values::F16(values) => {
                let s = f64::from(packed.scale[n]);
                let values = &values[at..at + packed.k];
                values.iter().enumerate().for_each(|(k, &h)| add(k, h.to_f64() * s));
                f16_underflows += row.iter().zip(values).filter(|(w, h)| **w != 0.0 && h.to_f32() == 0.0).count();
            }
            Values::F32(values) => {
                values[at..at + packed.k].iter().enumerate().for_each(|(k, &w)| add(k, f64::from(w)));
            }
        }
    }
    let sqnr_db = if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() };
    Damage { sqnr_db, f16_underflows }
}

/// What became of one matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinearReport {
    /// Its name in the file.
    pub name: String,
    /// Outputs.
    pub outputs: usize,
    /// Inputs.
    pub inputs: usize,
    /// Signal to quantization noise of the weights as they act (gamma included where it is folded); `None` where
    /// nothing was lost.
    pub sqnr_db: Option<f64>,
    /// Weights that are not zero and became zero in f16.
    pub f16_underflows: usize,
    /// Output channels without any weight.
    pub zero_rows: usize,
    /// The branch that it ends, if it does.
    #[serde(skip)]
    pub ends: Option<Branch>,
}

impl LinearReport {
    /// For a matrix that has lost nothing yet.
    pub(crate) fn new(name: &str, linear: &Linear) -> Self {
        Self {
            name: name.to_owned(),
            outputs: linear.n,
            inputs: linear.k,
            sqnr_db: None,
            f16_underflows: 0,
            zero_rows: linear.rows().filter(|row| row.iter().all(|w| *w == 0.0)).count(),
            ends: None,
        }
    }

    /// What its stored values lost.
    pub(crate) fn lost(self, loss: Damage) -> Self {
        let sqnr_db = loss.sqnr_db.is_finite().then_some(loss.sqnr_db);
        Self { sqnr_db, f16_underflows: loss.f16_underflows, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(k: usize, weight: &[f32]) -> Linear {
        let n = weight.len() / k;
        Linear { n, k, weight: weight.to_vec(), bias: vec![0.0; n] }
    }

    fn codes(p: &Packed) -> (&[i8], &[i32]) {
        match &p.values {
            Values::Int8 { codes, sums } => (codes, sums),
            _ => panic!("int8 values"),
        }
    }

    #[test]
    fn codes_round_to_even_and_stay_within_127() {
        // scale 1: 126.5 and 0.5 are ties, -127 is the end of the range
        let p = quantize_int8(&linear(6, &[126.5, 0.5, 1.5, -2.5, -127.0, 2.4999998]), WeightScale::PerChannel);
        assert_eq!(codes(&p), (&[126, 0, 2, -2, -127, 2][..], &[1][..]));
        assert_eq!(p.scale, [1.0]);
    }

    #[test]
    fn scales_per_channel_and_per_tensor() {
        let l = linear(2, &[2.0, -0.9, 0.0, 0.0, 0.02, 0.009]);
        let channel = quantize_int8(&l, WeightScale::PerChannel);
        assert_eq!(channel.scale, [2.0 / 127.0, 0.0, 0.02 / 127.0]);
        assert_eq!(codes(&channel).0, [127, -57, 0, 0, 127, 57]);
        let tensor = quantize_int8(&l, WeightScale::PerTensor);
        assert_eq!(tensor.scale, [2.0 / 127.0; 3]);
        assert_eq!(codes(&tensor).0, [127, -57, 0, 0, 1, 1]);
    }

    #[test]
    fn a_scale_that_underflows_gives_zero_codes() {
        let p = quantize_int8(&linear(1, &[f32::from_bits(3)]), WeightScale::PerChannel);
        assert_eq!((p.scale[0], codes(&p).0[0]), (0.0, 0));
    }

    #[test]
    fn f16_scales_are_exact_powers_of_two() {
        let l = linear(2, &[3.0, 1e-6, 1e-30, 5e-31, 0.0, 0.0, 1e30, -1e29]);
        let p = quantize_f16(&l);
        let Values::F16(h) = &p.values else { panic!("f16 values") };
        assert_eq!((p.scale[0], p.scale[2]), (2.0, 1.0));
        for (n, row) in l.rows().enumerate() {
            let m = max_abs(row);
            assert!(m == 0.0 || (1.0..2.0).contains(&(m / p.scale[n])), "row {n}");
        }
        assert_eq!(h[0].to_f32(), 1.5);
        assert!((h[3].to_f32() * p.scale[1] / 5e-31 - 1.0).abs() < 1e-3);
        assert!(quantize_f16_unscaled(&l).is_err(), "1e30 overflows");
    }

    #[test]
    fn damage_counts_noise_and_underflows() {
        let l = linear(2, &[1.0, 0.5, 1e-3, 2e-3]);
        let gamma = [1.0, 1e-6];
        assert_eq!(damage(&keep_f32(l.clone()), &l, None).sqnr_db, f64::INFINITY);

        let mut scaled = l.clone();
        diagonal::scale_rows(&mut scaled, &gamma);
        let p = quantize_f16_unscaled(&scaled).expect("no overflow");
        assert_eq!(damage(&p, &scaled, None).f16_underflows, 2);

        // 127.5 and 1 at scale 1: the error is exactly known
        let l = linear(2, &[127.0, 0.5]);
        let d = damage(&quantize_int8(&l, WeightScale::PerChannel), &l, None);
        assert!((d.sqnr_db - 10.0 * ((127.0f64 * 127.0 + 0.25) / 0.25).log10()).abs() < 1e-9);
    }

    const GAMMA: [f32; 3] = [0.5, -1e-7, 0.0];

    fn with_bias() -> Linear {
        let weight = [1.0, -0.4, 0.25, 0.9, -127.0, 3.0, -2.0, 0.1, 0.3, 0.2, 0.6, -0.7];
        Linear { bias: vec![1.0, 2.0, -3.0], ..linear(4, &weight) }
    }

    #[test]
    fn folding_int8_keeps_the_codes_up_to_sign() {
        let plain = quantize_int8(&with_bias(), WeightScale::PerChannel);
        let mut folded = quantize_int8(&with_bias(), WeightScale::PerChannel);
        fold_into_scale(&mut folded, &GAMMA);
        let (Values::Int8 { codes: p, sums: ps }, Values::Int8 { codes: f, sums: fs }) =
            (&plain.values, &folded.values)
        else {
            panic!("int8 values")
        };
        assert_eq!(p[..4], f[..4]);
        assert!(p[4..8].iter().zip(&f[4..8]).all(|(p, f)| *p == -*f));
        assert_eq!((ps[0], ps[1]), (fs[0], -fs[1]));
        assert_eq!(folded.scale, [plain.scale[0] * 0.5, plain.scale[1] * 1e-7, 0.0]);
        assert_eq!(folded.bias, [0.5, 2.0 * -1e-7, -0.0]);
    }

    #[test]
    fn folding_f16_keeps_the_halves() {
        let plain = quantize_f16(&with_bias());
        let mut folded = quantize_f16(&with_bias());
        fold_into_scale(&mut folded, &GAMMA);
        assert_eq!(plain.values, folded.values);
        assert_eq!(folded.scale[1], plain.scale[1] * -1e-7);
    }
}
