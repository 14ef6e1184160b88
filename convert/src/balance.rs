//! Balanced channels: how a function is written must not decide how well int8 computes it.
//!
//! Where two sizes meet channel by channel (a norm's output and the columns of the matrix that reads it, v and the
//! projection, q and k), one may be multiplied by t and the other divided by t. The function stays the same, but its 8
//! bits do not: a row of activations has one step for all channels, and so has a row of weights, so a channel that is
//! large on one side makes every other channel coarse. Both sizes are estimated from the weights alone, and factors are
//! powers of two, so that they change no bit of what f32 computes (docs/numerics.md).
//!
//! No factor passes GELU or the residual stream. The last norm's output is the model's features, which stay what they
//! are: there the factors are stored, and act on what the head reads.

use serde::Serialize;
use vitlet::Activation;
use vitlet::networks::{Part, for_each_part};

use crate::diagonal::{scale_columns, scale_norm, scale_rows};
use crate::error::Error;
use crate::network::{Block, Downsampling, Layer, Linear, Mlp, Network, Norm, Tail};
use crate::plan::outputs;

/// A place is balanced where the estimated error falls by more than this factor; elsewhere nothing is touched.
const GAIN: f64 = 1.2;

/// Step of 8 bits as a part of the largest value, and the error of rounding as a part of the step.
const ROUNDING: f64 = 2.0 / 255.0 / 3.464_101_615;

/// What was balanced at one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BalanceReport {
    /// Where: `blk.3`, `stage.1` for the downsampling before ConvNeXt's stages, or `head`.
    pub at: String,
    /// The channels' name: `norm1`, `qk`, `v`, `norm2`, `up` (of SwiGLU), `norm` (of downsampling), `features` (before
    /// the head).
    pub channels: &'static str,
    /// Channels whose factor is not 1.
    pub changed: usize,
    /// The largest factor, or the reciprocal of the smallest.
    pub largest_factor: f32,
    /// Estimated relative error of the product with the weights as they came; of q and k, in the worst head.
    pub error_before: f64,
    /// The same after balancing.
    pub error_after: f64,
}

/// Powers of two for the channels of one place, and the error with and without them.
struct Balanced {
    factors: Vec<f32>,
    before: f64,
    after: f64,
}

impl Balanced {
    fn reciprocals(&self) -> Vec<f32> {
        self.factors.iter().map(|t| t.recip()).collect()
    }

    /// Divides the columns that read the channels.
    fn divide(&self, reader: &mut Layer) {
        let factors = self.reciprocals();
        reader.change(move |reader| scale_columns(reader, &factors));
    }
}

/// Balances every place of the network where that pays, and says which. Reads the matrices of a branch at a time.
///
/// # Errors
/// As [`Layer::load`].
pub(crate) fn balance(network: &mut Network) -> Result<Vec<BalanceReport>, Error> {
    let config = network.config;
    let (head_dim, rotated) = (config.head_dim(), network.embedding.rotation.is_some());
    let gated = config.activation == Activation::SwiGlu;
    let mut reports = Vec::new();
    for_each_part(&config, |part| {
        match part {
            // ResMLP has no norms, a dense head no int8.
            Part::Embedding | Part::MixerBlock(_) | Part::Dpt | Part::LinearHead => {}
            Part::Block(i) => {
                let (at, block) = (format!("blk.{i}"), &mut network.blocks[i]);
                reports.extend(attention(&at, block, head_dim, rotated)?);
                reports.extend(mlp(&at, &mut block.mlp, gated)?);
            }
            Part::Downsampling(stage) => {
                reports.extend(downsampling(&format!("stage.{stage}"), &mut network.downsamplings[stage - 1])?);
            }
            Part::ConvBlock { block, .. } => {
                reports.extend(mlp(&format!("blk.{block}"), &mut network.conv_blocks[block].mlp, gated)?);
            }
            Part::Tail => reports.extend(head(&mut network.tail)?),
        }
        Ok::<(), Error>(())
    })?;
    Ok(reports)
}

