//! `vitlet eval`: accuracy on labelled pictures, and agreement with a reference. The next pictures are decoded on a thread of
//! their own while the model runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use vitlet::{Model, Named, Output};

use crate::dataset::{self, Classes, Dataset, Entry, Folder};
use crate::error::{Error, Result, print_line};
use crate::inference::{Compute, ComputeArgs, Inference};
use crate::model::ModelFile;
use crate::output::{self, NAME, QUIET, STRONG};
use crate::pictures::{self, Rgb8, Source};
use crate::stats::{self, PooledError};
use crate::{npy, ranks};

/// Pictures that wait decoded, at most.
const DECODED_AHEAD: usize = 4;
/// Lines of the mapping from folders to classes that are shown; `--json` holds all.
const FOLDERS_SHOWN: usize = 12;

#[derive(Args)]
pub struct EvalArgs {
    /// Model file
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    /// A directory with one folder per class, or a CSV of path,label_index lines
    #[arg(value_name = "DIR_OR_CSV")]
    dataset: PathBuf,

    /// Compare with this model: an f32 .gguf, or a checkpoint directory
    #[arg(long, value_name = "REF")]
    reference: Option<PathBuf>,

    /// Compare with these logits: a .npy of f32 [pictures, classes], in the order of the dataset
    #[arg(long, value_name = "FILE", conflicts_with = "reference")]
    reference_logits: Option<PathBuf>,

    /// Take only the first N pictures
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    precision: &'static str,
    layerscale: &'static str,
    kernel: &'static str,
    threads: usize,
    /// Pictures that were read.
    n: usize,
    unreadable: Vec<String>,
    /// Shares in [0, 1].
    top1: f64,
    top5: f64,
    /// Median milliseconds from decoded pixels to logits.
    median_ms: f64,
    reference: Option<Comparison>,
    folders: Vec<Folder>,
}

#[derive(Serialize)]
struct Comparison {
    name: String,
    /// The share of pictures with the same first label.
    agreement: f64,
    /// sqrt(sum |y - r|^2 / sum |r|^2) over the logits of all pictures.
    relative_logit_error: f64,
    /// The reference's own accuracy.
    top1: f64,
}

pub fn run(args: EvalArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let model = file.parse()?;
    let classes = classes(&model);
    if classes.count == 0 {
        return Err(Error::new(&file.name, "no classification head, so no accuracy"));
    }
    let mut dataset = dataset::open(&args.dataset, &classes)?;
    let reference_file = args.reference.as_deref().map(open_reference).transpose()?;
    let compute = Compute::new(&args.compute)?;
    let mut reference = match (&reference_file, &args.reference_logits) {
        (Some(reference), _) => Some(Reference::model(reference, &compute, classes.count)?),
        (None, Some(path)) => Some(Reference::logits(path, dataset.entries.len(), classes.count)?),
        (None, None) => None,
    };
    dataset.entries.truncate(args.limit.unwrap_or(usize::MAX));
    if !args.json {
        print_mapping(&dataset)?;
    }

    let mut tally = Tally::default();
    let inference = Inference::new(model, &compute, Output::Logits);
    evaluate(&dataset.entries, inference, reference.as_mut(), &mut tally)?;
    if tally.n == 0 {
        return Err(Error::new(args.dataset.display(), "none of its pictures could be read"));
    }
    let share = |count: usize| count as f64 / tally.n as f64;
    let report = Report {
        precision: model.config().precision.name(),
        layerscale: model.config().layerscale.name(),
        kernel: compute.kernels.name(),
        threads: compute.threads,
        n: tally.n,
        top1: share(tally.top1),
        top5: share(tally.top5),
        median_ms: stats::median(&tally.ms),
        reference: reference.map(|r| Comparison {
            name: r.name,
            agreement: share(tally.agreed),
            relative_logit_error: tally.error.value(),
            top1: share(tally.reference_top1),
        }),
        unreadable: tally.unreadable,
        folders: dataset.folders,
        model: file.name.clone(),
    };
    if args.json { output::json(&report) } else { print(&report) }
}

fn classes<'a>(model: &Model<'a>) -> Classes<'a> {
    let labels: Vec<&str> = model.labels().collect();
    let count = model.config().classes;
    let imagenet = count == 1000 && labels.first().is_none_or(|l| l.starts_with("tench"));
    Classes { count, labels, synsets: if imagenet { vitlet_convert::imagenet_synsets() } else { &[] } }
}

/// What the model's logits are compared with.
struct Reference<'m> {
    name: String,
    source: ReferenceSource<'m>,
}

enum ReferenceSource<'m> {
    Model(Box<Inference<'m>>),
    /// `[pictures, classes]`.
    Logits(npy::Array),
}

/// A model file, or a checkpoint that is converted in memory.
fn open_reference(path: &Path) -> Result<ModelFile> {
    if !path.is_dir() {
        return ModelFile::open(path);
    }
    let name = path.display().to_string();
    let options = vitlet_convert::Options { precision: vitlet::Precision::F32, ..Default::default() };
    let converted = vitlet_convert::convert(path, &options, &mut |_| {}).map_err(|e| Error::new(e.what, e.why))?;
    Ok(ModelFile::converted(converted, name))
}

impl<'m> Reference<'m> {
    fn model(file: &'m ModelFile, compute: &'m Compute, classes: usize) -> Result<Self> {
        let model = file.parse()?;
        let c = model.config();
        if c.classes != classes {
            return Err(Error::new(&file.name, format!("{} classes, the model has {classes}", c.classes)));
        }
        if c.precision != vitlet::Precision::F32 {
            let why = format!("{} weights: a reference is f32 (`vitlet convert --precision f32`)", c.precision.name());
            return Err(Error::new(&file.name, why));
        }
        let source = ReferenceSource::Model(Box::new(Inference::new(model, compute, Output::Logits)));
        Ok(Self { name: file.name.clone(), source })
    }

