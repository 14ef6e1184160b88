//! `vitlet eval` of a depth model: how far its distances are from measured ones, and whether a reference in f32 is
//! closer. docs/eval.md explains the report.

pub mod metrics;
mod truth;

use std::path::Path;

use serde::Serialize;

use super::reference::require_f32;
use super::samples::{self, DEPTH, Report, Sample};
use super::{EvalArgs, paired_range, refuse_options_of_classifiers};
use crate::backend;
use crate::commands::depth::map::{DepthMap, Unit};
use crate::error::{Context, Error, Result};
use crate::inference::{Compute, Times};
use crate::model::ModelFile;
use crate::output::{ERROR, NAME, Out, QUIET, STRONG};
use crate::pictures::{self, Rgb8};
use crate::results::{Done, PictureResult};
use crate::sessions::{InputSize, Sessions};
use crate::stats;
use metrics::{Metrics, Pair, Paired};
use truth::Truth;
use vitlet::Named;

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    model: String,
    precision: &'static str,
    unit: Unit,
    /// Pictures that were measured.
    n: usize,
    #[serde(flatten)]
    measured: Measured,
    median_ms: Option<f64>,
    reference: Option<Comparison>,
    results: Vec<PictureResult<Row>>,
}

/// Of one picture, or the means over several.
#[derive(Clone, Copy, Serialize)]
struct Measured {
    /// None for relative inverse depth.
    depth: Option<Metrics>,
    /// After scale and shift.
    aligned: Option<Metrics>,
}

/// The fields of one picture.
#[derive(Serialize)]
struct Row {
    /// Pixels with a true distance.
    pixels: usize,
    #[serde(flatten)]
    measured: Measured,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<Measured>,
}

#[derive(Serialize)]
struct Comparison {
    name: String,
    #[serde(flatten)]
    measured: Measured,
    /// Over the pictures: of the metrics without alignment for distances, with alignment for relative inverse depth.
    abs_rel: Paired,
    delta1: Paired,
}

impl Measured {
    fn new(unit: Unit, pairs: &[Pair]) -> Self {
        Self { depth: Metrics::unaligned(unit, pairs), aligned: Metrics::aligned(unit, pairs) }
    }

    fn mean<'m>(all: impl Iterator<Item = &'m Self> + Clone) -> Self {
        let mean = |pick: fn(&'m Self) -> Option<&'m Metrics>| Metrics::mean(all.clone().filter_map(pick));
        Self { depth: mean(|m| m.depth.as_ref()), aligned: mean(|m| m.aligned.as_ref()) }
    }

    /// What a model is judged by.
    fn decisive(&self) -> Option<&Metrics> {
        self.depth.as_ref().or(self.aligned.as_ref())
    }
}

/// A model that is measured, or its reference.
struct Network<'m> {
    sessions: Sessions<'m>,
    unit: Unit,
}

impl<'m> Network<'m> {
    fn new(file: &'m ModelFile, compute: &'m Compute) -> Result<Self> {
        let model = file.parse()?;
        let unit = Unit::of(model.config()).ok_or_else(|| {
            Error::new(&file.name, format!("no depth head: {}", backend::commands_for(model.config())))
        })?;
        Ok(Self { sessions: Sessions::new(file, compute, InputSize::new(&model, None)), unit })
    }

    /// Its numbers at the pixels of `truth`. Errors say why only.
    fn look(&mut self, picture: &Rgb8, truth: &Truth) -> Result<(Vec<f32>, Times), String> {
        let inference = self.sessions.of_picture(picture.width, picture.height)?;
        let answer = inference.picture(picture)?;
        let c = inference.plan().config();
        let input = (c.image_height, c.image_width);
        let enlarging = c.head.depth().map(|depth| depth.enlarging).unwrap_or_default();
        let size = (truth.width, truth.height);
        Ok((DepthMap::resized(enlarging, &answer.values, input, size)?.data, answer.times))
    }
}