/// The norm before q, k and v; q and k; v and the projection.
fn attention(at: &str, block: &mut Block, head_dim: usize, rotated: bool) -> Result<Vec<BalanceReport>, Error> {
    let inputs = sizes(block.norm1.as_ref(), block.qkv.k);
    let first = block.qkv.load()?;
    let (qkv, width) = (outputs(&first, &inputs), block.proj.k);
    let readers = columns(&first, &inputs);
    drop(first);
    let (q, k, v) = (&qkv[..width], &qkv[width..2 * width], &qkv[2 * width..]);
    // XCiT attends between the channels of a head: they keep their proportions in v, and it normalizes q and k.
    let between_channels = block.temperature.is_some();
    let norm = block.norm1.as_ref().and_then(|_| Balanced::new(&inputs, &readers, |c| c));
    let v_group = |c: usize| if between_channels { c / head_dim } else { c };
    let values = Balanced::new(v, &columns(&block.proj.load()?, v), v_group);
    // A rotation turns channels l and l + d/2 into each other.
    let pair = |c: usize| if rotated { c % (head_dim / 2) } else { c };

    let mut rows = vec![1.0; 3 * width];
    let mut scores = Vec::new();
    match &mut block.qk_norm {
        Some((q_norm, k_norm)) => {
            let both = [&*q_norm, &*k_norm].map(|norm| sizes(Some(norm), head_dim));
            if let Some(balanced) = Balanced::new(&both[0], &both[1], pair) {
                scale_norm(q_norm, &balanced.factors);
                scale_norm(k_norm, &balanced.reciprocals());
                scores.push(balanced);
            }
        }
        None if between_channels => {}
        None => {
            for first in (0..width).step_by(head_dim) {
                let head = first..first + head_dim;
                if let Some(balanced) = Balanced::new(&q[head.clone()], &k[head], pair) {
                    rows[first..][..head_dim].copy_from_slice(&balanced.factors);
                    rows[width + first..][..head_dim].copy_from_slice(&balanced.reciprocals());
                    scores.push(balanced);
                }
            }
        }
    }
    if let Some(values) = &values {
        rows[2 * width..].copy_from_slice(&values.factors);
        values.divide(&mut block.proj);
    }
    if values.is_some() || !scores.is_empty() {
        block.qkv.change(move |qkv| scale_rows(qkv, &rows));
    }
    if let (Some(norm), Some(balanced)) = (&mut block.norm1, &norm) {
        scale_norm(norm, &balanced.factors);
        balanced.divide(&mut block.qkv);
    }
    let found = [("norm1", norm.as_slice()), ("qk", &scores), ("v", values.as_slice())];
    Ok(found.into_iter().filter_map(|(channels, balanced)| BalanceReport::new(at, channels, balanced)).collect())
}

/// The norm before the MLP; of SwiGLU, the half that is not activated, and the columns of the last matrix. No factor
/// passes an activation.
fn mlp(at: &str, mlp: &mut Mlp, gated: bool) -> Result<Vec<BalanceReport>, Error> {
    let Mlp { norm, up, down, .. } = mlp;
    let mut reports = Vec::new();
    let inputs = sizes(norm.as_ref(), up.k);
    let first = up.load()?;
    let (hidden, readers) = (outputs(&first, &inputs), columns(&first, &inputs));
    drop(first);
    if gated {
        let (gate, linear) = hidden.split_at(down.k);
        let products: Vec<f64> = gate.iter().zip(linear).map(|(g, u)| g * u).collect();
        if let Some(balanced) = Balanced::new(&products, &columns(&down.load()?, &products), |c| c) {
            let rows = [&vec![1.0; down.k], &balanced.factors[..]].concat();
            up.change(move |up| scale_rows(up, &rows));
            balanced.divide(down);
            reports.extend(BalanceReport::new(at, "up", &[balanced]));
        }
    }
    if let Some(norm) = norm
        && let Some(balanced) = Balanced::new(&inputs, &readers, |c| c)
    {
        scale_norm(norm, &balanced.factors);
        balanced.divide(up);
        reports.extend(BalanceReport::new(at, "norm2", &[balanced]));
    }
    Ok(reports)
}

/// The norm of ConvNeXt's downsampling, each of whose channels has four columns in the matrix: `[dy][dx][dim]`.
fn downsampling(at: &str, part: &mut Downsampling) -> Result<Option<BalanceReport>, Error> {
    let Downsampling { norm, linear: layer } = part;
    let dim = norm.weight.len();
    let inputs = sizes(Some(norm), dim).repeat(layer.k / dim);
    let balanced = Balanced::new(&inputs, &columns(&layer.load()?, &inputs), |c| c % dim);
    let Some(mut balanced) = balanced else { return Ok(None) };
    balanced.divide(layer);
    balanced.factors.truncate(dim);
    scale_norm(norm, &balanced.factors);
    Ok(BalanceReport::new(at, "norm", &[balanced]))
}

