//! The comparison as a picture: a band for each variant, with its ratio of times and their spread, and the error of its
//! logits.

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
        let errors = |row: &Row| [row.accuracy, row.five_decades].map(|a| a.map(|a| a.logit_error));
        let label = format!("against f32, {} pictures", r.pictures);
        let axis = Axis::log(&label, r.rows.iter().flat_map(errors).flatten());
        let mut panel = figure.panel("relative error of the logits", 200.0, &bands, &axis);
        if r.rows.iter().any(|row| row.five_decades.is_some()) {
            panel.legend(&[(Color::Gray, "gammas over five more decades")]);
        }
        for (i, row) in r.rows.iter().enumerate() {
            let ours = [(color(row), "", 10.0), (Color::Gray, ", five decades", -16.0)];
            for ((color, which, above), error) in ours.into_iter().zip(errors(row)) {
                let Some(error) = error else { continue };
                panel.dot(color, (i as f64, error), &format!("{}{which}: {error:.4}", name(row)));
                panel.note(None, (i as f64, error), above, &format!("{error:.3}"));
            }
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
