//! `vitlet bench`: the time of one inference, from a normalized tensor to logits, the memory that it took, and the time
//! from a camera's frame to its answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use serde::Serialize;
use vitlet::layout::Kept;
use vitlet::networks::count;
use vitlet::peak::{Mac, Peak};
use vitlet::{Config, Kernels, Model, Named, Precision, Profile, Stage};

use crate::backend::OnnxFile;
use crate::board::{self, Board};
use crate::camera::RawFormat;
use crate::error::{Context, Error, Result};
use crate::inference::{Compute, ComputeArgs, Inference, SizeArgs, synthetic_input};
use crate::model::{BUILT_IN_NOTE, ModelFile};
use crate::output::{self, NAME, Out, QUIET, STRONG, WARNING};
use crate::{files, hub};

mod frame;
mod layerscale;
mod minutes;
mod times;

use frame::FrameTime;
use minutes::Minute;
use times::{Start, Times};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    study: Option<Study>,

    /// Model file or hf:OWNER/NAME; without it, the built-in model
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,

    /// Time this ONNX file, run by tract in f32 on one thread, between the model's inferences
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,

    #[command(flatten)]
    size: SizeArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Inferences before the measured ones
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: usize,

    /// Inferences that are measured
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    iters: u32,

    /// Measure for that long instead, and show the median of each minute: throttling shows
    #[arg(long, value_name = "N", conflicts_with = "iters", value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: Option<u64>,

    /// The camera's frames whose time to the answer is measured, too
    #[arg(long, value_name = "FORMAT:WxH[:STRIDE]", default_value_t = RawFormat::I420_640X480)]
    raw: RawFormat,

    /// Draw the times of each minute, and the temperature where the board tells it
    #[arg(long, value_name = "FILE.svg", requires = "minutes")]
    plot: Option<PathBuf>,

    /// Show where the time goes, operation by operation, beside the core's measured peak
    #[arg(long)]
    profile: bool,

    /// Print a row for a table of results, under its heading
    #[arg(long, conflicts_with = "json")]
    markdown: bool,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Study {
    /// A checkpoint's LayerScale folded and unfolded, side by side
    #[command(name = "layerscale")]
    LayerScale(layerscale::LayerScaleArgs),
}

#[derive(Serialize)]
struct Measured {
    model: String,
    precision: &'static str,
    layerscale: &'static str,
    tokens: usize,
    threads: usize,
    kernel: &'static str,
    warmup: usize,
    iters: usize,
    #[serde(flatten)]
    start: Start,
    #[serde(flatten)]
    times: Times,
    frame: FrameTime,
    /// Multiply-adds of one inference, in 10^9.
    gmac: f64,
    /// The same per second of the median.
    gmac_per_s: f64,
    model_bytes: usize,
    scratch_bytes: usize,
    /// The most memory that the process has had resident; null where the system does not tell.
    peak_memory_bytes: Option<u64>,
    /// The median of each minute, with --minutes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    minute_medians_ms: Vec<f64>,
    /// The same with more: maxima, and clock and temperature at the end of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    minutes: Vec<Minute>,
    /// With --reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<ReferenceTime>,
    /// With --profile: what one core reached in this run, for each kind of multiply-add that the model is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peaks: Vec<PeakRate>,
    /// With --profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<StageTime>,
    /// Absent on machines that do not name their kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    board: Option<MeasuredBoard>,
    /// Why these numbers cannot be trusted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The board, just before the measured inferences and just after.
#[derive(Serialize)]
struct MeasuredBoard {
    #[serde(flatten)]
    board: Board,
    before: board::State,
    after: board::State,
}

/// tract's time for the same input, each run between two of the model's.
#[derive(Serialize)]
struct ReferenceTime {
    model: String,
    precision: &'static str,
    kernel: &'static str,
    threads: usize,
    #[serde(flatten)]
    times: Times,
    /// The reference's median by the model's.
    ratio: f64,
}

/// One operation's part of an inference.
#[derive(Serialize)]
struct StageTime {
    stage: &'static str,
    /// Of one inference, added up over threads.
    ms: f64,
    /// Of all stages' time.
    share: f64,
    /// Multiply-adds per second and thread, in 10^9; null where there are none to speak of.
    gmac_per_s: Option<f64>,
    /// The same over the peak of its kind of multiply-add; null where that is not known.
    of_peak: Option<f64>,
}

/// The most multiply-adds of one kind that one core did in this run.
#[derive(Serialize)]
struct PeakRate {
    #[serde(skip)]
    mac: Mac,
    #[serde(skip)]
    peak: Peak,
    instructions: &'static str,
    gmac_per_s: f64,
}

impl PeakRate {
    /// Short runs of the loop, some microseconds each; the best counts.
    const TURNS: usize = 100;