/// The features and the head. What the last norm puts out is not only the head's to read, so its weights stay.
fn head(tail: &mut Tail) -> Result<Option<BalanceReport>, Error> {
    let norm = tail.fc_norm.as_ref().or(tail.norm.as_ref());
    let (Some(norm), Some(head)) = (norm, &mut tail.head) else { return Ok(None) };
    let dim = norm.weight.len();
    let inputs = sizes(Some(norm), dim).repeat(head.k / dim);
    let balanced = Balanced::new(&inputs, &columns(&head.load()?, &inputs), |c| c);
    let Some(balanced) = balanced else { return Ok(None) };
    balanced.divide(head);
    let report = BalanceReport::new("head", "features", std::slice::from_ref(&balanced));
    tail.head_factor = Some(balanced.factors);
    Ok(report)
}

impl Balanced {
    /// For channels of sizes `left` and `right`, those of a group (numbered from 0) with one factor. `None` where it
    /// does not pay.
    fn new(left: &[f64], right: &[f64], group: impl Fn(usize) -> usize) -> Option<Self> {
        let groups = (0..left.len()).map(&group).max()? + 1;
        let together = |sizes: &[f64]| -> Vec<f64> {
            let mut squares = vec![0.0; groups];
            sizes.iter().enumerate().for_each(|(c, size)| squares[group(c)] += size * size);
            squares.into_iter().map(f64::sqrt).collect()
        };
        let of_groups = powers(&together(left), &together(right))?;
        let factors: Vec<f32> = (0..left.len()).map(|c| of_groups[group(c)]).collect();
        let of = |c: usize| f64::from(factors[c]);
        let scaled: (Vec<f64>, Vec<f64>) = (0..left.len()).map(|c| (left[c] * of(c), right[c] / of(c))).unzip();
        let (before, after) = (error(left, right), error(&scaled.0, &scaled.1));
        (before > GAIN * after).then_some(Self { factors, before, after })
    }
}

/// t = right / max(sqrt(left right), m), m the size at which the median channel has two equal sides, as powers of two
/// around 1. Channels that contribute more than the median one are divided evenly between both sides. The others have
/// the size m on the right and are smaller on the left: that a norm's weight is small may mean that what it multiplies
/// is large. `None` if no channel contributes.
fn powers(left: &[f64], right: &[f64]) -> Option<Vec<f32>> {
    let products: Vec<f64> = left.iter().zip(right).map(|(l, r)| l * r).collect();
    let common = median(&products)?.sqrt();
    let factors: Vec<f64> = right.iter().zip(&products).map(|(r, p)| r / p.sqrt().max(common)).collect();
    let middle = median(&factors)?;
    // Where nothing is read, the factor is small, not zero.
    Some(factors.iter().map(|t| (t / middle).log2().round().clamp(-60.0, 60.0).exp2() as f32).collect())
}

/// Over the numbers that are not zero.
fn median(values: &[f64]) -> Option<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|x| *x > 0.0).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Relative error of sum_c x_c y_c for independent x and y of these sizes, where both have 8 bits and one step for all
/// channels. The largest of the values is taken as the root of the root of the sum of their fourth powers.
fn error(left: &[f64], right: &[f64]) -> f64 {
    let sum = |sizes: &[f64], power: i32| sizes.iter().map(|x| x.powi(power)).sum::<f64>();
    let signal: f64 = left.iter().zip(right).map(|(l, r)| (l * r).powi(2)).sum();
    let noise = sum(left, 4).sqrt() * sum(right, 2) + sum(right, 4).sqrt() * sum(left, 2);
    ROUNDING * (noise / signal).sqrt()
}

/// Size of each of `n` channels after a norm: its input has unit variance over all channels, and nothing says more. 1
/// without a norm.
fn sizes(norm: Option<&Norm>, n: usize) -> Vec<f64> {
    let Some(norm) = norm else { return vec![1.0; n] };
    norm.weight.iter().zip(&norm.bias).map(|(&w, &b)| f64::from(w).hypot(f64::from(b))).collect()
}

