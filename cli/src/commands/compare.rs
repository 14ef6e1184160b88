//! `vitlet compare`: the same pictures through a reference and through a model, and how far apart the two are at every
//! place of the network. docs/eval.md explains the numbers.

mod activations;
mod distance;
mod plot;
mod truth;

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use vitlet::{Config, Named};
use vitlet_models::pictures as samples;

use crate::error::{Context, Inputs, Result};
use crate::files;
use crate::inference::{Compute, ComputeArgs, Inference, Times};
use crate::model::ModelFile;
use crate::output::{self, NAME, Out, QUIET, STRONG};
use crate::pictures::{self, Rgb8};
use crate::results::{Done, PictureResult};
use activations::{Activations, Spot};
use distance::{Distance, Sums};
use truth::{Source, Truth};

/// Photos for a comparison without pictures of one's own.
static SAMPLES: [&[u8]; 3] = [samples::ASTRONAUT, samples::CHELSEA, samples::COFFEE];
/// Characters of the bar that shows an error.
const BAR: usize = 16;

#[derive(Args)]
pub struct CompareArgs {
    /// Model file, or hf:OWNER/NAME
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    /// The truth: an ONNX file (run by tract), an f32 .gguf, a checkpoint directory or hf:OWNER/NAME
    #[arg(long, value_name = "REF")]
    reference: PathBuf,