    /// The kinds of multiply-adds that the model uses, not measured yet.
    fn all(c: &Config, kernels: Kernels) -> Vec<Self> {
        let mut peaks: Vec<Self> = Vec::new();
        let work = count(c, Kept::default()).work;
        for (stage, _) in Stage::ALL.into_iter().filter(|&(stage, _)| work.of(stage) > 0) {
            let mac = stage_mac(c, kernels, stage);
            if let Some(peak) = Peak::of(kernels, mac)
                && peaks.iter().all(|p| p.mac != mac)
            {
                peaks.push(Self { mac, peak, instructions: peak.name, gmac_per_s: 0.0 });
            }
        }
        peaks
    }

    fn measure(&mut self) {
        self.gmac_per_s = self.gmac_per_s.max(self.peak.measure(Self::TURNS));
    }
}

pub fn run(args: BenchArgs) -> Result<()> {
    if let Some(Study::LayerScale(args)) = args.study {
        return layerscale::run(args);
    }
    files::refuse_stdout(args.json, &args.plot)?;
    if args.size.get().is_some() && args.reference.is_some() {
        return Err(Error::new("--size", "an ONNX file has one size; leave out --reference"));
    }
    if let Some(plot) = &args.plot {
        files::refuse_inputs(plot, args.model.iter().chain(&args.reference))?;
    }
    // A name on the Hub may have to be converted first, which is no loading.
    if let Some(path) = args.model.as_deref().filter(|path| hub::Name::parse(path).is_some()) {
        ModelFile::open(path)?;
    }
    let began = Instant::now();
    let file = match &args.model {
        Some(path) => ModelFile::open(path)?,
        None => {
            output::note(BUILT_IN_NOTE);
            ModelFile::built_in()
        }
    };
    let model = file.parse()?;
    let compute = Compute::new(&args.compute)?;
    let mut inference = Inference::with(&file, &compute, compute.run(args.size.fitting(&file)?))?;

    let c = *inference.plan().config();
    let input = synthetic_input(c.input_len());
    // The first of the runs that warm up. It also checks the output, so it is done with --warmup 0, too.
    let ready = Instant::now();
    inference.tensor(&input).about(&file.name)?;
    let start = Start::between(began, ready, Instant::now());
    let mut beside = args.reference.as_deref().map(|path| Beside::new(path, &model, &input)).transpose()?;
    let warm = inference.repeat(&input, None, |once| (1..args.warmup).try_for_each(|_| once()));
    warm.and_then(|done| done).about(&file.name)?;
    let board = Board::identify(&board::system);
    let before = board.as_ref().map(|board| board.state(&board::system));
    let origin = Instant::now();
    let clock = || origin.elapsed().as_nanos() as u64;
    let profile = Profile::new(&clock);
    // Before and after, since the clock may change.
    let mut peaks = if args.profile { PeakRate::all(&c, compute.kernels) } else { Vec::new() };
    peaks.iter_mut().for_each(PeakRate::measure);
    let measured = inference.repeat(&input, args.profile.then_some(&profile), |once| {
        let mut timed = || {
            let start = Instant::now();
            let ms = once().map(|()| start.elapsed().as_secs_f64() * 1e3);
            beside.iter_mut().for_each(Beside::once);
            ms
        };
        let ms = match args.minutes {
            None => (0..args.iters).map(|_| timed()).collect::<Result<Vec<f64>, vitlet::Error>>()?,
            Some(_) => Vec::new(),
        };
        let all = args.minutes.unwrap_or(0);
        let minutes = (1..=all).map(|minute| Minute::measure((minute, all), board.as_ref(), &mut timed));
        Ok((ms, minutes.collect::<Result<Vec<Minute>, vitlet::Error>>()?))
    });
    let board = board.zip(before).map(|(board, before)| {
        let after = board.state(&board::system);
        MeasuredBoard { board, before, after }
    });
    peaks.iter_mut().for_each(PeakRate::measure);
    let (mut ms, minutes) = measured.and_then(|measured| measured).about(&file.name)?;
    ms.extend(minutes.iter().flat_map(|minute| &minute.ms));

    // Memory without the picture's.
    let (scratch_bytes, peak_memory_bytes) = (inference.plan().scratch_bytes(), peak_memory());
    let frame = FrameTime::measure(&mut inference, args.raw)?;
    let times = Times::of(&ms);
    let median_ms = times.median_ms;
    let gmac = count(&c, model.kept()).work.total() as f64 / 1e9;
    let measured = Measured {
        precision: c.precision.name(),
        layerscale: c.layerscale.name(),
        tokens: c.tokens(),
        threads: compute.threads,
        kernel: compute.kernels.name(),
        warmup: args.warmup,
        iters: ms.len(),
        start,
        times,
        frame,
        gmac,
        gmac_per_s: gmac / (median_ms / 1e3),
        model_bytes: file.bytes().len(),
        scratch_bytes,
        peak_memory_bytes,
        minute_medians_ms: minutes.iter().map(|minute| minute.median_ms).collect(),
        minutes,
        reference: beside.map(|b| b.times(median_ms)).transpose()?,
        profile: if args.profile {
            stage_times(&model, compute.kernels, &profile, ms.len(), &peaks)
        } else {
            Vec::new()
        },
        peaks,
        warnings: board.as_ref().map_or(Vec::new(), |m| m.board.warnings(&m.before, &m.after)),
        board,
        model: file.name,
    };
    if let Some(path) = &args.plot {
        let board = measured.board.as_ref().map_or("this machine", |m| m.board.name());
        let threads = measured.threads;
        let subtitle = format!("{} on {board}: kernel {}, {threads} threads", measured.model, measured.kernel);
        files::write(path, minutes::draw(&subtitle, &measured.times, &measured.minutes).as_bytes())?;
    }
    match (args.json, args.markdown) {
        (true, _) => output::json(&measured),
        (_, true) => print_markdown(&mut output::beside(&args.plot), &measured),
        _ => print(&mut output::beside(&args.plot), &measured),
    }
}

/// The reference, which runs once after every inference of the model, so that both meet the same machine.
struct Beside<'i> {
    file: OnnxFile,
    input: &'i [f32],
    ms: Vec<f64>,
    failed: Option<String>,
}