/// Measures the model in `file`.
pub fn run(args: &EvalArgs, file: &ModelFile, dataset: &Path) -> Result<()> {
    refuse_options_of_classifiers(args)?;
    if args.reduce_zero_label {
        return Err(Error::Usage("--reduce-zero-label is for models with classes of pixels".to_string()));
    }
    let compute = Compute::new(&args.compute)?;
    let mut network = Network::new(file, &compute)?;
    let reference_file = args.reference.as_deref().map(ModelFile::open_or_convert).transpose()?;
    let mut reference = reference_file.as_ref().map(|file| reference(file, &compute, network.unit)).transpose()?;
    let (inputs, results) = samples::measure(dataset, &DEPTH, args.limit, |sample| {
        measure(args, sample, &mut network, reference.as_mut())
    })?;
    let name = reference_file.map(|file| file.name);
    let document = Document::new(file, network.unit, results, name)?;
    document.conclude(args, &inputs)
}

/// The model to compare with: f32, and of the same unit.
fn reference<'m>(file: &'m ModelFile, compute: &'m Compute, unit: Unit) -> Result<Network<'m>> {
    let network = Network::new(file, compute)?;
    require_f32(&file.name, file.parse()?.config().precision.name())?;
    match network.unit == unit {
        true => Ok(network),
        false => Err(Error::new(&file.name, "one of model and reference gives metres, the other inverse depth")),
    }
}

/// One picture in both networks.
fn measure(
    args: &EvalArgs,
    sample: &Sample,
    network: &mut Network,
    reference: Option<&mut Network>,
) -> Result<Done<Row>> {
    let source = &sample.picture;
    let picture = pictures::load(source)?;
    let path = sample.truth.as_ref().ok_or_else(|| Error::new(source, "no depth"))?;
    let truth = Truth::read(path, args.depth_scale.unwrap_or(1000.0))?;
    truth.check_shape(picture.width, picture.height).about(source)?;
    let most = args.max_depth.unwrap_or(f32::MAX);
    let measured = |numbers: &[f32], unit| {
        let known = |(_, t): &(&f32, &f32)| **t > 0.0 && **t <= most;
        let pairs: Vec<Pair> = numbers.iter().zip(&truth.metres).filter(known).map(|(p, t)| (*p, *t)).collect();
        (pairs.len(), Measured::new(unit, &pairs))
    };
    let (numbers, times) = network.look(&picture, &truth).about(source)?;
    let (pixels, of_model) = measured(&numbers, network.unit);
    if pixels == 0 {
        return Err(Error::new(path.display(), "no pixel has a distance"));
    }
    let of_reference = match reference {
        Some(reference) => Some(measured(&reference.look(&picture, &truth).about(source)?.0, reference.unit).1),
        None => None,
    };
    let row = Row { pixels, measured: of_model, reference: of_reference };
    Ok(Done::new(source.to_string(), &picture, times, row))
}

impl Document {
    fn new(file: &ModelFile, unit: Unit, results: Vec<PictureResult<Row>>, against: Option<String>) -> Result<Self> {
        let done = || {
            results.iter().filter_map(|result| match result {
                PictureResult::Done(done) => Some(done),
                PictureResult::Failed(_) => None,
            })
        };
        let n = done().count();
        let ms: Vec<f64> = done().map(|done| done.times.ms).collect();
        let both = |pick: fn(&Metrics) -> f64| -> Vec<(f64, f64)> {
            let pair = |row: &Row| Some((pick(row.measured.decisive()?), pick(row.reference.as_ref()?.decisive()?)));
            done().filter_map(|done| pair(&done.rest)).collect()
        };
        let comparison = against.filter(|_| n > 0).map(|name| Comparison {
            name,
            measured: Measured::mean(done().filter_map(|done| done.rest.reference.as_ref())),
            abs_rel: Paired::new(&both(|m| m.abs_rel)),
            delta1: Paired::new(&both(|m| m.delta1)),
        });
        Ok(Self {
            model: file.name.clone(),
            precision: file.parse()?.config().precision.name(),
            unit,
            n,
            measured: Measured::mean(done().map(|done| &done.rest.measured)),
            median_ms: (n > 0).then(|| stats::median(&ms)),
            reference: comparison,
            results,
        })
    }
}

