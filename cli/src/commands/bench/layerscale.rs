//! `vitlet bench layerscale`: one checkpoint with its gammas folded and unfolded, side by side: time, size and, with pictures, accuracy.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use vitlet::{Named, Precision};
use vitlet_convert::{Mode, Options, WeightScale};

use crate::commands::eval;
use crate::error::{Error, Result};
use crate::inference::{Compute, ComputeArgs, Inference};
use crate::mapped::Watch;
use crate::model::{ModelFile, built_in_checkpoint};
use crate::output::{self, NAME, Out, QUIET, STRONG};
use crate::side_by_side::{Accuracy, Ratio, classify, time};
use crate::{dataset, files, stats};

mod plot;

#[derive(Args)]
pub struct LayerScaleArgs {
    /// A checkpoint directory, or an f32 .gguf that keeps its gammas; by default the built-in model's checkpoint
    #[arg(value_name = "SRC")]
    source: Option<PathBuf>,

    /// Pictures: one folder per class or a CSV of path,label lines; any directory for the agreement with f32 alone
    #[arg(long, value_name = "DIR_OR_CSV")]
    images: Option<PathBuf>,

    /// Turns of each model that are measured
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Draw the result
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    source: String,
    machine: String,
    kernel: &'static str,
    threads: usize,
    rounds: u32,
    /// Pictures that were classified.
    pictures: usize,
    /// Share of pictures that f32 classifies rightly; null without labels.
    f32_top1: Option<f64>,
    rows: Vec<Row>,
    conclusion: String,
}

/// One precision, kind of weight scale and mode.
#[derive(Serialize)]
struct Row {
    precision: &'static str,
    /// Of int8 weights.
    weight_scale: Option<&'static str>,
    mode: &'static str,
    median_ms: f64,
    /// To `fold`, per channel, in the same precision.
    ratio: Ratio,
    model_bytes: usize,
    scratch_bytes: usize,
    accuracy: Option<Accuracy>,
}

/// A way to store the checkpoint.
#[derive(Clone, Copy)]
struct Variant {
    precision: Precision,
    weight_scale: WeightScale,
    mode: Mode,
}

impl Variant {
    /// int8 per channel and per tensor, and f16, in every mode; each group begins with `fold`.
    fn all() -> Vec<Self> {
        let groups = [
            (Precision::Int8, WeightScale::PerChannel),
            (Precision::Int8, WeightScale::PerTensor),
            (Precision::F16, WeightScale::PerChannel),
        ];
        let modes = [Mode::Fold, Mode::FoldWeights, Mode::Keep, Mode::KeepPass];
        let group = |(precision, weight_scale)| modes.map(|mode| Self { precision, weight_scale, mode });
        groups.into_iter().flat_map(group).collect()
    }

    fn convert(self, source: &Path) -> Result<ModelFile> {
        let Self { precision, weight_scale, mode: layerscale } = self;
        convert(source, &Options { precision, weight_scale, layerscale, ..Options::default() })
    }
}