    fn logits(path: &Path, pictures: usize, classes: usize) -> Result<Self> {
        let logits = npy::read(path)?;
        if logits.shape != [pictures, classes] {
            let why = format!("shape {:?}, the dataset wants [{pictures}, {classes}]", logits.shape);
            return Err(Error::new(path.display(), why));
        }
        Ok(Self { name: path.display().to_string(), source: ReferenceSource::Logits(logits) })
    }

    fn row(&mut self, index: usize, picture: &Rgb8) -> Result<Vec<f32>, vitlet::Error> {
        match &mut self.source {
            ReferenceSource::Model(inference) => inference.picture(picture),
            ReferenceSource::Logits(logits) => {
                let classes = logits.shape[1];
                Ok(logits.data[index * classes..(index + 1) * classes].to_vec())
            }
        }
    }
}

#[derive(Default)]
struct Tally {
    n: usize,
    top1: usize,
    top5: usize,
    agreed: usize,
    reference_top1: usize,
    error: PooledError,
    ms: Vec<f64>,
    unreadable: Vec<String>,
}

fn evaluate(
    entries: &[Entry],
    mut inference: Inference,
    mut reference: Option<&mut Reference>,
    tally: &mut Tally,
) -> Result<()> {
    let bar = output::progress(entries.len() as u64, "{bar:40.cyan} {pos}/{len}  {msg}  {eta} left");
    let done = std::thread::scope(|scope| {
        let (send, receive) = sync_channel(DECODED_AHEAD);
        scope.spawn(move || {
            let mut pictures = entries.iter().map(|e| pictures::load(&Source::File(e.path.clone())));
            // An error here means that the receiver has given up.
            pictures.try_for_each(|picture| send.send(picture))
        });
        for (index, (entry, picture)) in entries.iter().zip(receive).enumerate() {
            match picture {
                Ok(picture) => {
                    tally.add(index, entry, &picture, &mut inference, reference.as_deref_mut())?;
                }
                Err(e) => tally.skip(entry, &e, &bar),
            }
            bar.set_message(format!("top-1 {:.1} %", 100.0 * tally.top1 as f64 / tally.n.max(1) as f64));
            bar.inc(1);
        }
        Ok(())
    });
    bar.finish_and_clear();
    done
}

impl Tally {
    fn add(
        &mut self,
        index: usize,
        entry: &Entry,
        picture: &Rgb8,
        inference: &mut Inference,
        reference: Option<&mut Reference>,
    ) -> Result<()> {
        let failed = |e| Error::new(entry.path.display(), e);
        let start = Instant::now();
        let logits = inference.picture(picture).map_err(failed)?;
        self.ms.push(start.elapsed().as_secs_f64() * 1e3);
        let top = ranks::top(&logits, 5);
        self.n += 1;
        self.top1 += usize::from(top[0] == entry.label);
        self.top5 += usize::from(top.contains(&entry.label));
        if let Some(reference) = reference {
            let expected = reference.row(index, picture).map_err(failed)?;
            let first = ranks::top(&expected, 1)[0];
            self.agreed += usize::from(first == top[0]);
            self.reference_top1 += usize::from(first == entry.label);
            self.error.add(&logits, &expected);
        }
        Ok(())
    }

    fn skip(&mut self, entry: &Entry, e: &Error, bar: &ProgressBar) {
        bar.suspend(|| match e {
            Error::Failed(line) => print_line(line),
            other => {
                other.report();
            }
        });
        self.unreadable.push(entry.path.display().to_string());
    }
}

fn print_mapping(dataset: &Dataset) -> Result<()> {
    let folders = &dataset.folders;
    let mut out = output::stdout();
    let width = folders.iter().take(FOLDERS_SHOWN).map(|f| f.folder.chars().count()).max().unwrap_or(0);
    for f in folders.iter().take(FOLDERS_SHOWN) {
        let label = f.label.as_deref().unwrap_or("");
        writeln!(out, "{QUIET}{:width$}  ->  {} {label}, {} pictures{QUIET:#}", f.folder, f.index, f.pictures)?;
    }
    if folders.len() > FOLDERS_SHOWN {
        writeln!(out, "{QUIET}... and {} more folders (--json lists all){QUIET:#}", folders.len() - FOLDERS_SHOWN)?;
    }
    Ok(())
}

fn print(r: &Report) -> Result<()> {
    let mut out = output::stdout();
    let percent = |share: f64| format!("{:7.2} %", share * 100.0);
    writeln!(out, "{NAME}{}{NAME:#}  {}, LayerScale {}", r.model, r.precision, r.layerscale)?;
    let unreadable = match r.unreadable.len() {
        0 => String::new(),
        n => format!(", {n} unreadable"),
    };
    writeln!(out, "  pictures   {:7}{unreadable}", r.n)?;
    writeln!(out, "  top-1      {STRONG}{}{STRONG:#}", percent(r.top1))?;
    writeln!(out, "  top-5      {}", percent(r.top5))?;
    writeln!(out, "  latency    {:7.2} ms median, kernel {}, threads {}", r.median_ms, r.kernel, r.threads)?;
    if let Some(c) = &r.reference {
        writeln!(out, "against {NAME}{}{NAME:#}", c.name)?;
        writeln!(out, "  top-1      {} of the reference", percent(c.top1))?;
        writeln!(out, "  agreement  {} of first labels", percent(c.agreement))?;
        writeln!(out, "  error      {:9.5} relative, of all logits", c.relative_logit_error)?;
    }
    Ok(())
}
