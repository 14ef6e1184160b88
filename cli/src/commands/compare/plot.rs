//! `--plot`: errors along the network.

use super::{PlaceReport, Report};
use crate::plot::{Axis, Color, Figure};

const SERIES: [(&str, Color, &str); 5] = [
    ("stream", Color::Teal, "residual stream"),
    ("attention", Color::Blue, "attention branch"),
    ("local", Color::Pink, "local branch"),
    ("mlp", Color::Orange, "MLP branch"),
    ("heads", Color::Gray, "heads"),
];

/// The picture of a comparison.
pub fn draw(r: &Report) -> String {
    let subtitle = format!(
        "{} ({}, LayerScale {}) against {}, {} picture{}",
        r.model,
        r.precision,
        r.layerscale,
        r.reference,
        r.pictures,
        if r.pictures == 1 { "" } else { "s" }
    );
    let mut figure = Figure::new("Where precision is lost", &subtitle);
    let error = |p: &PlaceReport| p.distance.relative_error;
    panel(
        &mut figure,
        r,
        260.0,
        "Relative error, |model - reference| / |reference|",
        "relative error",
        error,
        r.output.as_ref().map(|output| output.relative_error),
    );
    let angle = |p: &PlaceReport| 1.0 - p.distance.cosine;
    panel(
        &mut figure,
        r,
        170.0,
        "Change of direction",
        "1 - cosine",
        angle,
        r.output.as_ref().map(|output| 1.0 - output.cosine),
    );
    let share = |p: &PlaceReport| p.distance.worst_channel.share;
    panel(&mut figure, r, 170.0, "Share of the worst channel", "of the squared error", share, None);
    figure.finish()
}

fn panel(
    figure: &mut Figure,
    r: &Report,
    height: f64,
    name: &str,
    unit: &str,
    value: impl Fn(&PlaceReport) -> f64,
    output: Option<f64>,
) {
    // The embedding, where it is known, stands before block 0, the output after the last block.
    let before = usize::from(r.places.iter().any(|p| p.block.is_none()));
    let band = |p: &PlaceReport| p.block.map_or(0, |b| b + before);
    let blocks = r.places.iter().filter_map(|p| p.block).max().map_or(0, |b| b + 1);
    let last = if r.same_label.is_some() { "logits" } else { "features" };
    let names = std::iter::repeat_n("input".to_string(), before)
        .chain((0..blocks).map(|b| b.to_string()))
        .chain([last.to_string()]);
    let values = r.places.iter().map(&value).chain(output);
    let mut panel = figure.panel(name, height, &Axis::bands("block", names), &Axis::log(unit, values));
    for (place, color, _) in SERIES.iter().rev() {
        let points = r.places.iter().filter(|p| p.place == *place).map(|p| (band(p) as f64, value(p)));
        let points: Vec<_> = points.filter(|(_, v)| *v > 0.0).collect();
        if !points.is_empty() {
            panel.line(*color, &points);
        }
    }
    if let Some(output) = output.filter(|v| *v > 0.0) {
        let at = ((before + blocks) as f64, output);
        panel.dot(Color::Pink, at, &format!("{last}: {output:.3e}"));
        panel.note(None, at, 9.0, &if output < 1e-3 { format!("{output:.1e}") } else { format!("{output:.3}") });
    }
    let drawn = SERIES.iter().filter(|(place, ..)| r.places.iter().any(|p| p.place == *place));
    panel.legend(&drawn.map(|&(_, color, name)| (color, name)).collect::<Vec<_>>());
}
