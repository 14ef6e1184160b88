//! `--plot`: a model file at a glance. LayerScale's gammas as distributions, the error of quantization in the weights,
//! and the sizes of the layers.

use vitlet::{Config, Model, Precision};

use super::weights::Layer;
use crate::output;
use crate::plot::{Axis, Color, Figure, Panel};

/// Bins of log |gamma| over the whole axis.
const BINS: usize = 60;
/// Half of a band's width that a distribution may take.
const HALF: f64 = 0.44;
const MATRIX_COLORS: [Color; 4] = [Color::Blue, Color::Orange, Color::Teal, Color::Pink];

/// The picture of `model`, called `name`.
pub fn draw(model: &Model, name: &str, layers: &[Layer]) -> String {
    let c = model.config();
    let bytes: usize = layers.iter().map(|l| l.bytes).sum();
    let title = model.name().unwrap_or(name);
    let subtitle = format!(
        "{name}: {} blocks, dim {}, {} tokens, {}, {}, LayerScale {}",
        c.depth,
        c.dim,
        c.tokens(),
        vitlet::Named::name(c.precision),
        output::bytes(bytes as u64),
        vitlet::Named::name(c.layerscale)
    );
    let mut figure = Figure::new(title, &subtitle);
    for (branch, what) in [(0, "attention"), (2, "local"), (1, "MLP")] {
        if let Some(gamma) = model.original_gamma(branch) {
            draw_gamma(&mut figure, &gamma.collect::<Vec<_>>(), c, &format!("LayerScale of the {what} branch"));
        }
    }
    if c.precision != Precision::F32 {
        draw_sqnr(&mut figure, layers);
    }
    draw_sizes(&mut figure, layers);
    figure.finish()
}

/// One distribution per block: channels with positive gamma to the left, with negative gamma to the right.
fn draw_gamma(figure: &mut Figure, gamma: &[f32], c: &Config, what: &str) {
    let sizes = || gamma.iter().map(|g| f64::from(g.abs())).filter(|g| *g >= f64::from(f32::MIN_POSITIVE));
    let y = Axis::log("|gamma|", sizes());
    let (low, high) = log_ends(sizes());
    let blocks: Vec<_> = (0..c.blocks()).filter_map(|i| gamma.get(c.block_channels(i))).collect();
    let x = Axis::bands("block", (0..blocks.len()).map(|i| i.to_string()));
    let mut panel = figure.panel(what, 220.0, &x, &y);
    let mut any = [false; 2];
    for (i, block) in blocks.into_iter().enumerate() {
        let signs = [1.0, -1.0].map(|sign| histogram(block, sign, low, high));
        let most = signs.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        for (side, (bins, color)) in signs.iter().zip([Color::Blue, Color::Orange]).enumerate() {
            let count = block.iter().filter(|g| if side == 0 { **g > 0.0 } else { **g < 0.0 }).count();
            if bins.iter().any(|b| *b > 0.0) {
                any[side] = true;
                let direction = if side == 0 { -HALF } else { HALF };
                let title =
                    format!("block {i}: {count} of {} channels {}", block.len(), ["positive", "negative"][side]);
                panel.area(color, &outline(bins, i as f64, direction / most, low, high), &title);
            }
        }
        mark_middle_and_dead(&mut panel, block, i as f64, 10f64.powf(low));
    }
    let entries = [
        (Color::Blue, "positive"),
        (Color::Orange, "negative"),
        (Color::Gray, "median"),
        (Color::Red, "channels with gamma 0"),
    ];
    let dead = gamma.iter().any(|g| !g.is_normal());
    let shown = [true, any[1], true, dead];
    panel.legend(&entries.into_iter().zip(shown).filter(|(_, shown)| *shown).map(|(e, _)| e).collect::<Vec<_>>());
}

fn log_ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.map(f64::log10).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high { (-1.0, 0.0) } else { (low.floor(), high.ceil().max(low.floor() + 1.0)) }
}

/// Channels of one sign by log |gamma|, smoothed once with weights 1, 2, 1.
fn histogram(gamma: &[f32], sign: f32, low: f64, high: f64) -> Vec<f64> {
    let mut bins = [0.0; BINS];
    for g in gamma.iter().map(|g| f64::from(g * sign)).filter(|g| *g >= f64::from(f32::MIN_POSITIVE)) {
        let bin = (g.log10() - low) / (high - low) * BINS as f64;
        bins[(bin as usize).min(BINS - 1)] += 1.0;
    }
    let at = |i: usize| bins.get(i).copied().unwrap_or(0.0);
    (0..BINS).map(|i| (at(i.wrapping_sub(1)) + 2.0 * at(i) + at(i + 1)) / 4.0).collect()
}

