//! `vitlet bench layerscale`: one checkpoint with its gammas folded and unfolded, side by side: time, size and, with
//! pictures, accuracy. Without arguments it is the project's showcase: the built-in network, and beside it the same
//! function with gammas that lie decades apart (`spread`).

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use vitlet::{Named, Precision};
use vitlet_convert::output::TemporaryFolder;
use vitlet_convert::{Mode, Options, WeightScale};

use crate::commands::eval;
use crate::error::{Error, Result};
use crate::inference::{Compute, ComputeArgs, Inference};
use crate::mapped::Watch;
use crate::model::{ModelFile, built_in_checkpoint};
use crate::output::{self, NAME, Out, QUIET, STRONG};
use crate::side_by_side::{Accuracy, Ratio, Tallies, classify, time};
use crate::{dataset, files, hub, stats};

mod conclusion;
mod plot;
mod spread;

/// Pictures from which on shares of them are shown: with fewer, one picture is more than a point. The logit error says
/// something about a single picture.
const ENOUGH: usize = 100;

#[derive(Args)]
pub struct LayerScaleArgs {
    /// A checkpoint directory, hf:OWNER/NAME, or an f32 .gguf that keeps its gammas; by default the built-in model's
    /// checkpoint
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
}

/// The report, and its conclusion.
#[derive(Serialize)]
struct Document<'r> {
    #[serde(flatten)]
    report: &'r Report,
    /// Sentences, separated by spaces.
    conclusion: String,
}

impl Report {
    /// Whether there are pictures enough for top-1 and agreement.
    fn shows_shares(&self) -> bool {
        self.pictures >= ENOUGH
    }
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
    /// Of the same function with its gammas spread over five more decades; the built-in network's alone.
    five_decades: Option<Accuracy>,
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

/// What is compared.
struct Source {
    /// The checkpoint.
    path: PathBuf,
    name: String,
    /// The folders of the built-in network and of its spread twin, where no checkpoint was named.
    built_in: Option<[TemporaryFolder; 2]>,
}

impl Source {
    fn new(checkpoint: Option<&Path>) -> Result<Self> {
        if let Some(path) = checkpoint {
            return Ok(Self { path: hub::local(path)?, name: path.display().to_string(), built_in: None });
        }
        let folders = [built_in_checkpoint()?, spread::checkpoint()?];
        Ok(Self { path: folders[0].path().to_path_buf(), name: "built-in".to_string(), built_in: Some(folders) })
    }

    /// The built-in network's own pictures.
    fn pictures(&self) -> Option<PathBuf> {
        self.built_in.as_ref().map(|[folder, _]| folder.path().join("pictures"))
    }

