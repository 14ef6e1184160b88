//! The fold planner: what becomes of each branch's gamma, and which channels of a branch could as well not be there.
//!
//! A channel is below the noise when its branch adds less to it than the next reader of the stream
//! loses there by quantizing it to 8 bits. No picture is looked at: inputs of a matrix are taken as independent, with
//! the magnitude that the matrices before them give, and a row of the stream as spanning eight standard deviations (255
//! steps, each an error of 1/sqrt(12)). Attention is taken not to average anything away, so that the estimate of a
//! branch errs upwards and the count downwards.

use serde::Serialize;
use vitlet::networks::{Part, for_each_part};
use vitlet::{Config, LayerScale, Precision};

use crate::diagonal::row_sums;
use crate::error::Error;
use crate::network::{
    Block, ConvBlock, Depthwise, Downsampling, Embedding, Linear, Local, Mixer, MixerBlock, Mlp, Network, Norm,
};

/// Error of one 8-bit code, as a part of the stream's root mean square.
const NOISE: f64 = 8.0 / 255.0 / 3.464_101_615;

/// What becomes of one branch's gamma.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FoldReport {
    /// Where it goes: scale (the per-channel scale), weights, or vector (kept, for the residual add).
    pub gamma_in: &'static str,
    /// The stored weights equal the matrix without gamma, up to sign, and no scale left f32's normal range.
    pub exact: bool,
    /// Weights that `gamma W` would lose as f16 and that are there because the factor is not in them.
    pub f16_underflows_avoided: usize,
    /// Channels to which the branch adds less than the stream's quantization noise (an estimate).
    pub below_noise: usize,
}

/// The plan for one branch.
pub(crate) struct BranchPlan {
    pub(crate) fold: FoldReport,
    /// What it adds to each channel, as a part of the stream's root mean square.
    pub(crate) shares: Vec<f64>,
}

/// The plan for the branches of one block, in the order of the gammas.
pub(crate) struct BlockPlan {
    /// The branch of attention, or the branch that mixes tokens; none in ConvNeXt.
    pub(crate) first: Option<BranchPlan>,
    /// The MLP's.
    pub(crate) second: BranchPlan,
    /// XCiT's local one.
    pub(crate) third: Option<BranchPlan>,
}

impl BranchPlan {
    /// For a branch that adds so much to each channel of the stream, which gains it.
    fn new(
        gamma_in: &'static str,
        exact: bool,
        f16_underflows_avoided: usize,
        added: &[f64],
        stream: &mut [f64],
    ) -> Self {
        for (x, y) in stream.iter_mut().zip(added) {
            *x = x.hypot(*y);
        }
        let size = root_mean_square(stream);
        let shares: Vec<f64> = added.iter().map(|y| y / size).collect();
        let below_noise = shares.iter().filter(|share| **share < NOISE).count();
        Self { fold: FoldReport { gamma_in, exact, f16_underflows_avoided, below_noise }, shares }
    }
}

/// The plan for every block of a network that has gammas. Reads all its matrices, one after another.
///
/// # Errors
/// As [`Layer::load`](crate::network::Layer::load).
pub(crate) fn plan(network: &Network, config: &Config) -> Result<Vec<BlockPlan>, Error> {
    let mut stream = embedded(network)?;
    let mut plan = Vec::new();
    for_each_part(config, |part| {
        match part {
            Part::Embedding | Part::Tail | Part::Dpt | Part::LinearHead => {}
            Part::Block(i) => plan.push(block_plan(&network.blocks[i], config, &mut stream)?),
            Part::Downsampling(stage) => {
                let Downsampling { norm, linear } = &network.downsamplings[stage - 1];
                stream = outputs(&linear.load()?, &read(Some(norm), &stream).repeat(4));
            }
            Part::ConvBlock { block, .. } => {
                plan.push(conv_block_plan(&network.conv_blocks[block], config, &mut stream)?);
            }
            Part::MixerBlock(i) => plan.push(mixer_block_plan(&network.mixer_blocks[i], config, &mut stream)?),
        }
        Ok::<(), Error>(())
    })?;
    Ok(plan)
}