pub fn run(args: LayerScaleArgs) -> Result<()> {
    let built_in = if args.source.is_none() { Some(built_in_checkpoint()?) } else { None };
    let source = match (&args.source, &built_in) {
        (Some(source), _) => source.clone(),
        (None, Some(folder)) => folder.path().to_path_buf(),
        (None, None) => unreachable!("the built-in checkpoint was just written"),
    };
    let name = args.source.as_ref().map_or("built-in".to_string(), |s| s.display().to_string());
    files::refuse_stdout(args.json, &args.plot)?;
    if let Some(plot) = &args.plot {
        files::refuse_checkpoint(plot, &source)?;
        files::refuse_inputs(plot, &args.images)?;
    }
    refuse_folded(&source)?;
    let images = args.images.clone().or_else(|| built_in.as_ref().map(|folder| folder.path().join("pictures")));
    let compute = Compute::new(&args.compute)?;

    let reference = convert(&source, &Options { precision: Precision::F32, ..Options::default() })?;
    if reference.parse()?.config().layerscale == vitlet::LayerScale::None {
        return Err(Error::new(name, "no LayerScale: nothing to fold"));
    }
    let pictures = match &images {
        Some(path) => {
            let model = reference.parse()?;
            dataset::open(path, &eval::classes(model.labels().collect(), model.config().classes))?.entries
        }
        None => Vec::new(),
    };
    if let Some(plot) = &args.plot {
        files::refuse_inputs(plot, files::of_pictures(pictures.iter().map(|entry| &entry.source)))?;
    }
    let variants = Variant::all();
    let bar = output::progress(variants.len() as u64, "converting {bar:40.cyan} {pos}/{len}");
    let models: Vec<ModelFile> = variants
        .iter()
        .map(|v| {
            bar.inc(1);
            v.convert(&source)
        })
        .collect::<Result<_>>()?;
    bar.finish_and_clear();
    let mut inferences: Vec<Inference> =
        models.iter().map(|file| Inference::new(file, &compute)).collect::<Result<_>>()?;

    let times = time(&mut inferences, args.rounds, pictures.len())?;
    let scratch: Vec<usize> = inferences.iter().map(|inference| inference.plan().scratch_bytes()).collect();
    let reference_model = Inference::new(&reference, &compute)?;
    let tallies = classify(&mut inferences, reference_model, &pictures);

    let rows: Vec<Row> = (0..variants.len())
        .map(|i| {
            let v = variants[i];
            let fold = variants.iter().position(|w| w.precision == v.precision).unwrap_or(0);
            Row {
                precision: v.precision.name(),
                weight_scale: (v.precision == Precision::Int8).then_some(v.weight_scale.name()),
                mode: v.mode.name(),
                median_ms: stats::median(&times[i]),
                ratio: Ratio::new(&times[i], &times[fold]),
                model_bytes: models[i].bytes().len(),
                scratch_bytes: scratch[i],
                accuracy: tallies.accuracy(i),
            }
        })
        .collect();
    let report = Report {
        source: name,
        machine: machine(),
        kernel: compute.kernels.name(),
        threads: compute.threads,
        rounds: args.rounds,
        pictures: tallies.inputs.count(),
        f32_top1: tallies.reference_top1(),
        conclusion: conclusion(&rows, tallies.reference_top1()),
        rows,
    };
    if let Some(path) = &args.plot {
        files::write(path, plot::draw(&report).as_bytes())?;
    }
    if args.json {
        output::json(&report)?
    } else {
        print(&mut output::beside(&args.plot), &report)?
    }
    tallies.inputs.end()
}

fn convert(source: &Path, options: &Options) -> Result<ModelFile> {
    let _watch = Watch::everywhere(&source.display().to_string());
    let converted = vitlet_convert::convert(source, options, &mut |_| {})?;
    Ok(ModelFile::converted(converted, source.display().to_string()))
}

/// A model file whose gammas are not separate any more can not be unfolded.
fn refuse_folded(source: &Path) -> Result<()> {
    if !source.is_file() {
        return Ok(());
    }
    let file = ModelFile::open(source)?;
    let config = *file.parse()?.config();
    let why = match config.layerscale {
        vitlet::LayerScale::None => "no LayerScale: nothing to fold",
        vitlet::LayerScale::Fold | vitlet::LayerScale::FoldWeights => {
            "its gammas are folded already, and what is folded cannot be compared with what is not: give the checkpoint directory that it was made of"
        }
        _ if config.precision != Precision::F32 => {
            "its weights are quantized already: give the checkpoint directory that it was made of"
        }
        _ => return Ok(()),
    };
    Err(Error::new(source.display(), why))
}

