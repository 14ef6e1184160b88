//! `vitlet eval` of a segmentation model: how well the classes of pixels are met, and whether a reference in f32 is
//! better. docs/eval.md explains the report.

mod tally;
mod truth;

use std::path::Path;

use serde::Serialize;
use vitlet::Named;

use super::depth::metrics::Paired;
use super::reference::require_f32;
use super::samples::{self, CLASSES, Report, Sample};
use super::{EvalArgs, paired_range, refuse_options_of_classifiers};
use crate::commands::segment::{classes::ClassMap, labels};
use crate::error::{Context, Error, Result};
use crate::inference::{Compute, Times};
use crate::model::ModelFile;
use crate::output::{ERROR, NAME, Out, QUIET, STRONG};
use crate::pictures::{self, Rgb8};
use crate::results::{Done, PictureResult};
use crate::sessions::{InputSize, Sessions};
use crate::stats;
use tally::Tally;
use truth::Truth;

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    model: String,
    precision: &'static str,
    /// Pictures that were measured.
    n: usize,
    #[serde(flatten)]
    measured: Measured,
    /// Those that are in the labels or were found.
    classes: Vec<Class>,
    median_ms: Option<f64>,
    reference: Option<Comparison>,
    results: Vec<PictureResult<Row>>,
}

/// Over all pixels of all pictures.
#[derive(Clone, Copy, Serialize)]
struct Measured {
    /// The mean over the classes that are in the labels or were found.
    miou: Option<f64>,
    pixel_accuracy: Option<f64>,
}

#[derive(Serialize)]
struct Class {
    label: String,
    index: usize,
    /// Pixels of the class in the labels.
    pixels: u64,
    iou: f64,
}

/// The fields of one picture.
#[derive(Serialize)]
struct Row {
    /// Pixels with a class.
    pixels: u64,
    pixel_accuracy: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_accuracy: Option<f64>,
    #[serde(skip)]
    tally: Tally,
    #[serde(skip)]
    reference: Option<Tally>,
}

#[derive(Serialize)]
struct Comparison {
    name: String,
    #[serde(flatten)]
    measured: Measured,
    /// Over all pixels; the interval is from leaving out each picture once.
    miou_difference: Paired,
    /// Over the pictures.
    accuracy_difference: Paired,
}

impl Measured {
    fn new(tally: &Tally) -> Self {
        Self { miou: tally.miou(), pixel_accuracy: tally.accuracy() }
    }

    fn print(&self, out: &mut Out) -> Result<()> {
        let percent = |x: Option<f64>| x.map_or("none".to_string(), |x| format!("{:.2} %", 100.0 * x));
        writeln!(out, "  {QUIET}{:<11}{QUIET:#} {STRONG}{}{STRONG:#}", "mIoU", percent(self.miou))?;
        Ok(writeln!(out, "  {QUIET}{:<11}{QUIET:#} {} of the pixels", "accuracy", percent(self.pixel_accuracy))?)
    }
}

/// A model that is measured, or its reference.
struct Network<'m> {
    sessions: Sessions<'m>,
    classes: usize,
}

impl<'m> Network<'m> {
    fn new(file: &'m ModelFile, compute: &'m Compute) -> Result<Self> {
        let model = file.parse()?;
        let classes = labels(&model, &file.name)?.len();
        Ok(Self { sessions: Sessions::new(file, compute, InputSize::new(&model, None)), classes })
    }

    /// What it finds at the pixels of `truth`. Errors say why only.
    fn look(&mut self, picture: &Rgb8, truth: &Truth) -> Result<(Tally, Times), String> {
        let inference = self.sessions.of_picture(picture.width, picture.height)?;
        let answer = inference.picture(picture)?;
        let grid = inference.plan().config().grid();
        let found = ClassMap::new(&answer.values, grid, (truth.width, truth.height))?;
        Ok((Tally::new(self.classes, &truth.classes, &found.ids), answer.times))
    }
}

/// Measures the model in `file`.
pub fn run(args: &EvalArgs, file: &ModelFile, dataset: &Path) -> Result<()> {
    refuse_options_of_classifiers(args)?;
    let of_depth = [(args.depth_scale.is_some(), "--depth-scale"), (args.max_depth.is_some(), "--max-depth")];
    if let Some((_, option)) = of_depth.iter().find(|(given, _)| *given) {
        return Err(Error::Usage(format!("{option} is for depth models")));
    }
    let compute = Compute::new(&args.compute)?;
    let names = labels(&file.parse()?, &file.name)?;
    let mut network = Network::new(file, &compute)?;
    let reference_file = args.reference.as_deref().map(ModelFile::open_or_convert).transpose()?;
    let mut reference = reference_file.as_ref().map(|file| reference(file, &compute, names.len())).transpose()?;
    let (inputs, results) = samples::measure(dataset, &CLASSES, args.limit, |sample| {
        measure(args, sample, &mut network, reference.as_mut())
    })?;
    let document = Document::new(file, &names, results, reference_file.map(|file| file.name))?;
    document.conclude(args, &inputs)
}