    /// All variants of the checkpoint, then all of the spread one.
    fn convert(&self, variants: &[Variant]) -> Result<Vec<ModelFile>> {
        let spread = self.built_in.as_ref().map(|[_, spread]| spread.path());
        let sources: Vec<&Path> = [self.path.as_path()].into_iter().chain(spread).collect();
        let bar = output::progress((sources.len() * variants.len()) as u64, "converting {bar:40.cyan} {pos}/{len}");
        let convert = |source: &&Path, variant: &Variant| {
            bar.inc(1);
            variant.convert(source)
        };
        let models = sources.iter().flat_map(|source| variants.iter().map(move |variant| convert(source, variant)));
        let models = models.collect();
        bar.finish_and_clear();
        models
    }
}

pub fn run(args: LayerScaleArgs) -> Result<()> {
    files::refuse_stdout(args.json, &args.plot)?;
    let source = Source::new(args.source.as_deref())?;
    if let Some(plot) = &args.plot {
        files::refuse_checkpoint(plot, &source.path)?;
        files::refuse_inputs(plot, &args.images)?;
    }
    refuse_folded(&source.path)?;
    let images = args.images.clone().or_else(|| source.pictures());
    let compute = Compute::new(&args.compute)?;

    let reference = convert(&source.path, &Options { precision: Precision::F32, ..Options::default() })?;
    if reference.parse()?.config().layerscale == vitlet::LayerScale::None {
        return Err(Error::new(source.name, "no LayerScale: nothing to fold"));
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
    let models = source.convert(&variants)?;
    let mut inferences: Vec<Inference> =
        models.iter().map(|file| Inference::new(file, &compute)).collect::<Result<_>>()?;

    // The spread network has the same operations, so its times would be the same.
    let times = time(&mut inferences[..variants.len()], args.rounds, pictures.len())?;
    let scratch: Vec<usize> = inferences.iter().map(|inference| inference.plan().scratch_bytes()).collect();
    let tallies = classify(&mut inferences, Inference::new(&reference, &compute)?, &pictures);

    let rows = rows(&variants, &models, &times, &scratch, &tallies);
    let report = Report {
        source: source.name,
        machine: machine(),
        kernel: compute.kernels.name(),
        threads: compute.threads,
        rounds: args.rounds,
        pictures: tallies.inputs.count(),
        f32_top1: tallies.reference_top1(),
        rows,
    };
    if let Some(path) = &args.plot {
        files::write(path, plot::draw(&report).as_bytes())?;
    }
    if args.json {
        output::json(&Document { report: &report, conclusion: conclusion::of(&report).join(" ") })?
    } else {
        print(&mut output::beside(&args.plot), &report)?
    }
    tallies.inputs.end()
}

/// `models` and `tallies` go on with the spread network's after the last variant.
fn rows(
    variants: &[Variant],
    models: &[ModelFile],
    times: &[Vec<f64>],
    scratch: &[usize],
    tallies: &Tallies,
) -> Vec<Row> {
    let row = |(i, v): (usize, &Variant)| {
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
            five_decades: tallies.accuracy(variants.len() + i),
        }
    };
    variants.iter().enumerate().map(row).collect()
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
            "its gammas are folded already, so there is nothing to compare: give the checkpoint directory from which \
             it was made"
        }
        _ if config.precision != Precision::F32 => {
            "its weights are quantized already: give the checkpoint directory from which it was made"
        }
        _ => return Ok(()),
    };
    Err(Error::new(source.display(), why))
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
    match r.f32_top1.filter(|_| r.shows_shares()) {
        Some(top1) => writeln!(out, "{} pictures, f32 top-1 {:.2} %", r.pictures, 100.0 * top1)?,
        None if r.shows_shares() => writeln!(out, "{} pictures, no labels", r.pictures)?,
        None if r.pictures > 0 => {
            let note = format!("top-1 and agreement with f32 are shown from {ENOUGH} pictures on");
            writeln!(out, "{} pictures, {QUIET}{note}{QUIET:#}", r.pictures)?;
        }
        None => {}
    }
    let spread = r.rows.iter().any(|row| row.five_decades.is_some());
    let mut header = vec!["weights", "gamma", "ms", "of fold", "middle half", "model", "scratch"];
    let with = |present: bool, names: &[&'static str]| if present { names.to_vec() } else { Vec::new() };
    header.extend(with(r.shows_shares() && r.f32_top1.is_some(), &["top-1, %"]));
    header.extend(with(r.shows_shares(), &["agrees, %"]));
    header.extend(with(r.pictures > 0, &["logit error"]));
    header.extend(with(spread, &["five decades"]));
    let rows: Vec<Vec<String>> = r.rows.iter().map(|row| cells(row, r.shows_shares())).collect();
    output::table(out, &header, &rows)?;
    let note = format!(
        "of fold: the time divided by fold's time in the same round, the median of {} rounds; middle half: from the \
         lower to the upper quartile. A range that holds 1 is noise.",
        r.rounds
    );
    writeln!(out, "{QUIET}{note}{QUIET:#}")?;
    if spread {
        let note = "five decades: logit error of the same function with its gammas spread over five more decades";
        writeln!(out, "{QUIET}{note}{QUIET:#}")?;
    }
    for sentence in conclusion::of(r) {
        writeln!(out, "{STRONG}{sentence}{STRONG:#}")?;
    }
    Ok(())
}

fn cells(row: &Row, shares: bool) -> Vec<String> {
    let mut cells = vec![
        row.weight_scale.map_or(row.precision.to_string(), |scale| format!("{} {scale}", row.precision)),
        row.mode.to_string(),
        format!("{:.3}", row.median_ms),
        format!("{:.3}", row.ratio.median),
        format!("{:.3} to {:.3}", row.ratio.low, row.ratio.high),
        output::bytes(row.model_bytes as u64),
        output::bytes(row.scratch_bytes as u64),
    ];
    if let Some(a) = row.accuracy.filter(|_| shares) {
        cells.extend(a.top1.map(|top1| format!("{:.2}", 100.0 * top1)));
        cells.push(format!("{:.2}", 100.0 * a.agreement));
    }
    cells.extend([row.accuracy, row.five_decades].iter().flatten().map(|a| format!("{:.4}", a.logit_error)));
    cells
}