/// The whole comparison in one sentence.
fn conclusion(rows: &[Row], f32_top1: Option<f64>) -> String {
    let find = |precision: &str, scale: Option<&str>, mode: &str| {
        rows.iter().find(|r| r.precision == precision && r.weight_scale == scale && r.mode == mode)
    };
    let (channel, tensor) = (Some(WeightScale::PerChannel.name()), Some(WeightScale::PerTensor.name()));
    let cost = |mode: &str| {
        let ratio = find("int8", channel, mode).map(|r| r.ratio)?;
        let noise = if ratio.is_noise() { " (noise)" } else { "" };
        Some(format!("{mode} costs {:.2} +- {:.2} of fold{noise}", ratio.median, ratio.spread()))
    };
    let loss = |what: &str, row: Option<&Row>| {
        let accuracy = row?.accuracy?;
        Some(match (accuracy.top1, f32_top1) {
            (Some(top1), Some(reference)) => {
                let points = 100.0 * (reference - top1);
                if points > 0.05 { format!("{what} loses {points:.1} points") } else { format!("{what} loses nothing") }
            }
            _ => format!("{what} agrees with f32 on {:.0} % of the pictures", 100.0 * accuracy.agreement),
        })
    };
    let parts = [
        cost("keep"),
        cost("keep-pass"),
        loss("fold", find("int8", channel, "fold")),
        loss("fold-weights per tensor", find("int8", tensor, "fold-weights")),
        loss("keep per tensor", find("int8", tensor, "keep")),
        loss("fold-weights in f16", find("f16", None, "fold-weights")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What computes: the board's name or the processor's, as Linux tells it.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let board = read("/proc/device-tree/model").map(|m| m.trim_end_matches('\0').to_string());
    let processor = || {
        let info = read("/proc/cpuinfo")?;
        let line = info.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    board.or_else(processor).unwrap_or_else(|| format!("{} {}", std::env::consts::ARCH, std::env::consts::OS))
}

fn print(out: &mut Out, r: &Report) -> Result<()> {
    let plural = if r.threads == 1 { "" } else { "s" };
    writeln!(out, "{NAME}{}{NAME:#}  LayerScale folded and unfolded", r.source)?;
    writeln!(
        out,
        "{}, kernel {}, {} thread{plural}, {QUIET}{} rounds of interleaved runs{QUIET:#}",
        r.machine, r.kernel, r.threads, r.rounds
    )?;
    if r.pictures > 0 {
        let top1 = r.f32_top1.map_or("no labels".to_string(), |t| format!("f32 top-1 {:.2} %", 100.0 * t));
        writeln!(out, "{} pictures, {top1}", r.pictures)?;
    }
    let mut header = vec!["weights", "gamma", "ms", "of fold", "+-", "model", "scratch"];
    let with = |present: bool, names: &[&'static str]| if present { names.to_vec() } else { Vec::new() };
    header.extend(with(r.f32_top1.is_some(), &["top-1, %"]));
    header.extend(with(r.pictures > 0, &["agrees, %", "logit error"]));
    let rows: Vec<Vec<String>> = r.rows.iter().map(cells).collect();
    output::table(out, &header, &rows)?;
    writeln!(out, "{STRONG}{}{STRONG:#}", r.conclusion)?;
    Ok(())
}

fn cells(row: &Row) -> Vec<String> {
    let mut cells = vec![
        row.weight_scale.map_or(row.precision.to_string(), |scale| format!("{} {scale}", row.precision)),
        row.mode.to_string(),
        format!("{:.3}", row.median_ms),
        format!("{:.3}", row.ratio.median),
        format!("{:.3}", row.ratio.spread()),
        output::bytes(row.model_bytes as u64),
        output::bytes(row.scratch_bytes as u64),
    ];
    if let Some(a) = row.accuracy {
        cells.extend(a.top1.map(|top1| format!("{:.2}", 100.0 * top1)));
        cells.extend([format!("{:.2}", 100.0 * a.agreement), format!("{:.4}", a.logit_error)]);
    }
    cells
}
