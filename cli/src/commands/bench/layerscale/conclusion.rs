//! The comparison in sentences. The last one says what folding saves.

use vitlet::Named;
use vitlet_convert::WeightScale;

use super::{Report, Row};
use crate::output;
use crate::side_by_side::Ratio;

/// The sentences.
pub(super) fn of(r: &Report) -> Vec<String> {
    [costs(r), losses(r), savings(r)].into_iter().flatten().collect()
}

/// The row of int8 with such a scale, in such a mode.
fn int8<'r>(r: &'r Report, scale: WeightScale, mode: &str) -> Option<&'r Row> {
    r.rows.iter().find(|row| row.weight_scale == Some(scale.name()) && row.mode == mode)
}

fn costs(r: &Report) -> Option<String> {
    let [keep, pass] = ["keep", "keep-pass"].map(|mode| int8(r, WeightScale::PerChannel, mode));
    let [keep, pass] = [keep?.ratio, pass?.ratio];
    Some(format!(
        "keep takes {:.2} times fold's time ({}), keep-pass {:.2} times ({}).",
        keep.median,
        keep.range(),
        pass.median,
        pass.range()
    ))
}

/// What each way to store the checkpoint costs in answers where there are enough, in logits otherwise.
fn losses(r: &Report) -> Option<String> {
    let f16 = r.rows.iter().find(|row| row.precision == "f16" && row.mode == "fold-weights");
    let parts = [
        ("fold", int8(r, WeightScale::PerChannel, "fold")),
        ("fold-weights per tensor", int8(r, WeightScale::PerTensor, "fold-weights")),
        ("keep per tensor", int8(r, WeightScale::PerTensor, "keep")),
        ("fold-weights in f16", f16),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(name, row)| {
            let accuracy = row?.accuracy?;
            Some(match (accuracy.top1.zip(r.f32_top1), r.shows_shares()) {
                (Some((top1, reference)), true) => points(name, 100.0 * (reference - top1)),
                (None, true) => {
                    format!("{name} agrees with f32 on {:.1} % of the pictures", 100.0 * accuracy.agreement)
                }
                (_, false) => format!("{name} {:.4}", accuracy.logit_error),
            })
        })
        .collect();
    let title = if r.shows_shares() { "" } else { "Logit errors: " };
    (!parts.is_empty()).then(|| format!("{title}{}.", parts.join(", ")))
}

fn points(name: &str, lost: f64) -> String {
    if lost > 0.05 { format!("{name} loses {lost:.1} points") } else { format!("{name} loses nothing") }
}

/// Against a runtime that does not know LayerScale: a pass of its own for gamma, and one scale for each matrix.
fn savings(r: &Report) -> Option<String> {
    let fold = int8(r, WeightScale::PerChannel, "fold")?;
    let pass = int8(r, WeightScale::PerChannel, "keep-pass")?;
    let memory = output::bytes(pass.scratch_bytes.saturating_sub(fold.scratch_bytes) as u64);
    let mut sentence = format!(
        "On this machine folding saves {memory} of memory and {} over a separate pass for gamma.",
        time_saved(pass.ratio)
    );
    let tensor = int8(r, WeightScale::PerTensor, "keep-pass").and_then(|row| row.five_decades);
    if let Some((fold, tensor)) = fold.five_decades.zip(tensor) {
        sentence += &format!(
            " Where gammas lie five decades apart, its logit error is {:.4}, and the error of one scale per tensor is \
             {:.4}.",
            fold.logit_error, tensor.logit_error
        );
    }
    Some(sentence)
}

/// Of an inference, as a share of the time of the slower one.
fn time_saved(slower: Ratio) -> String {
    if slower.is_noise() {
        return "no time beyond the noise".to_string();
    }
    let saved = |ratio: f64| 100.0 * (1.0 - 1.0 / ratio);
    let [low, median, high] = [slower.low, slower.median, slower.high].map(saved);
    format!("{median:.1} % of the time ({low:.1} to {high:.1} % in the middle half of the rounds)")
}
