//! `vitlet eval`: accuracy on labelled pictures, and the loss against a reference. Threads of their own decode the
//! next pictures while the model runs. docs/eval.md explains the report.

mod depth;
mod paired;
mod print;
mod records;
mod reference;
mod samples;
mod segment;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::backend::{self, BackendArgs, Network, OnnxFile, Runner};
use crate::dataset::{self, Classes, Dataset, Entry};
use crate::error::{Error, Inputs, Result};
use crate::files;
use crate::inference::{Answer, Compute, ComputeArgs, SizeArgs};
use crate::model::ModelFile;
use crate::output;
use crate::pictures::{self, Rgb8};
use crate::results::{Done, FailedPicture};
use crate::{preparation, stats};
use records::{Against, Picture, Record, Results, Setting, Shard, Unreadable};
use reference::Reference;
use summary::Summary;

/// Threads that decode, at most, and decoded pictures that wait.
const DECODERS: usize = 4;
const DECODED_AHEAD: usize = 4;

#[derive(Args)]
pub struct EvalArgs {
    /// Model file or hf:OWNER/NAME (with --backend tract, an ONNX file)
    #[arg(short, long, value_name = "FILE", required_unless_present = "merge")]
    model: Option<PathBuf>,

    /// A directory with one folder per class, a directory of unlabelled pictures, or a CSV of path,label lines; for a
    /// depth model a directory of pictures with depth beside them (.npy or 16-bit .png), or a CSV of path,depth lines;
    /// for a segmentation model the same with .png files of class numbers, or a CSV of path,classes lines
    #[arg(value_name = "DIR_OR_CSV", required_unless_present = "merge")]
    dataset: Option<PathBuf>,

    /// Compare with this model: an ONNX file (run by tract), an f32 .gguf, a checkpoint directory or hf:OWNER/NAME
    #[arg(long, value_name = "REF")]
    reference: Option<PathBuf>,

    /// Compare with these logits: a .npy of f32 [pictures, classes], in the order of the dataset
    #[arg(long, value_name = "FILE", conflicts_with = "reference")]
    reference_logits: Option<PathBuf>,

    /// Exit with status 3 if top-1 (delta 1 of a depth model, mIoU of a segmentation model) is more than this many
    /// points below the reference's
    #[arg(long, value_name = "POINTS")]
    max_drop: Option<f64>,

    /// Write the pictures whose first label is not the reference's
    #[arg(long, value_name = "CSV")]
    flips: Option<PathBuf>,

    /// Take only the first N pictures
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Take part I of N, as in 2/8; --merge adds the JSON documents of all parts up
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,

    /// Add up the JSON documents that runs with --shard and --json printed, instead of running
    #[arg(long, value_name = "JSON", num_args = 1.., conflicts_with_all = ["model", "dataset", "reference", "reference_logits", "limit", "shard"])]
    merge: Vec<PathBuf>,

    /// Of a depth model: units of a 16-bit PNG in a metre [default: 1000]
    #[arg(long, value_name = "N", value_parser = positive)]
    depth_scale: Option<f32>,

    /// Of a depth model: leave out pixels that are farther in truth
    #[arg(long, value_name = "METRES", value_parser = positive)]
    max_depth: Option<f32>,

    /// Of a segmentation model: label 0 is no class, and label 1 is the first class (ADE20k's files)
    #[arg(long)]
    reduce_zero_label: bool,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Print one JSON document, every picture included
    #[arg(long)]
    json: bool,

    // The last: its heading holds for all that follows.
    #[command(flatten)]
    backend: BackendArgs,
}

fn positive(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|x: &f32| x.is_finite() && *x > 0.0).ok_or("a number above 0")
}

