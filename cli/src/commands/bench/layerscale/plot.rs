//! The comparison as a picture: the ratio of times with its spread, and the error of the logits, a band for each variant.

use super::{Report, Row};
use crate::plot::{Axis, Color, Figure};

/// An SVG file.
pub(super) fn draw(r: &Report) -> String {
    let subtitle = format!("{}: {}, kernel {}, {} threads", r.source, r.machine, r.kernel, r.threads);
    let mut figure = Figure::new("LayerScale folded and unfolded", &subtitle);
    let bands = Axis::bands("", r.rows.iter().map(name));
    let highest = r.rows.iter().map(|row| row.ratio.high).fold(1.0, f64::max);
    let mut panel = figure.panel(
        "time, of fold (dot: median, bar: quartiles)",
        200.0,
        &bands,
        &Axis::linear("ratio", 0.0, highest),
    );
    for (i, row) in r.rows.iter().enumerate() {
        let (x, ratio) = (i as f64, row.ratio);
        let title = format!("{}: {:.3} ({:.3} to {:.3})", name(row), ratio.median, ratio.low, ratio.high);
        panel.bar(color(row), (x - 0.25, 0.0), (x + 0.25, ratio.median), &title);
        panel.stroke(Color::Gray, (x, ratio.low), (x, ratio.high));
        panel.note(None, (x, ratio.high), 6.0, &format!("{:.2}", ratio.median));
    }
    if r.pictures > 0 {
        let errors = || r.rows.iter().filter_map(|row| row.accuracy).map(|a| a.logit_error);
        let label = format!("against f32, {} pictures", r.pictures);
        let mut panel = figure.panel("relative error of the logits", 200.0, &bands, &Axis::log(&label, errors()));
        for (i, (row, error)) in r.rows.iter().zip(errors()).enumerate() {
            panel.dot(color(row), (i as f64, error), &format!("{}: {error:.4}", name(row)));
            panel.note(None, (i as f64, error), 10.0, &format!("{error:.3}"));
        }
    }
    figure.finish()
}

fn name(row: &Row) -> String {
    let weights = match row.weight_scale {
        Some("per-tensor") => "tensor",
        Some(_) => "int8",
        None => row.precision,
    };
    format!("{weights} {}", row.mode)
}

fn color(row: &Row) -> Color {
    match (row.precision, row.weight_scale) {
        ("int8", Some("per-tensor")) => Color::Orange,
        ("int8", _) => Color::Blue,
        _ => Color::Teal,
    }
}
