//! LayerScale's gammas in short: per branch the range, the signs, and a histogram of |gamma| on one logarithmic scale
//! for the whole network, so that rows compare.

use serde::Serialize;
use vitlet::Model;
use vitlet_convert::report::GammaReport;

use crate::output::factor;

const BINS: usize = 16;
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The gammas of one branch of one block.
#[derive(Serialize)]
pub struct Branch {
    block: usize,
    branch: &'static str,
    #[serde(flatten)]
    range: GammaReport,
    channels: usize,
    /// Channels per bin of log10 |gamma|, from `log10_from` to `log10_to`; dead channels are in none.
    histogram: [usize; BINS],
    log10_from: f32,
    log10_to: f32,
}

/// Every branch in the order of the network; none without LayerScale.
pub fn branches(model: &Model) -> Vec<Branch> {
    let c = model.config();
    let gammas = |branch| model.original_gamma(branch).map_or(Vec::new(), Iterator::collect::<Vec<f32>>);
    let all = NAMES.map(|(branch, ..)| gammas(branch));
    let (from, to) = log_range(&all);
    (0..c.blocks())
        .flat_map(|block| NAMES.iter().zip(&all).map(move |((_, name, _), gamma)| (block, *name, gamma)))
        .filter_map(|(block, name, gamma)| {
            let gamma = gamma.get(c.block_channels(block))?;
            Some(summarize(block, name, gamma, from, to))
        })
        .collect()
}

/// Whole powers of ten around all |gamma| that are not dead.
fn log_range(gammas: &[Vec<f32>]) -> (f32, f32) {
    let logs = gammas.iter().flat_map(|g| alive(g)).map(f32::log10);
    let (low, high) = logs.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), l| (low.min(l), high.max(l)));
    if low > high {
        return (0.0, 1.0);
    }
    (low.floor(), high.ceil().max(low.floor() + 1.0))
}

/// |gamma| of the channels that the report does not count as dead.
fn alive(gamma: &[f32]) -> impl Iterator<Item = f32> {
    gamma.iter().map(|g| g.abs()).filter(|g| g.is_normal())
}

fn summarize(block: usize, branch: &'static str, gamma: &[f32], from: f32, to: f32) -> Branch {
    let mut histogram = [0; BINS];
    for g in alive(gamma) {
        let bin = (g.log10() - from) / (to - from) * BINS as f32;
        histogram[(bin as usize).min(BINS - 1)] += 1;
    }
    Branch {
        block,
        branch,
        range: GammaReport::new(gamma),
        channels: gamma.len(),
        histogram,
        log10_from: from,
        log10_to: to,
    }
}

/// Columns of the table of layers: the branches' medians, histograms and negative channels, then the dead ones; none
/// without LayerScale.
pub fn header(branches: &[Branch]) -> Vec<String> {
    let Some(first) = branches.first() else {
        return Vec::new();
    };
    let [from, to] = [first.log10_from, first.log10_to].map(|e| format!("1e{e}"));
    let scale = format!("{from}{to:>width$}", width = BINS - from.len());
    let branch = |name: &str| [name.to_string(), scale.clone(), "negative".to_string()];
    let names = NAMES.into_iter().filter(|(_, name, _)| has(branches, name));
    names.flat_map(|(.., column)| branch(column)).chain(["gamma 0".to_string()]).collect()
}

/// Branches in the order of the network: their number in the model file, their name and their column's heading.
const NAMES: [(usize, &str, &str); 3] =
    [(0, "attention", "|gamma1|"), (2, "local", "|gamma3|"), (1, "mlp", "|gamma2|")];

fn has(branches: &[Branch], name: &str) -> bool {
    branches.iter().any(|b| b.branch == name)
}

/// The cells of one layer under [`header`]; empty beside the blocks.
pub fn cells(branches: &[Branch], block: Option<usize>) -> Vec<String> {
    if branches.is_empty() {
        return Vec::new();
    }
    let of_block: Vec<&Branch> = branches.iter().filter(|b| Some(b.block) == block).collect();
    let cells = |b: &&Branch| {
        let negative = format!("{:.0} %", 100.0 * b.range.negative as f32 / b.channels as f32);
        [factor(b.range.median), spark(&b.histogram), negative]
    };
    let names = NAMES.iter().filter(|(_, name, _)| has(branches, name));
    let branch = |(_, name, _): &(usize, &str, &str)| {
        of_block.iter().find(|b| b.branch == *name).map_or([const { String::new() }; 3], cells)
    };
    let mut row: Vec<String> = names.flat_map(branch).collect();
    row.push(if of_block.is_empty() {
        String::new()
    } else {
        of_block.iter().map(|b| b.range.dead).sum::<usize>().to_string()
    });
    row
}

/// A histogram as a line of bars, each bin against the fullest; a bin that is not empty shows.
fn spark(histogram: &[usize]) -> String {
    let most = histogram.iter().copied().max().unwrap_or(0).max(1);
    histogram.iter().map(|&n| BARS[(n * (BARS.len() - 1)).div_ceil(most)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gammas_fall_into_logarithmic_bins() {
        let gamma = vec![1e-3, -1e-3, 0.0, 0.9, -0.0];
        let (from, to) = log_range(&[gamma.clone(), Vec::new()]);
        assert_eq!((from, to), (-3.0, 0.0));
        let b = summarize(0, "mlp", &gamma, from, to);
        assert_eq!((b.range.negative, b.range.dead, b.range.max, b.range.median), (1, 2, 0.9, 1e-3));
        assert_eq!((b.histogram[0], b.histogram[BINS - 1], b.histogram.iter().sum::<usize>()), (2, 1, 3));
    }

    #[test]
    fn sparks_show_every_bin_that_is_not_empty() {
        assert_eq!(spark(&[0, 1, 500, 1000]), " ▁▄█");
        assert_eq!(spark(&[0, 0]), "  ");
        assert_eq!(log_range(&[vec![0.0], vec![]]), (0.0, 1.0));
    }
}