impl Report for Document {
    fn print(&self, out: &mut Out) -> Result<()> {
        let Self { model, precision, n, .. } = self;
        writeln!(out, "{NAME}{model}{NAME:#}  {precision}, {n} pictures")?;
        self.measured.print(out)?;
        if let Some(ms) = self.median_ms {
            writeln!(out, "  {QUIET}{:<11}{QUIET:#} {ms:.2} ms, median", "latency")?;
        }
        self.reference.as_ref().map_or(Ok(()), |comparison| comparison.print(out))
    }

    /// `--max-drop`, in points of delta 1.
    fn decide(&self, max_drop: Option<f64>) -> Result<()> {
        let (Some(most), Some(reference)) = (max_drop, &self.reference) else { return Ok(()) };
        let drop = -100.0 * reference.delta1.difference;
        if drop > most {
            let why = format!("delta 1 is {drop:.2} points below the reference, more than {most}");
            return Err(Error::Rejected(format!("{}: {why}", self.model)));
        }
        Ok(())
    }
}

impl Measured {
    fn print(&self, out: &mut Out) -> Result<()> {
        for (what, metrics) in [("depth", &self.depth), ("aligned", &self.aligned)] {
            let Some(m) = metrics else { continue };
            let deltas = [m.delta1, m.delta2, m.delta3].map(|share| format!("{:.2} %", 100.0 * share)).join(", ");
            let text =
                format!("AbsRel {STRONG}{:.4}{STRONG:#}, RMSE {:.3} m, delta 1 to 3 {deltas}", m.abs_rel, m.rmse);
            writeln!(out, "  {QUIET}{what:<11}{QUIET:#} {text}")?;
        }
        Ok(())
    }
}

impl Comparison {
    fn print(&self, out: &mut Out) -> Result<()> {
        writeln!(out, "against {NAME}{}{NAME:#}", self.name)?;
        self.measured.print(out)?;
        let Paired { difference, interval, reference, .. } = self.abs_rel;
        let relative =
            if reference > 0.0 { format!(" ({:+.2} %)", 100.0 * difference / reference) } else { String::new() };
        let worse = interval.is_some_and(|[low, _]| low > 0.0);
        let style = if worse { ERROR } else { STRONG };
        let text = format!("{style}AbsRel {difference:+.4}{relative}{style:#}, {}", paired_range(interval, 1.0, 4));
        writeln!(out, "  {QUIET}{:<11}{QUIET:#} {text}", "verdict")?;
        let Paired { difference, interval, .. } = self.delta1;
        let text = format!("delta 1 {:+.2} points, {}", 100.0 * difference, paired_range(interval, 100.0, 2));
        writeln!(out, "  {:<11} {text}", "")?;
        writeln!(out, "  {:<11} {}", "", self.meaning())?;
        Ok(())
    }

    /// What follows from the interval of AbsRel.
    fn meaning(&self) -> String {
        let Paired { interval: Some([low, high]), reference, .. } = self.abs_rel else {
            return "one picture shows no difference".to_string();
        };
        let percent = |difference: f64| 100.0 * difference / reference.max(f64::MIN_POSITIVE);
        if low > 0.0 {
            format!("the model is worse: its AbsRel is {:.2} to {:.2} % larger", percent(low), percent(high))
        } else if high < 0.0 {
            format!("the model is better: its AbsRel is {:.2} to {:.2} % smaller", percent(-high), percent(-low))
        } else {
            format!("no difference shown, and an AbsRel more than {:.2} % larger is unlikely", percent(high))
        }
    }
}
