//! `--prune-dead`: removal of output channels to which a branch adds too little to matter, by the estimate of
//! [`plan`](crate::plan).
//!
//! Matrices are stored and multiplied in blocks of 16 rows, so a branch loses rows 16 at a time, those that add least
//! first: fewer would save neither bytes nor time. The rest of a matrix is quantized as if it were whole.

use std::iter::zip;

use serde::Serialize;
use vitlet::Config;
use vitlet::parts::Branch;

use crate::error::Error;
use crate::network::Network;
use crate::plan::BlockPlan;
use crate::quantize::{LinearReport, Packed, Values};

/// Rows that a block of the kernels has.
const BLOCK: usize = 16;

/// What pruning took out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PruneReport {
    /// Channels to which a branch adds less than this part of the stream's root mean square (an estimate) could go.
    pub threshold: f64,
    /// Channels of all branches together.
    pub channels: usize,
    /// Those below the threshold.
    pub below: usize,
    /// Channels whose rows were removed.
    pub removed: usize,
    /// Weights of all matrices of the network.
    pub weights: usize,
    /// Removed rows.
    pub weights_removed: usize,
    /// By which the tensor data is smaller.
    pub bytes_removed: usize,
    /// The matrices that lost rows, in file order.
    pub matrices: Vec<PrunedMatrix>,
}

/// A matrix that lost rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrunedMatrix {
    /// Its name in the file.
    pub name: String,
    /// Rows that it has left.
    pub rows: usize,
    /// Rows that it lost.
    pub removed: usize,
}

/// The rows of each branch that stay.
pub(crate) struct Pruning {
    /// Attention's branch and then the MLP's of each block, `[dim]`.
    keeps: Vec<Vec<bool>>,
    threshold: f64,
    /// Channels below it.
    below: usize,
}

impl Pruning {
    /// Which rows can go.
    ///
    /// # Errors
    /// A threshold that is no positive number, and networks whose branches have no such matrices, or keep their gammas.
    pub(crate) fn new(threshold: f64, network: &Network, config: &Config, plan: &[BlockPlan]) -> Result<Self, Error> {
        let refused = |why| Err(Error::new("--prune-dead", why));
        if !(threshold > 0.0 && threshold.is_finite()) {
            return refused("must be a positive number, such as 0.009: the quantization noise of the stream");
        }
        if network.blocks.is_empty() {
            return refused("only for networks whose blocks are attention and an MLP: not for ConvNeXt and ResMLP");
        }
        if config.keeps_gamma() {
            return refused(
                "needs the gammas folded; --layerscale keep and keep-pass have a multiply for every channel",
            );
        }
        let branches = plan.iter().flat_map(|block| [block.first.as_ref(), Some(&block.second)]).flatten();
        let below = branches.clone().flat_map(|b| &b.shares).filter(|share| **share < threshold).count();
        Ok(Self { keeps: branches.map(|b| kept(&b.shares, threshold)).collect(), threshold, below })
    }

    /// The masks as the file has them; none if every row stays.
    pub(crate) fn masks(&self) -> Vec<[u8; 4]> {
        if self.keeps.iter().flatten().all(|keep| *keep) {
            return Vec::new();
        }
        let word = |bits: &[bool]| zip(0.., bits).map(|(bit, &keep)| u32::from(keep) << bit).sum::<u32>();
        self.keeps.iter().flat_map(|keep| keep.chunks(32).map(word)).map(u32::to_le_bytes).collect()
    }

    /// Takes the rows out of the last matrix of a branch.
    pub(crate) fn apply(&self, packed: &mut Packed, Branch { block, branch }: Branch) {
        let keep = &self.keeps[2 * block + branch];
        packed.n = keep.iter().filter(|keep| **keep).count();
        match &mut packed.values {
            Values::Int8 { codes, sums } => {
                retain(codes, keep, packed.k);
                retain(sums, keep, 1);
            }
            Values::F16(values) => retain(values, keep, packed.k),
            Values::F32(values) => retain(values, keep, packed.k),
        }
        retain(&mut packed.scale, keep, 1);
        retain(&mut packed.bias, keep, 1);
    }

    /// What became of `linears`, which were packed with it, and made the tensor data smaller by so many bytes.
    pub(crate) fn report(&self, linears: &[LinearReport], bytes_removed: usize) -> PruneReport {
        let weights = linears.iter().map(|l| l.outputs * l.inputs).sum();
        let mut report = PruneReport {
            threshold: self.threshold,
            channels: self.keeps.iter().map(Vec::len).sum(),
            below: self.below,
            removed: 0,
            weights,
            weights_removed: 0,
            bytes_removed,
            matrices: Vec::new(),
        };
        for (i, keep) in self.keeps.iter().enumerate() {
            let branch = Branch { block: i / 2, branch: i % 2 };
            let Some(linear) = linears.iter().find(|l| l.ends == Some(branch)) else { continue };
            let rows = keep.iter().filter(|keep| **keep).count();
            let removed = keep.len() - rows;
            report.removed += removed;
            report.weights_removed += removed * linear.inputs;
            if removed > 0 {
                report.matrices.push(PrunedMatrix { name: linear.name.clone(), rows, removed });
            }
        }
        report
    }
}

/// Which of the channels with these shares of the stream stay: as few blocks of rows as hold those that reach the
/// threshold, filled up with the largest of the others.
fn kept(shares: &[f64], threshold: f64) -> Vec<bool> {
    let above = shares.iter().filter(|share| **share >= threshold).count();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&i, &j| shares[j].total_cmp(&shares[i]));
    let mut keep = vec![false; shares.len()];
    order.iter().take(above.next_multiple_of(BLOCK)).for_each(|&channel| keep[channel] = true);
    keep
}

/// Keeps rows of `k` values each.
fn retain<T>(values: &mut Vec<T>, keep: &[bool], k: usize) {
    let mut i = 0;
    values.retain(|_| {
        i += 1;
        keep[(i - 1) / k]
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 18 of 40 reach the threshold and take two blocks of 16: the 14 largest of the others stay with them.
    #[test]
    fn blocks_are_filled_with_the_largest_below_the_threshold() {
        let shares: Vec<f64> = (0..40).map(|j| if j % 2 == 0 && j < 36 { 1.0 } else { 0.001 * f64::from(j) }).collect();
        let keep = kept(&shares, 0.5);
        let gone: Vec<usize> = (0..40).filter(|&j| !keep[j]).collect();
        assert_eq!(gone, [1, 3, 5, 7, 9, 11, 13, 15]);
        // 36 need all three blocks, the last of which has 8 rows.
        assert!(kept(&shares, 0.0085).iter().all(|keep| *keep));
        assert!(kept(&shares, 2.0).iter().all(|keep| !*keep));
        assert!(kept(&shares, 1e-9).iter().all(|keep| *keep));
    }
}