fn mixer_block_plan(block: &MixerBlock, config: &Config, stream: &mut [f64]) -> Result<BlockPlan, Error> {
    let first = Some(mixing(&block.mixer, block.gamma1.as_deref(), config, stream)?);
    let inputs = read(None, stream);
    let second = mlp_branch(&block.mlp, &inputs, config, stream)?;
    Ok(BlockPlan { first, second, third: None })
}

/// The report of a branch that mixes tokens; `stream` gains what it adds. Gamma never meets a weight.
fn mixing(mixer: &Mixer, gamma: Option<&[f32]>, config: &Config, stream: &mut [f64]) -> Result<BranchPlan, Error> {
    let linear = mixer.linear.load()?;
    let size = |values: &[f32]| root_mean_square(&values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
    // Of a row of W for inputs of size 1, of its sum, and of its bias.
    let (row, sum) = (size(&linear.weight) * (linear.k as f64).sqrt(), size(&row_sums(&linear)));
    let (bias, factor) = (size(&linear.bias), |j: usize| gamma.map_or(1.0, |g| f64::from(g[j].abs())));
    let of_channel = |j: usize| [&mixer.factor, &mixer.offset, &mixer.bias_factor].map(|values| f64::from(values[j]));
    let added: Vec<f64> = (0..stream.len())
        .map(|j| {
            let [scale, offset, bias_factor] = of_channel(j);
            factor(j) * (scale * row * stream[j]).hypot(offset * sum).hypot(bias_factor * bias)
        })
        .collect();
    Ok(BranchPlan::new(if config.keeps_gamma() { "vector" } else { "scale" }, true, 0, &added, stream))
}

fn conv_block_plan(block: &ConvBlock, config: &Config, stream: &mut [f64]) -> Result<BlockPlan, Error> {
    let second = mlp_branch(&block.mlp, &convolved(&block.conv, stream), config, stream)?;
    Ok(BlockPlan { first: None, second, third: None })
}

fn block_plan(block: &Block, config: &Config, stream: &mut [f64]) -> Result<BlockPlan, Error> {
    let qkv = outputs(&block.qkv.load()?, &read(block.norm1.as_ref(), stream));
    let values = &qkv[2 * block.proj.k..];
    let first = Some(branch(&block.proj.load()?, values, block.gamma1.as_deref(), config, stream));
    let third = block.local.as_ref().map(|local| local_branch(local, config, stream));
    let inputs = read(block.stream_norm.as_ref(), stream);
    let second = mlp_branch(&block.mlp, &inputs, config, stream)?;
    Ok(BlockPlan { first, second, third })
}

/// The report of an MLP's branch, whose norm reads `inputs`; `stream` gains what it adds.
fn mlp_branch(mlp: &Mlp, inputs: &[f64], config: &Config, stream: &mut [f64]) -> Result<BranchPlan, Error> {
    let hidden = outputs(&mlp.up.load()?, &read(mlp.norm.as_ref(), inputs));
    // SwiGLU's product is taken as its second factor.
    let hidden = activated(&hidden[hidden.len() - mlp.down.k..]);
    Ok(branch(&mlp.down.load()?, &hidden, mlp.gamma.as_deref(), config, stream))
}

/// About half of the inputs of GELU and its relatives pass.
fn activated(hidden: &[f64]) -> Vec<f64> {
    hidden.iter().map(|h| h / std::f64::consts::SQRT_2).collect()
}

/// Magnitude of each channel after a depthwise convolution.
fn convolved(conv: &Depthwise, inputs: &[f64]) -> Vec<f64> {
    let kernels = conv.weight.chunks_exact(conv.kernel * conv.kernel);
    let gains = kernels.map(|taps| taps.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt());
    gains.zip(inputs).zip(&conv.bias).map(|((gain, x), &b)| (gain * x).hypot(f64::from(b))).collect()
}

/// The report of XCiT's local branch; `stream` gains what it adds. Where gamma is folded, its last kernels hold it, in
/// f32.
fn local_branch(local: &Local, config: &Config, stream: &mut [f64]) -> BranchPlan {
    let between = activated(&convolved(&local.first, &read(Some(&local.norm), stream)));
    let affine = local.affine.weight.iter().zip(&local.affine.bias);
    let between: Vec<f64> =
        between.iter().zip(affine).map(|(x, (&f, &o))| (x * f64::from(f)).hypot(f64::from(o))).collect();
    let mut added = convolved(&local.second, &between);
    for (y, &gamma) in added.iter_mut().zip(local.gamma.iter().flatten()) {
        *y *= f64::from(gamma).abs();
    }
    let kept = config.keeps_gamma();
    BranchPlan::new(if kept { "vector" } else { "weights" }, kept, 0, &added, stream)
}

/// The report of a branch; `stream` gains what it adds.
fn branch(last: &Linear, inputs: &[f64], gamma: Option<&[f32]>, config: &Config, stream: &mut [f64]) -> BranchPlan {
    let factor = |j: usize| gamma.map_or(1.0, |g| f64::from(g[j]));
    let added: Vec<f64> = outputs(last, inputs).iter().enumerate().map(|(j, y)| y * factor(j).abs()).collect();
    let gamma_in = match (config.layerscale, config.precision) {
        (LayerScale::Keep | LayerScale::KeepPass, _) => "vector",
        (LayerScale::Fold, Precision::Int8 | Precision::F16) => "scale",
        _ => "weights",
    };
    let lost = |w: f32, j: usize| w != 0.0 && half::f16::from_f64(f64::from(w) * factor(j)).to_f32() == 0.0;
    let underflows = last.rows().enumerate().map(|(j, row)| row.iter().filter(|w| lost(**w, j)).count()).sum();
    let smallest =
        |row: &[f32], j: usize| row.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0 * factor(j).abs() as f32;
    let normal = |s: f32| s == 0.0 || s.is_normal();
    let beside = gamma_in != "weights";
    let exact = beside && last.rows().enumerate().all(|(j, row)| factor(j) == 0.0 || normal(smallest(row, j)));
    let avoided = if beside && config.precision == Precision::F16 { underflows } else { 0 };
    BranchPlan::new(gamma_in, exact, avoided, &added, stream)
}

/// Magnitude of each channel of the stream before the first block, for pixels of unit variance.
fn embedded(network: &Network) -> Result<Vec<f64>, Error> {
    let Embedding { stem, patch, positions, norm_pre, .. } = &network.embedding;
    let mut inputs = vec![1.0; stem[0].as_ref().unwrap_or(patch).k];
    for layer in stem.iter().flatten() {
        inputs = activated(&outputs(&layer.load()?, &inputs)).repeat(9);
    }
    let mut stream = outputs(&patch.load()?, &inputs);
    for (j, x) in stream.iter_mut().enumerate() {
        let channel = positions.iter().flatten().skip(j).step_by(patch.n);
        let positions: Vec<f64> = channel.map(|p| f64::from(*p)).collect();
        *x = x.hypot(root_mean_square(&positions));
    }
    Ok(match norm_pre {
        Some(norm) => read(Some(norm), &stream),
        None => stream,
    })
}

/// Magnitude of each channel that a branch reads.
fn read(norm: Option<&Norm>, stream: &[f64]) -> Vec<f64> {
    let Some(norm) = norm else { return stream.to_vec() };
    let size = root_mean_square(stream);
    let affine = norm.weight.iter().zip(&norm.bias);
    stream.iter().zip(affine).map(|(x, (&w, &b))| (x / size * f64::from(w)).hypot(f64::from(b))).collect()
}

/// Magnitude of each output for independent inputs of these magnitudes.
pub(crate) fn outputs(linear: &Linear, inputs: &[f64]) -> Vec<f64> {
    let sum = |row: &[f32]| row.iter().zip(inputs).map(|(&w, x)| (f64::from(w) * x).powi(2)).sum::<f64>();
    linear.rows().zip(&linear.bias).map(|(row, &b)| sum(row).sqrt().hypot(f64::from(b))).collect()
}

/// Zero of nothing.
fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len().max(1) as f64).sqrt()
}