fn outline(bins: &[f64], center: f64, scale: f64, low: f64, high: f64) -> Vec<(f64, f64)> {
    let height = |i: f64| 10f64.powf(low + (high - low) * i / BINS as f64);
    let first = bins.iter().position(|b| *b > 0.0).unwrap_or(0);
    let last = bins.iter().rposition(|b| *b > 0.0).unwrap_or(0);
    let curve = (first..=last).map(|i| (center + scale * bins[i], height(i as f64 + 0.5)));
    [(center, height(first as f64))].into_iter().chain(curve).chain([(center, height(last as f64 + 1.0))]).collect()
}

fn mark_middle_and_dead(panel: &mut Panel, block: &[f32], at: f64, bottom: f64) {
    let mut sizes: Vec<f32> = block.iter().map(|g| g.abs()).filter(|g| g.is_normal()).collect();
    sizes.sort_unstable_by(f32::total_cmp);
    if let Some(&median) = sizes.get(sizes.len() / 2) {
        panel.stroke(Color::Gray, (at - HALF, median.into()), (at + HALF, median.into()));
    }
    let dead = block.len() - sizes.len();
    if dead > 0 {
        panel.note(Some(Color::Red), (at, bottom), 6.0, &format!("✕ {dead}"));
    }
}

/// One line for each matrix of a block; matrices beside the blocks are dots.
fn draw_sqnr(figure: &mut Figure, layers: &[Layer]) {
    let shown: Vec<&Layer> = layers.iter().filter(|l| !l.matrices.is_empty()).collect();
    let all = shown.iter().flat_map(|l| &l.matrices).filter_map(|m| m.1);
    let (low, high) = all.fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
    if high == 0.0 {
        return;
    }
    let x = Axis::bands("layer", shown.iter().map(|l| band(l)));
    let y = Axis::linear("dB, higher is better", low - 1.0, high + 1.0);
    let mut panel = figure.panel("Signal to quantization noise of the weights (expected)", 180.0, &x, &y);
    let names = matrix_names(layers);
    let color = |name: &str| MATRIX_COLORS[names.iter().position(|n| n == name).unwrap_or(0) % MATRIX_COLORS.len()];
    for name in &names {
        let value = |l: &Layer| l.matrices.iter().find(|m| m.0 == *name).and_then(|m| m.1);
        let points: Vec<_> = shown.iter().enumerate().filter_map(|(i, l)| Some((i as f64, value(l)?))).collect();
        panel.line(color(name), &points);
    }
    for (i, layer) in shown.iter().enumerate().filter(|(_, l)| l.block().is_none()) {
        for (name, sqnr) in layer.matrices.iter().filter_map(|m| Some((&m.0, m.1?))) {
            panel.dot(Color::Gray, (i as f64, sqnr), &format!("{name}: {sqnr:.1} dB"));
        }
    }
    let legend: Vec<_> = names.iter().map(|n| (color(n), n.as_str())).collect();
    panel.legend(&legend);
}

fn draw_sizes(figure: &mut Figure, layers: &[Layer]) {
    let kilobytes = |l: &Layer| l.bytes as f64 / 1e3;
    let most = layers.iter().map(kilobytes).fold(0.0, f64::max);
    let (unit, scale) = if most > 2000.0 { ("MB", 1e-3) } else { ("kB", 1.0) };
    let x = Axis::bands("layer", layers.iter().map(band));
    let mut panel = figure.panel("Size", 150.0, &x, &Axis::linear(unit, 0.0, most * scale));
    for (i, layer) in layers.iter().enumerate() {
        let color = if layer.block().is_some() { Color::Blue } else { Color::Gray };
        let title = format!("{}: {}", layer.name, output::bytes(layer.bytes as u64));
        panel.bar(color, (i as f64 - 0.36, 0.0), (i as f64 + 0.36, kilobytes(layer) * scale), &title);
    }
    panel.legend(&[(Color::Blue, "blocks"), (Color::Gray, "beside them")]);
}

fn band(layer: &Layer) -> String {
    layer.block().map_or_else(|| layer.name.trim_end_matches("_embd").to_string(), |b| b.to_string())
}

/// The names of quantized matrices within blocks, in the order in which they come.
fn matrix_names(layers: &[Layer]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, sqnr) in layers.iter().filter(|l| l.block().is_some()).flat_map(|l| &l.matrices) {
        if sqnr.is_some() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