/// Of a comparison over the pixels of pictures.
fn refuse_options_of_classifiers(args: &EvalArgs) -> Result<()> {
    let given = [
        (args.flips.is_some(), "--flips"),
        (args.reference_logits.is_some(), "--reference-logits"),
        (args.shard.is_some(), "--shard"),
    ];
    if let Some((_, option)) = given.iter().find(|(given, _)| *given) {
        return Err(Error::Usage(format!("{option} is for models with classes of pictures, not of pixels")));
    }
    match args.max_drop.is_some() && args.reference.is_none() {
        true => Err(Error::Usage("--max-drop needs a reference".to_string())),
        false => Ok(()),
    }
}

/// A 95 % interval in words, times `times`.
fn paired_range(interval: Option<[f64; 2]>, times: f64, decimals: usize) -> String {
    interval.map_or("no interval of one picture".to_string(), |[low, high]| {
        format!("95 % interval [{:+.decimals$}, {:+.decimals$}]", low * times, high * times)
    })
}

/// What `--json` prints: the summary for people who read it, and the records that `--merge` reads.
#[derive(Serialize)]
struct Document<'r> {
    model: &'r str,
    precision: &'r str,
    layerscale: &'r str,
    #[serde(flatten)]
    summary: &'r Summary,
    folders: &'r [dataset::Folder],
    #[serde(flatten)]
    results: &'r Results,
}

pub fn run(args: EvalArgs) -> Result<()> {
    files::refuse_stdout(args.json, &args.flips)?;
    if let Some(flips) = &args.flips {
        let named = [&args.model, &args.dataset, &args.reference_logits];
        files::refuse_inputs(flips, named.into_iter().flatten().chain(&args.merge))?;
        args.reference.as_ref().map_or(Ok(()), |reference| files::refuse_checkpoint(flips, reference))?;
        args.backend.refuse_inputs(flips)?;
    }
    let results = match (&args.model, &args.dataset) {
        (Some(model), Some(dataset)) => match args.backend.open(model)? {
            Network::Model(file) if file.parse()?.config().head.depth().is_some() => {
                return depth::run(&args, &file, dataset);
            }
            Network::Model(file) if file.parse()?.config().head.patch_classes() > 0 => {
                return segment::run(&args, &file, dataset);
            }
            network => measure(&args, &network, dataset)?,
        },
        _ => records::merge(&args.merge)?,
    };
    let summary = Summary::of(&results);
    if let Some(path) = args.flips.as_ref().filter(|_| summary.n > 0) {
        files::write_csv(path, summary::flips(&results))?;
    }
    if args.json {
        let Setting { model, precision, layerscale, folders, .. } = &results.setting;
        output::json(&Document { model, precision, layerscale, summary: &summary, folders, results: &results })?;
    } else {
        print::report(&mut output::beside(&args.flips), &results, &summary)?;
    }
    let end = Inputs::counted(results.pictures.len(), results.unread.len()).end();
    // A failed check counts more than pictures left out, and without pictures there is nothing to check.
    if !matches!(end, Err(Error::AllFailed)) {
        decide(&args, &results, &summary)?;
    }
    end
}

/// `--max-drop`.
fn decide(args: &EvalArgs, results: &Results, summary: &Summary) -> Result<()> {
    let Some(most) = args.max_drop else { return Ok(()) };
    if results.pictures.is_empty() {
        return Err(Error::Rejected(format!("{}: no pictures to compute a drop from", results.setting.dataset)));
    }
    let verdict = summary.reference.as_ref().and_then(|r| r.verdict);
    let verdict = verdict.ok_or_else(|| Error::Usage("--max-drop needs labels and a reference".to_string()))?;
    if -verdict.points > most {
        let why = format!("top-1 is {:.2} points below the reference, more than {most}", -verdict.points);
        return Err(Error::Rejected(format!("{}: {why}", results.setting.model)));
    }
    Ok(())
}

