//! The effect of `--prune-dead`: the pruned network beside the whole one, in turns,
//! and on the program's own pictures.

use std::path::Path;

use serde::Serialize;
use vitlet_convert::prune::PruneReport;
use vitlet_convert::{Converted, Options};

use crate::dataset::Entry;
use crate::error::{Error, Result};
use crate::inference::{Compute, ComputeArgs, Inference};
use crate::mapped::Watch;
use crate::model::{ModelFile, built_in_checkpoint};
use crate::output::{self, Out};
use crate::pictures;
use crate::side_by_side::{Ratio, classify, time};

/// Turns of each network.
const ROUNDS: u32 = 60;

/// The pruned network against the whole one.
#[derive(Serialize)]
pub struct Effect {
    kernel: &'static str,
    threads: usize,
    rounds: u32,
    time: Ratio,
    pictures: usize,
    /// Share of pictures with the same first label.
    agreement: f64,
    /// sqrt(sum |y - r|^2 / sum |r|^2) over the logits of all pictures.
    logit_error: f64,
}

impl Effect {
    /// Converts `source` again, whole, and runs both.
    pub fn measure(source: &Path, options: &Options, pruned: Converted) -> Result<Self> {
        let options = Options { prune_dead: None, ..options.clone() };
        let _watch = Watch::everywhere(&source.display().to_string());
        let whole = vitlet_convert::convert(source, &options, &mut |_| {})?;
        let name = source.display().to_string();
        let [whole, pruned] = [whole, pruned].map(|model| ModelFile::converted(model, name.clone()));
        let compute = Compute::new(&ComputeArgs::default())?;
        let inference = |model| Inference::new(model, &compute);

        let samples = built_in_checkpoint()?;
        let sources = pictures::below(&samples.path().join("pictures")).pictures;
        let entries: Vec<Entry> = sources.into_iter().map(|source| Entry { source, label: None }).collect();
        let times = time(&mut [inference(&whole)?, inference(&pruned)?], ROUNDS, entries.len())?;
        let tallies = classify(&mut [inference(&pruned)?], inference(&whole)?, &entries);
        tallies.inputs.end()?;
        let Some(accuracy) = tallies.accuracy(0) else { return Err(Error::new("sample pictures", "none")) };
        Ok(Self {
            kernel: compute.kernels.name(),
            threads: compute.threads,
            rounds: ROUNDS,
            time: Ratio::new(&times[1], &times[0]),
            pictures: tallies.inputs.count(),
            agreement: accuracy.agreement,
            logit_error: accuracy.logit_error,
        })
    }
}

/// What was taken out, and the effect where there is one, a line each.
pub fn print(out: &mut Out, r: &PruneReport, effect: Option<&Effect>) -> Result<()> {
    let PruneReport { threshold, channels, below, removed, .. } = r;
    write!(out, "pruned: {below} of {channels} channels add less than {threshold} of the stream (estimated), ")?;
    let Some(effect) = effect else {
        writeln!(out, "and fill no block of 16 rows in any matrix: nothing was taken out")?;
        return Ok(());
    };
    let share = 100.0 * r.weights_removed as f64 / r.weights as f64;
    let bytes = output::bytes(r.bytes_removed as u64);
    let matrices = r.matrices.len();
    writeln!(
        out,
        "{removed} of their rows, in blocks of 16, were removed from {matrices} matrices: {share:.1} % of all weights, {bytes}"
    )?;
    let Effect { kernel, threads, time, pictures, agreement, logit_error, .. } = effect;
    let plural = if *threads == 1 { "" } else { "s" };
    let agreed = (agreement * *pictures as f64).round();
    writeln!(
        out,
        "against the whole network: {:.2} of its time ({}; {kernel}, {threads} thread{plural}), logit error \
         {logit_error:.4}, the same label on {agreed} of {pictures} pictures",
        time.median,
        time.range(),
    )?;
    Ok(())
}