    /// Pictures or directories of them; without any, three photos that are part of the program
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// Draw the errors along the network
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
pub struct Report {
    model: String,
    precision: &'static str,
    layerscale: &'static str,
    reference: String,
    /// Pictures that both models have seen.
    pictures: usize,
    /// Pictures with the same first label; none without a head.
    same_label: Option<usize>,
    /// Along the network.
    places: Vec<PlaceReport>,
    /// The logits, or the features of a network without head; none where no picture was seen.
    output: Option<Distance>,
    /// The times are the model's, activations shown included.
    results: Vec<PictureResult<Compare>>,
}

/// The fields of `compare` for one picture.
#[derive(Serialize)]
struct Compare {
    /// Whether both have the same first label; none without a head.
    same_label: Option<bool>,
}

#[derive(Serialize)]
pub struct PlaceReport {
    /// None before the first block.
    block: Option<usize>,
    place: &'static str,
    #[serde(flatten)]
    distance: Distance,
}

pub fn run(args: CompareArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let model = file.parse()?;
    let c = *model.config();
    let pictures = sources(&args)?;
    files::refuse_stdout(args.json, &args.plot)?;
    if let Some(plot) = &args.plot {
        files::refuse_inputs(plot, [&args.model])?;
        files::refuse_checkpoint(plot, &args.reference)?;
        files::refuse_inputs(plot, files::of_pictures(pictures.iter().filter_map(Sample::source)))?;
    }
    let reference = Source::open(&args.reference, &model)?;
    let compute = Compute::new(&args.compute)?;
    let mut inference = Inference::new(&file, &compute)?;
    let mut truth = reference.start(&compute)?;

    let (mut all, mut inputs, mut results) = (Compared::default(), Inputs::default(), Vec::new());
    let bar = output::progress(pictures.len() as u64, "{bar:40.cyan} {pos}/{len} pictures");
    for picture in &pictures {
        match look(picture, &mut inference, &mut truth, &c) {
            Ok(pair) => {
                inputs.done();
                all.add(&pair);
                results.push(PictureResult::Done(pair.told));
            }
            Err(e) => {
                bar.suspend(|| inputs.failed(&e));
                results.push(PictureResult::failed(picture.to_string(), &e));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = Report {
        model: file.name.clone(),
        precision: c.precision.name(),
        layerscale: c.layerscale.name(),
        reference: reference.name().to_string(),
        pictures: inputs.count(),
        same_label: (c.classes > 0).then_some(all.same_label),
        output: (inputs.count() > 0).then(|| all.output.distance()),
        places: all.places(),
        results,
    };
    if let Some(path) = args.plot.as_ref().filter(|_| inputs.count() > 0) {
        files::write(path, plot::draw(&report).as_bytes())?;
        output::note(&format!("{} written", path.display()));
    }
    if args.json {
        output::json(&report)?
    } else {
        print(&mut output::beside(&args.plot), &report)?
    }
    inputs.end()
}

/// A picture to compare on.
enum Sample {
    Given(pictures::Source),
    BuiltIn(&'static [u8]),
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(source) => source.fmt(f),
            Self::BuiltIn(_) => f.write_str("sample picture"),
        }
    }
}

impl Sample {
    /// Where it comes from, if that is not the program.
    fn source(&self) -> Option<&pictures::Source> {
        if let Self::Given(source) = self { Some(source) } else { None }
    }

    fn load(&self) -> Result<Rgb8> {
        match self {
            Self::Given(source) => pictures::load(source),
            Self::BuiltIn(bytes) => pictures::decode(bytes).about(self),
        }
    }
}

fn sources(args: &CompareArgs) -> Result<Vec<Sample>> {
    if args.images.is_empty() {
        output::note("no pictures given: comparing on three photos that are part of the program");
        return Ok(SAMPLES.iter().map(|bytes| Sample::BuiltIn(bytes)).collect());
    }
    Ok(pictures::list(&args.images)?.into_iter().map(Sample::Given).collect())
}

/// One picture through both.
struct Pair {
    seen: Activations,
    expected: Activations,
    told: Done<Compare>,
}

fn look(picture: &Sample, inference: &mut Inference, truth: &mut Truth, c: &Config) -> Result<Pair> {
    let decoded = picture.load()?;
    let start = Instant::now();
    let input = inference.prepare(&decoded.borrow()).about(picture)?;
    let began = Instant::now();
    let seen = truth::look(inference, &input, c).about(picture)?;
    let times = Times::between(start, began, Instant::now());
    let expected = truth.look(&input, c).about(picture)?;
    let first = |logits: &[f32]| vitlet::best(logits, 1);
    let same_label = (c.classes > 0).then(|| first(&seen.output) == first(&expected.output));
    let told = Done::new(picture.to_string(), &decoded, times, Compare { same_label });
    Ok(Pair { seen, expected, told })
}

/// Sums over all pictures.
#[derive(Default)]
struct Compared {
    same_label: usize,
    spots: std::collections::BTreeMap<Spot, Sums>,
    output: Sums,
}

impl Compared {
    fn add(&mut self, Pair { seen, expected, told }: &Pair) {
        self.same_label += usize::from(told.rest.same_label == Some(true));
        self.output.add(&seen.output, &expected.output, seen.output.len());
        for (spot, table) in &expected.tables {
            if let Some(ours) = seen.tables.get(spot) {
                self.spots.entry(*spot).or_default().add(&ours.values, &table.values, table.width);
            }
        }
    }

    fn places(&self) -> Vec<PlaceReport> {
        let report = |(spot, sums): (&Spot, &Sums)| PlaceReport {
            block: spot.block(),
            place: spot.place.name(),
            distance: sums.distance(),
        };
        self.spots.iter().map(report).collect()
    }
}

/// Without pictures there is nothing to print.
fn print(out: &mut Out, r: &Report) -> Result<()> {
    let Some(output) = &r.output else { return Ok(()) };
    writeln!(out, "{NAME}{}{NAME:#}  {}, LayerScale {}", r.model, r.precision, r.layerscale)?;
    let pictures = if r.pictures == 1 { "1 picture".to_string() } else { format!("{} pictures", r.pictures) };
    writeln!(
        out,
        "against {NAME}{}{NAME:#} on {pictures}; errors are relative: |model - reference| / |reference|",
        r.reference
    )?;
    writeln!(out)?;

    let find = |block: Option<usize>, place: &str| r.places.iter().find(|p| p.block == block && p.place == place);
    let percent = |p: Option<&PlaceReport>| p.map_or(String::new(), |p| error(p.distance.relative_error));
    let most = r.places.iter().filter(|p| p.place == "stream").map(|p| p.distance.relative_error);
    let most = most.fold(output.relative_error, f64::max);
    let stream = |p: &Distance| {
        let worst = format!("{} ({:.0} %)", p.worst_channel.index, 100.0 * p.worst_channel.share);
        [error(p.relative_error), bar(p.relative_error / most), sqnr(p), format!("{:.5}", p.cosine), worst]
    };
    let branches =
        BRANCHES.iter().filter(|(place, _)| *place != "local" || r.places.iter().any(|p| p.place == "local"));
    let (places, names): (Vec<&str>, Vec<&str>) = branches.copied().unzip();
    let blocks: std::collections::BTreeSet<Option<usize>> = r.places.iter().map(|p| p.block).collect();
    let mut rows = Vec::new();
    for block in blocks {
        let name = block.map_or("embedding".to_string(), |b| format!("block {b}"));
        let mut row = vec![name];
        row.extend(["heads"].iter().chain(&places).map(|place| percent(find(block, place))));
        row.extend(find(block, "stream").map_or([const { String::new() }; 5], |p| stream(&p.distance)));
        rows.push(row);
    }
    let mut last = vec![if r.same_label.is_some() { "logits" } else { "features" }.to_string()];
    last.resize(2 + places.len(), String::new());
    last.extend(stream(output));
    rows.push(last);
    let names: Vec<String> = names.iter().map(|name| format!("+ {name}")).collect();
    let mut header = vec!["", "heads"];
    header.extend(names.iter().map(String::as_str));
    header.extend(["stream", "", "SQNR, dB", "cosine", "worst channel"]);
    output::table(out, &header, &rows)?;
    writeln!(out)?;
    conclude(out, r)
}

/// The branches of a block, and their names.
const BRANCHES: [(&str, &str); 3] = [("attention", "attention"), ("local", "local"), ("mlp", "MLP")];

/// Where most is lost, and whether it matters.
fn conclude(out: &mut Out, r: &Report) -> Result<()> {
    let name = |p: &PlaceReport| BRANCHES.iter().find(|(place, _)| *place == p.place).map(|(_, name)| *name);
    let branches = r.places.iter().filter(|p| name(p).is_some());
    let worst = branches.max_by(|a, b| a.distance.relative_error.total_cmp(&b.distance.relative_error));
    if let Some((p, block)) = worst.and_then(|p| Some((p, p.block?))).filter(|(p, _)| p.distance.relative_error > 0.0) {
        let what = name(p).unwrap_or_default();
        writeln!(
            out,
            "largest error of a branch: {STRONG}{what} of block {block}, {}{STRONG:#}",
            error(p.distance.relative_error)
        )?;
    }
    if let Some(same) = r.same_label {
        writeln!(out, "same first label on {STRONG}{same} of {}{STRONG:#} pictures", r.pictures)?;
    }
    writeln!(
        out,
        "{QUIET}heads: outputs before the projection; + ...: contribution of the branch, LayerScale included; stream: \
         after the block;{QUIET:#}"
    )?;
    writeln!(out, "{QUIET}worst channel: the one with most of the squared error, and its share{QUIET:#}")?;
    Ok(())
}

fn error(relative: f64) -> String {
    match relative {
        0.0 => "0".to_string(),
        small if small < 1e-4 => format!("{small:.1e}"),
        _ => format!("{:.2} %", 100.0 * relative),
    }
}

fn sqnr(d: &Distance) -> String {
    d.sqnr_db.map_or("exact".to_string(), |db| format!("{db:.1}"))
}

/// A bar of eighths of a character.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * 8.0 * BAR as f64).round() as usize;
    let parts = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let rest = (eighths % 8).checked_sub(1).map(|i| parts[i]);
    let text: String = std::iter::repeat_n('█', eighths / 8).chain(rest).collect();
    format!("{text:<BAR$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_bars_are_short() {
        assert_eq!([0.0, 3e-7, 0.01234].map(error), ["0", "3.0e-7", "1.23 %"]);
        assert_eq!(bar(0.0).trim(), "");
        assert_eq!(bar(1.0).chars().count(), BAR);
        assert_eq!(bar(0.5).trim_end().chars().count(), BAR / 2);
        assert_eq!(bar(f64::NAN).chars().count(), BAR);
    }
}