impl<'i> Beside<'i> {
    /// Opens it and runs it twice to warm up.
    fn new(path: &Path, model: &Model, input: &'i [f32]) -> Result<Self> {
        let file = OnnxFile::open_like(path, model.preprocess())?;
        let mut beside = Self { file, input, ms: Vec::new(), failed: None };
        (0..2).for_each(|_| beside.once());
        beside.ms.clear();
        Ok(beside)
    }

    fn once(&mut self) {
        let start = Instant::now();
        match self.file.run(self.input) {
            Ok(_) => self.ms.push(start.elapsed().as_secs_f64() * 1e3),
            Err(why) => self.failed = Some(why),
        }
    }

    fn times(self, model_median_ms: f64) -> Result<ReferenceTime> {
        if let Some(why) = self.failed {
            return Err(Error::new(self.file.name, why));
        }
        let times = Times::of(&self.ms);
        Ok(ReferenceTime {
            model: self.file.name,
            precision: "f32",
            kernel: "tract",
            threads: 1,
            ratio: times.median_ms / model_median_ms,
            times,
        })
    }
}

/// Where the time of `runs` inferences went.
fn stage_times(
    model: &Model<'_>,
    kernels: Kernels,
    profile: &Profile<'_>,
    runs: usize,
    peaks: &[PeakRate],
) -> Vec<StageTime> {
    let c = model.config();
    let work = count(c, model.kept()).work;
    let ms = |stage| profile.ticks(stage) as f64 / 1e6 / runs as f64;
    let total: f64 = Stage::ALL.iter().map(|&(stage, _)| ms(stage)).sum();
    let time = |&(stage, name): &(Stage, &'static str)| {
        let macs = work.of(stage);
        let gmac_per_s = (macs > 0).then(|| macs as f64 / 1e6 / ms(stage));
        let mac = stage_mac(c, kernels, stage);
        let peak = peaks.iter().find(|peak| peak.mac == mac);
        let of_peak = gmac_per_s.zip(peak).map(|(rate, peak)| rate / peak.gmac_per_s);
        StageTime { stage: name, ms: ms(stage), share: ms(stage) / total, gmac_per_s, of_peak }
    };
    // Other families' are left out.
    Stage::ALL.iter().filter(|(stage, _)| profile.ticks(*stage) > 0).map(time).collect()
}