fn measure(args: &EvalArgs, network: &Network, path: &Path) -> Result<Results> {
    let compute = Compute::new(&args.compute)?;
    let runner = network.start(&compute, &SizeArgs::default())?;
    let facts = runner.facts();
    let classes = classes(facts.labels.clone(), facts.classes);
    if classes.count == 0 {
        return Err(Error::new(network.name(), "no classification head, so no accuracy"));
    }
    if args.depth_scale.is_some() || args.max_depth.is_some() {
        return Err(Error::Usage("--depth-scale and --max-depth are for depth models".to_string()));
    }
    let mut dataset = dataset::open(path, &classes)?;
    check(args, &dataset, path)?;
    let reference_network = args.reference.as_deref().map(|path| open_reference(path, &runner)).transpose()?;
    let mut reference = match (&reference_network, &args.reference_logits) {
        (Some(reference), _) => Some(Reference::network(reference, &compute, classes.count)?),
        (None, Some(path)) => Some(Reference::logits(path, dataset.entries.len(), classes.count)?),
        (None, None) => None,
    };
    if let Some(reference) = &reference {
        compare_preparations(&runner, reference)?;
    }
    if let Some(flips) = &args.flips {
        files::refuse_inputs(flips, files::of_pictures(dataset.entries.iter().map(|e| &e.source)))?;
    }
    dataset.entries.truncate(args.limit.unwrap_or(usize::MAX));
    if !args.json {
        print::mapping(&mut output::beside(&args.flips), &dataset, classes.count)?;
    }
    let mut results = Results {
        setting: Setting {
            model: network.name().to_string(),
            precision: facts.precision.to_string(),
            layerscale: facts.layerscale.to_string(),
            dataset: path.display().to_string(),
            total: dataset.entries.len(),
            against: reference.as_ref().map(|r| r.name.clone()),
            labels: classes.labels.iter().map(|l| (*l).to_string()).collect(),
            folders: dataset.folders,
        },
        shard: args.shard,
        kernel: facts.kernel.to_string(),
        threads: facts.threads,
        seconds: 0.0,
        unread: Vec::new(),
        pictures: Vec::new(),
    };
    let part = |i: &usize| args.shard.is_none_or(|s| s.holds(*i));
    let work: Vec<_> = (0..dataset.entries.len()).filter(part).map(|i| (i, &dataset.entries[i])).collect();
    let start = Instant::now();
    evaluate(&work, runner, reference.as_mut(), &mut results);
    results.seconds = start.elapsed().as_secs_f64();
    results.sort();
    Ok(results)
}

/// Says where model and reference do not see the same input, since the comparison is then of more than the weights.
fn compare_preparations(model: &Runner, reference: &Reference) -> Result<()> {
    let own = preparation::words(&model.preprocess()?);
    let its = reference.preprocess().map(|p| preparation::words(&p)).filter(|its| *its != own);
    if let Some(its) = its {
        output::warn(&format!(
            "model and reference prepare pictures differently: the model {own}; {} {its}",
            reference.name
        ));
    }
    Ok(())
}

/// What the dataset and the options ask of each other, before anything runs.
fn check(args: &EvalArgs, dataset: &Dataset, path: &Path) -> Result<()> {
    let refers = args.reference.is_some() || args.reference_logits.is_some();
    let labelled = dataset.entries.iter().any(|e| e.label.is_some());
    if args.flips.is_some() && !refers {
        return Err(Error::Usage("--flips needs --reference or --reference-logits".to_string()));
    }
    if args.max_drop.is_some() && !(refers && labelled) {
        return Err(Error::Usage("--max-drop needs labels and a reference".to_string()));
    }
    if !labelled && !refers {
        let why =
            "pictures without labels: put them into one folder per class, or name a --reference for agreement alone";
        return Err(Error::new(path.display(), why));
    }
    Ok(())
}

/// An ONNX file, which sees the very pictures that the model sees, or what becomes a model file.
fn open_reference(path: &Path, model: &Runner) -> Result<Network> {
    if backend::is_onnx(path) {
        return Ok(Network::Onnx(Box::new(OnnxFile::open_like(path, &model.preprocess()?)?)));
    }
    ModelFile::open_or_convert(path).map(|file| Network::Model(Box::new(file)))
}

