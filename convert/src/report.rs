//! The report of a conversion, for a table on the screen or as JSON.

use serde::Serialize;
use vitlet::Config;

pub use crate::balance::BalanceReport;
use crate::network::{Gammas, Network, Source};
use crate::plan::{BlockPlan, FoldReport};
use crate::prune::PruneReport;
pub use crate::quantize::LinearReport;

/// The outcome of a conversion, beside the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The architecture's name.
    pub name: String,
    /// int8, f16 or f32.
    pub precision: &'static str,
    /// none, fold, fold-weights, keep or keep-pass.
    pub layerscale: &'static str,
    /// per-channel or per-tensor.
    pub weight_scale: &'static str,
    /// Input height and width.
    pub image_size: (usize, usize),
    /// Tokens, prefix included.
    pub tokens: usize,
    /// Logits; 0 without a head.
    pub classes: usize,
    /// softmax or sigmoid.
    pub scores: &'static str,
    /// The licence of the weights, where the source states it.
    pub license: Option<String>,
    /// Weights and biases of the network, LayerScale's gammas included.
    pub parameters: usize,
    /// Size of the model file.
    pub file_bytes: usize,
    /// Choices that the user should know of, one sentence each.
    pub announcements: Vec<String>,
    /// LayerScale of each block; empty where the network has none.
    pub blocks: Vec<BlockReport>,
    /// Where channels were balanced, in the order of the blocks.
    pub balanced: Vec<BalanceReport>,
    /// Every matrix, in file order, as it was before rows were taken out.
    pub linears: Vec<LinearReport>,
    /// What was taken out, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PruneReport>,
}

/// LayerScale of one block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockReport {
    /// Its number.
    pub block: usize,
    /// The attention branch; none in ConvNeXt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma1: Option<GammaReport>,
    /// What becomes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold1: Option<FoldReport>,
    /// The MLP branch.
    pub gamma2: GammaReport,
    /// What becomes of it.
    pub fold2: FoldReport,
    /// XCiT's local branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma3: Option<GammaReport>,
    /// What becomes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold3: Option<FoldReport>,
}

/// The factors of one branch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GammaReport {
    /// The smallest |gamma|.
    pub min: f32,
    /// The median of |gamma|.
    pub median: f32,
    /// The largest |gamma|.
    pub max: f32,
    /// Channels whose gamma is zero or denormal: the branch does not reach them.
    pub dead: usize,
    /// Channels whose gamma is negative.
    pub negative: usize,
}

impl GammaReport {
    /// Of `gamma` `[dim]`, which is not empty.
    pub fn new(gamma: &[f32]) -> Self {
        let mut sizes: Vec<f32> = gamma.iter().map(|g| g.abs()).collect();
        sizes.sort_unstable_by(f32::total_cmp);
        let at = |i: usize| sizes.get(i).copied().unwrap_or(0.0);
        Self {
            min: at(0),
            median: at(sizes.len() / 2),
            max: at(sizes.len().saturating_sub(1)),
            dead: sizes.iter().filter(|g| **g < f32::MIN_POSITIVE).count(),
            negative: gamma.iter().filter(|g| **g < 0.0).count(),
        }
    }
}

/// The original gammas of all branches. ConvNeXt's only one is the second.
pub(crate) fn gammas(source: &Source) -> Option<Gammas> {
    if source.folded_gammas.is_some() {
        return source.folded_gammas.clone();
    }
    let Network { blocks, conv_blocks, mixer_blocks, .. } = &source.network;
    if !conv_blocks.is_empty() {
        let gammas: Option<Vec<&Vec<f32>>> = conv_blocks.iter().map(|block| block.mlp.gamma.as_ref()).collect();
        return Some([Vec::new(), gammas?.into_iter().flatten().copied().collect(), Vec::new()]);
    }
    let of_blocks = blocks.iter().map(|b| [&b.gamma1, &b.mlp.gamma]);
    let both: Vec<_> = of_blocks.chain(mixer_blocks.iter().map(|b| [&b.gamma1, &b.mlp.gamma])).collect();
    let branch = |n: usize| -> Option<Vec<f32>> {
        let all: Option<Vec<&Vec<f32>>> = both.iter().map(|gammas| gammas[n].as_ref()).collect();
        all.map(|gammas| gammas.into_iter().flatten().copied().collect())
    };
    let local = blocks.iter().filter_map(|b| b.local.as_ref()?.gamma.as_ref()).flatten().copied().collect();
    Some([branch(0)?, branch(1)?, local])
}

/// A line for each block.
pub(crate) fn blocks([first, second, third]: &Gammas, plan: &[BlockPlan], config: &Config) -> Vec<BlockReport> {
    let line = |(block, plan): (usize, &BlockPlan)| {
        let channels = config.block_channels(block);
        BlockReport {
            block,
            gamma1: first.get(channels.clone()).map(GammaReport::new),
            fold1: plan.first.as_ref().map(|branch| branch.fold),
            gamma2: GammaReport::new(second.get(channels.clone()).unwrap_or_default()),
            fold2: plan.second.fold,
            gamma3: third.get(channels).map(GammaReport::new),
            fold3: plan.third.as_ref().map(|branch| branch.fold),
        }
    };
    plan.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_statistics() {
        let report = GammaReport::new(&[0.1, -0.3, 0.0, 1e-39, 2.0]);
        assert_eq!(report, GammaReport { min: 0.0, median: 0.1, max: 2.0, dead: 2, negative: 1 });
    }
}
