//! `vitlet classify`: the most likely labels of pictures, or of frames of a camera or a raw stream.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::backend::{self, BackendArgs, Facts, Network, Runner};
use crate::error::{Context, Error, Inputs, Result};
use crate::frames::{Found, FrameArgs, Tell};
use crate::inference::{Answer, Compute, ComputeArgs, Inference, SizeArgs};
use crate::model::{BUILT_IN_NOTE, ModelFile};
use crate::output::{self, NAME, Out, PLAIN, QUIET, STRONG};
use crate::pictures::{self, Source};
use crate::results::{Done, PictureResult};

#[derive(Args)]
pub struct ClassifyArgs {
    /// Model file or hf:OWNER/NAME (with --backend tract, an ONNX file); without it, the built-in model with the ten
    /// classes of CIFAR-10
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,

    /// JPEG, PNG, WebP or BMP files, directories, or - for standard input
    #[arg(required_unless_present = "camera", value_name = "IMAGE")]
    images: Vec<PathBuf>,

    #[command(flatten)]
    frames: FrameArgs,

    /// Labels to show: 5 per picture, 1 per frame
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,

    #[command(flatten)]
    size: SizeArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Show a hash of the logits' bits: equal on every machine for int8 models
    #[arg(long)]
    digest: bool,

    /// Print one JSON document, or one per line and frame with --raw and --camera
    #[arg(long)]
    json: bool,

    // The last: its heading holds for all that follows.
    #[command(flatten)]
    backend: BackendArgs,
}

impl ClassifyArgs {
    fn top_k(&self) -> usize {
        self.top_k.unwrap_or(if self.frames.is_some() { 1 } else { 5 })
    }
}

#[derive(Serialize)]
struct Document {
    model: String,
    results: Vec<PictureResult<Classified>>,
}

/// The fields of `classify` for one picture or frame.
#[derive(Serialize)]
struct Classified {
    top: Vec<Guess>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

#[derive(Serialize)]
struct Guess {
    index: usize,
    label: Option<String>,
    probability: f32,
    logit: f32,
}

pub fn run(args: ClassifyArgs) -> Result<()> {
    let network = match &args.model {
        Some(path) => args.backend.open(path)?,
        None if args.backend.is_vitlet() => {
            output::note(BUILT_IN_NOTE);
            Network::Model(Box::new(ModelFile::built_in()))
        }
        None => return Err(Error::Usage("--backend tract needs an ONNX file, -m model.onnx".to_string())),
    };
    let compute = Compute::new(&args.compute)?;
    let mut runner = network.start(&compute, &args.size)?;
    let facts = runner.facts();
    if facts.classes == 0 {
        let cure = match &runner {
            Runner::Model(inference) => backend::commands_for(inference.model().config()),
            Runner::Onnx(_) => "`vitlet run` writes its output".to_string(),
        };
        return Err(Error::new(network.name(), format!("no classification head: {cure}")));
    }
    if args.frames.is_some() {
        return match &mut runner {
            Runner::Model(inference) => frames(&args, &network, &facts, inference),
            Runner::Onnx(_) => Err(Error::Usage("--raw and --camera are for model files".to_string())),
        };
    }
    let sources = pictures::list(&args.images)?;

    let mut out = output::stdout();
    let mut document = Document { model: network.name().to_string(), results: Vec::new() };
    let mut inputs = Inputs::default();
    for source in &sources {
        match classify(source, &facts, &mut runner, &args) {
            Ok(result) => {
                inputs.done();
                if args.json {
                    document.results.push(PictureResult::Done(result));
                } else {
                    print(&mut out, &result)?;
                }
            }
            Err(e) => {
                inputs.failed(&e);
                document.results.push(PictureResult::failed(source.to_string(), &e));
            }
        }
    }
    if args.json {
        drop(out);
        output::json(&document)?;
    }
    inputs.end()
}

fn classify(source: &Source, facts: &Facts, runner: &mut Runner, args: &ClassifyArgs) -> Result<Done<Classified>> {
    let picture = pictures::load(source)?;
    let Answer { values, times } = runner.picture(&picture).about(source)?;
    Ok(Done::new(source.to_string(), &picture, times, Classified::new(&values, facts, args)))
}

/// Frames of a camera or of streams: one line each.
fn frames(args: &ClassifyArgs, network: &Network, facts: &Facts, inference: &mut Inference) -> Result<()> {
    args.frames.each(&args.images, Tell::new(args.json, []), &|| network.unchanged(), &mut |frame| {
        let Answer { values, times } = inference.frame(&frame.picture)?;
        let fields = Classified::new(&values, facts, args);
        Ok(Found { times, text: line(&fields), fields })
    })
}

impl Classified {
    fn new(logits: &[f32], facts: &Facts, args: &ClassifyArgs) -> Self {
        let digest = args.digest.then(|| format!("{:016x}", vitlet::digest(logits)));
        Self { top: guesses(logits, facts, args.top_k()), digest }
    }
}

/// The `k` most likely classes, the likeliest first.
fn guesses(logits: &[f32], facts: &Facts, k: usize) -> Vec<Guess> {
    let mut probabilities = logits.to_vec();
    vitlet::scores(&mut probabilities, facts.scores);
    let guess = |index: usize| Guess {
        index,
        label: facts.labels.get(index).map(|l| (*l).to_string()),
        probability: probabilities[index],
        logit: logits[index],
    };
    vitlet::best(logits, k).into_iter().map(guess).collect()
}

/// The labels of a frame.
fn line(classified: &Classified) -> String {
    let guess = |guess: &Guess| {
        let label = guess.label.clone().unwrap_or_else(|| guess.index.to_string());
        format!("{:6.2} %  {STRONG}{label}{STRONG:#}", guess.probability * 100.0)
    };
    let guesses: Vec<String> = classified.top.iter().map(guess).collect();
    let digest = classified.digest.as_ref().map_or(String::new(), |digest| format!("  digest {digest}"));
    guesses.join("  ") + &digest
}

fn print(out: &mut Out, result: &Done<Classified>) -> Result<()> {
    writeln!(out, "{NAME}{}{NAME:#}  {QUIET}{:.2} ms{QUIET:#}", result.image, result.times.ms)?;
    let Classified { top, digest } = &result.rest;
    let width = top.iter().map(|g| g.index.to_string().len()).max().unwrap_or(0);
    for (rank, guess) in top.iter().enumerate() {
        let style = if rank == 0 { STRONG } else { PLAIN };
        let label = guess.label.clone().unwrap_or_else(|| format!("class {}", guess.index));
        let line = format!(
            "  {style}{:6.2} %{style:#}  {QUIET}{:>width$}{QUIET:#}  {style}{label}{style:#}",
            guess.probability * 100.0,
            guess.index
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if let Some(digest) = digest {
        writeln!(out, "  digest {digest}")?;
    }
    Ok(())
}