/// Size of each column, over rows divided by the size of their outputs: no factor on a row counts, LayerScale's
/// neither.
fn columns(linear: &Linear, inputs: &[f64]) -> Vec<f64> {
    let mut squares = vec![0.0; linear.k];
    for row in linear.rows() {
        let size: f64 = row.iter().zip(inputs).map(|(&w, x)| (f64::from(w) * x).powi(2)).sum();
        if size > 0.0 {
            squares.iter_mut().zip(row).for_each(|(square, &w)| *square += f64::from(w).powi(2) / size);
        }
    }
    squares.into_iter().map(f64::sqrt).collect()
}

impl BalanceReport {
    fn new(at: &str, channels: &'static str, balanced: &[Balanced]) -> Option<Self> {
        let factors = || balanced.iter().flat_map(|b| &b.factors).copied();
        let worst = |of: fn(&Balanced) -> f64| balanced.iter().map(of).fold(0.0, f64::max);
        (!balanced.is_empty()).then(|| Self {
            at: at.to_owned(),
            channels,
            changed: factors().filter(|t| *t != 1.0).count(),
            largest_factor: factors().map(|t| t.max(t.recip())).fold(1.0, f32::max),
            error_before: worst(|b| b.before),
            error_after: worst(|b| b.after),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of 64 channels that differ by less than a factor of two.
    fn channels() -> (Vec<f64>, Vec<f64>) {
        (0..64).map(|c| (1.0 + f64::from(c * 37 % 64) / 64.0, 2.0 - f64::from(c * 11 % 64) / 64.0)).unzip()
    }

    fn rewritten(factors: &[(usize, f64)]) -> (Vec<f64>, Vec<f64>) {
        let (mut left, mut right) = channels();
        factors.iter().for_each(|&(c, f)| (left[c], right[c]) = (left[c] * f, right[c] / f));
        (left, right)
    }

    #[test]
    fn even_channels_are_left_alone() {
        let (left, right) = channels();
        assert!(Balanced::new(&left, &right, |c| c).is_none());
        assert!(Balanced::new(&[0.0; 4], &[1.0; 4], |c| c).is_none(), "nothing contributes");
        assert!(Balanced::new(&[f64::NAN; 4], &[1.0; 4], |c| c).is_none());
    }

    #[test]
    fn the_result_hardly_depends_on_the_writing() {
        let after = |factors: &[(usize, f64)]| {
            let (left, right) = rewritten(factors);
            let balanced = Balanced::new(&left, &right, |c| c).expect("outliers");
            assert!(balanced.before > 1.2 * balanced.after);
            balanced.after
        };
        let (left, right) = channels();
        for factors in [&[(3, 64.0), (40, 1.0 / 128.0)][..], &[(9, 1000.0)], &[(3, 0.02), (20, 0.1), (63, 17.0)]] {
            assert!(after(factors) < 1.1 * error(&left, &right), "{factors:?}");
        }
    }

    #[test]
    fn channels_that_are_not_read_or_never_there_do_not_make_others_coarse() {
        let (mut left, mut right) = channels();
        (left[5], right[5]) = (1e4, 0.0);
        (left[6], right[6]) = (0.0, 1e4);
        let balanced = Balanced::new(&left, &right, |c| c).expect("outliers");
        assert!(left[5] * f64::from(balanced.factors[5]) < 1.0 && right[6] / f64::from(balanced.factors[6]) < 4.0);
        assert!(balanced.factors.iter().all(|t| t.is_normal()));
    }

    #[test]
    fn a_group_has_one_factor() {
        let (left, right) = rewritten(&[(2, 256.0), (34, 256.0)]);
        let balanced = Balanced::new(&left, &right, |c| c % 32).expect("outliers");
        assert_eq!(balanced.factors[2], balanced.factors[34]);
        assert!(balanced.factors[2] < 1.0 / 64.0);
    }

    #[test]
    fn factors_on_rows_do_not_count() {
        let weight: Vec<f32> = (0..32).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
        let linear = Linear { n: 4, k: 8, weight, bias: vec![0.0; 4] };
        let mut scaled = linear.clone();
        scale_rows(&mut scaled, &[1024.0, 1.0, 0.25, 2.0]);
        let inputs: Vec<f64> = (1..9).map(f64::from).collect();
        assert_eq!(columns(&linear, &inputs), columns(&scaled, &inputs));
    }
}