/// The kind of a stage's multiply-adds: docs/numerics.md.
fn stage_mac(c: &Config, kernels: Kernels, stage: Stage) -> Mac {
    match c.precision {
        _ if stage == Stage::Depthwise => Mac::F32,
        Precision::Int8 => Mac::Int8,
        Precision::F16
            if kernels.computes_f16() && !matches!(stage, Stage::PatchEmbed | Stage::Attention | Stage::Mixing) =>
        {
            Mac::F16
        }
        Precision::F16 | Precision::F32 => Mac::F32,
    }
}

/// `VmHWM` of this process, in bytes (Linux).
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

fn print(out: &mut Out, m: &Measured) -> Result<()> {
    let plural = if m.threads == 1 { "" } else { "s" };
    writeln!(
        out,
        "{NAME}{}{NAME:#}  {}, LayerScale {}, {} tokens, {:.3} GMAC",
        m.model, m.precision, m.layerscale, m.tokens, m.gmac
    )?;
    writeln!(
        out,
        "kernel {}, {} thread{plural}, {QUIET}{} runs after {} to warm up{QUIET:#}",
        m.kernel, m.threads, m.iters, m.warmup
    )?;
    if let Some(MeasuredBoard { board, before, after }) = &m.board {
        board.print(out, before, after)?;
    }
    m.times.print(out, "")?;
    m.start.print(out)?;
    m.frame.print(out)?;
    writeln!(out, "  rate    {:9.1} GMAC/s", m.gmac_per_s)?;
    let [model, scratch] = [m.model_bytes, m.scratch_bytes].map(|n| output::bytes(n as u64));
    let peak = m.peak_memory_bytes.map_or("unknown".to_string(), output::bytes);
    writeln!(out, "  memory  {peak} peak resident; model {model}, scratch {scratch}")?;
    if let Some(r) = &m.reference {
        writeln!(out, "against {NAME}{}{NAME:#}  f32, tract, 1 thread, {QUIET}in turn{QUIET:#}", r.model)?;
        r.times.print(out, &format!(", {STRONG}{:.2}{STRONG:#} times the model's", r.ratio))?;
    }
    minutes::print(out, &m.minutes)?;
    if !m.profile.is_empty() {
        let title = format!("{:22} {:>9} {:>7} {:>9} {:>8}", "per inference", "ms", "share", "GMAC/s", "of peak");
        writeln!(out, "{STRONG}{title}{STRONG:#}")?;
    }
    for stage in &m.profile {
        let rate = stage.gmac_per_s.map_or(String::new(), |rate| format!("{rate:9.1}"));
        let of_peak = stage.of_peak.map_or(String::new(), |share| format!(" {:6.1} %", 100.0 * share));
        writeln!(out, "  {:20} {:9.3} {:5.1} % {rate}{of_peak}", stage.stage, stage.ms, 100.0 * stage.share)?;
    }
    for peak in &m.peaks {
        writeln!(out, "{QUIET}peak of one core: {:.1} GMAC/s of {}{QUIET:#}", peak.gmac_per_s, peak.instructions)?;
    }
    for warning in &m.warnings {
        writeln!(out, "{WARNING}warning:{WARNING:#} {warning}")?;
    }
    Ok(())
}

fn print_markdown(out: &mut Out, m: &Measured) -> Result<()> {
    writeln!(out, "| model | precision | LayerScale | kernel | threads | {} | GMAC/s |", Times::HEADING)?;
    writeln!(out, "|{}", "---|".repeat(6 + Times::HEADING.split('|').count()))?;
    writeln!(
        out,
        "| {} | {} | {} | {} | {} | {} | {:.1} |",
        m.model,
        m.precision,
        m.layerscale,
        m.kernel,
        m.threads,
        m.times.cells(),
        m.gmac_per_s
    )?;
    if let Some(r) = &m.reference {
        let rate = m.gmac / (r.times.median_ms / 1e3);
        writeln!(out, "| {} | f32 | as exported | tract | 1 | {} | {rate:.1} |", r.model, r.times.cells())?;
    }
    for warning in &m.warnings {
        output::warn(warning);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_synthetic_input_is_centered_and_never_changes() {
        let input = synthetic_input(30_000);
        assert!(input.iter().all(|x| (-2.0..2.0).contains(x)));
        let mean = input.iter().sum::<f32>() / input.len() as f32;
        assert!(mean.abs() < 0.02, "{mean}");
        assert_eq!(input[..10], synthetic_input(10));
    }
}