/// The model to compare with: f32, and with as many classes.
fn reference<'m>(file: &'m ModelFile, compute: &'m Compute, classes: usize) -> Result<Network<'m>> {
    let network = Network::new(file, compute)?;
    require_f32(&file.name, file.parse()?.config().precision.name())?;
    match network.classes == classes {
        true => Ok(network),
        false => Err(Error::new(&file.name, format!("{} classes, the model has {classes}", network.classes))),
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
    let path = sample.truth.as_ref().ok_or_else(|| Error::new(source, "no classes"))?;
    let truth = Truth::read(path, network.classes, args.reduce_zero_label)?;
    samples::check_shape("label", (truth.width, truth.height), (picture.width, picture.height)).about(source)?;
    let (tally, times) = network.look(&picture, &truth).about(source)?;
    let Some(pixel_accuracy) = tally.accuracy() else {
        return Err(Error::new(path.display(), "no pixel has a class"));
    };
    let reference = reference.map(|reference| reference.look(&picture, &truth).about(source)).transpose()?;
    let reference = reference.map(|(tally, _)| tally);
    let row = Row {
        pixels: tally.pixels(),
        pixel_accuracy,
        reference_accuracy: reference.as_ref().and_then(Tally::accuracy),
        tally,
        reference,
    };
    Ok(Done::new(source.to_string(), &picture, times, row))
}

impl Document {
    fn new(
        file: &ModelFile,
        names: &[String],
        results: Vec<PictureResult<Row>>,
        against: Option<String>,
    ) -> Result<Self> {
        let done: Vec<&Done<Row>> = results
            .iter()
            .filter_map(|result| match result {
                PictureResult::Done(done) => Some(done),
                PictureResult::Failed(_) => None,
            })
            .collect();
        let n = done.len();
        let ms: Vec<f64> = done.iter().map(|done| done.times.ms).collect();
        let tallies: Vec<&Tally> = done.iter().map(|done| &done.rest.tally).collect();
        let all = Tally::sum(names.len(), &tallies);
        let comparison = against.filter(|_| n > 0).map(|name| {
            let theirs: Vec<&Tally> = done.iter().filter_map(|done| done.rest.reference.as_ref()).collect();
            let accuracies: Vec<(f64, f64)> = done
                .iter()
                .filter_map(|done| Some((done.rest.pixel_accuracy, done.rest.reference_accuracy?)))
                .collect();
            Comparison {
                name,
                measured: Measured::new(&Tally::sum(names.len(), &theirs)),
                miou_difference: tally::paired(names.len(), &tallies, &theirs),
                accuracy_difference: Paired::new(&accuracies),
            }
        });
        let class = |(index, iou): (usize, f64)| Class {
            label: names[index].clone(),
            index,
            pixels: all.pixels_of(index),
            iou,
        };
        Ok(Self {
            model: file.name.clone(),
            precision: file.parse()?.config().precision.name(),
            n,
            measured: Measured::new(&all),
            classes: all.ious().map(class).collect(),
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
        for Class { label, iou, .. } in &self.classes {
            writeln!(out, "  {QUIET}{:<11}{QUIET:#} {:6.2} %  {label}", "IoU", 100.0 * iou)?;
        }
        self.reference.as_ref().map_or(Ok(()), |comparison| comparison.print(out))
    }

    /// `--max-drop`, in points of mIoU.
    fn decide(&self, max_drop: Option<f64>) -> Result<()> {
        let (Some(most), Some(reference)) = (max_drop, &self.reference) else { return Ok(()) };
        let drop = -100.0 * reference.miou_difference.difference;
        if drop > most {
            let why = format!("mIoU is {drop:.2} points below the reference, more than {most}");
            return Err(Error::Rejected(format!("{}: {why}", self.model)));
        }
        Ok(())
    }
}

impl Comparison {
    fn print(&self, out: &mut Out) -> Result<()> {
        writeln!(out, "against {NAME}{}{NAME:#}", self.name)?;
        self.measured.print(out)?;
        let Paired { difference, interval, .. } = self.miou_difference;
        let worse = interval.is_some_and(|[_, high]| high < 0.0);
        let style = if worse { ERROR } else { STRONG };
        let text =
            format!("{style}mIoU {:+.2} points{style:#}, {}", 100.0 * difference, paired_range(interval, 100.0, 2));
        writeln!(out, "  {QUIET}{:<11}{QUIET:#} {text}", "verdict")?;
        let Paired { difference, interval, .. } = self.accuracy_difference;
        let text = format!("accuracy {:+.2} points, {}", 100.0 * difference, paired_range(interval, 100.0, 2));
        writeln!(out, "  {:<11} {text}", "")?;
        Ok(writeln!(out, "  {:<11} {}", "", self.meaning())?)
    }

    /// What follows from the interval of mIoU.
    fn meaning(&self) -> String {
        let Some([low, high]) = self.miou_difference.interval else {
            return "one picture shows no difference".to_string();
        };
        let points = |x: f64| 100.0 * x.abs();
        if high < 0.0 {
            format!("the model is worse: its mIoU is {:.2} to {:.2} points smaller", points(high), points(low))
        } else if low > 0.0 {
            format!("the model is better: its mIoU is {:.2} to {:.2} points larger", points(low), points(high))
        } else {
            format!("no difference shown, and a mIoU more than {:.2} points smaller is unlikely", points(low))
        }
    }
}