/// The classes of a model, as a dataset's folders name them.
pub(crate) fn classes(labels: Vec<&str>, count: usize) -> Classes<'_> {
    let imagenet = count == 1000 && labels.first().is_none_or(|l| l.starts_with("tench"));
    Classes { count, labels, synsets: if imagenet { vitlet_convert::imagenet_synsets() } else { &[] } }
}

/// Runs `work`, pictures with their places in the dataset.
fn evaluate(
    work: &[(usize, &Entry)],
    mut runner: Runner,
    mut reference: Option<&mut Reference>,
    results: &mut Results,
) {
    let bar = output::progress(work.len() as u64, "{bar:40.cyan} {pos}/{len}  {msg}  {eta} left");
    let next = AtomicUsize::new(0);
    let mut running = Running::default();
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(DECODED_AHEAD);
        let decoders = std::thread::available_parallelism().map_or(1, usize::from).min(DECODERS);
        for _ in 0..decoders {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || decode(work, next, &send));
        }
        drop(send);
        for (at, picture) in receive {
            let (index, entry) = work[at];
            let seen = picture.and_then(|p| look(index, entry, &p, &mut runner, reference.as_deref_mut()));
            match seen {
                Ok(picture) => {
                    running.add(&picture.rest);
                    results.pictures.push(picture);
                }
                Err(e) => {
                    bar.suspend(|| e.report());
                    let left_out = FailedPicture::new(entry.source.to_string(), &e);
                    results.unread.push(Unreadable { index, left_out });
                }
            }
            bar.set_message(running.message());
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
}

/// Decodes whatever is next until nothing is left, or the receiver has given up.
fn decode(work: &[(usize, &Entry)], next: &AtomicUsize, send: &SyncSender<(usize, Result<Rgb8>)>) {
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some((_, entry)) = work.get(at) else { return };
        if send.send((at, pictures::load(&entry.source))).is_err() {
            return;
        }
    }
}

fn look(
    index: usize,
    entry: &Entry,
    picture: &Rgb8,
    runner: &mut Runner,
    reference: Option<&mut Reference>,
) -> Result<Picture> {
    let failed = |e: String| Error::new(&entry.source, e);
    let Answer { values: logits, times } = runner.picture(picture).map_err(failed)?;
    let reference = match reference {
        None => None,
        Some(reference) => {
            let expected = reference.row(index, picture).map_err(failed)?;
            let stats::Squares { difference, norm } = stats::squares(&logits, &expected);
            Some(Against { first: vitlet::best(&expected, 1)[0], difference, norm })
        }
    };
    let record = Record { index, label: entry.label, top: vitlet::best(&logits, 5), reference };
    Ok(Done::new(entry.source.to_string(), picture, times, record))
}

/// What the progress bar says.
#[derive(Default)]
struct Running {
    n: usize,
    labelled: usize,
    right: usize,
    agree: Option<usize>,
}

impl Running {
    fn add(&mut self, r: &Record) {
        self.n += 1;
        self.labelled += usize::from(r.label.is_some());
        self.right += usize::from(r.label.is_some() && r.label == r.top.first().copied());
        if let Some(agrees) = r.agrees() {
            *self.agree.get_or_insert(0) += usize::from(agrees);
        }
    }

    fn message(&self) -> String {
        let share = |count: usize, n: usize| format!("{:.1} %", 100.0 * count as f64 / n as f64);
        let top1 = (self.labelled > 0).then(|| format!("top-1 {}", share(self.right, self.labelled)));
        let agreement = self.agree.filter(|_| self.n > 0).map(|a| format!("agreement {}", share(a, self.n)));
        top1.into_iter().chain(agreement).collect::<Vec<_>>().join(", ")
    }
}
