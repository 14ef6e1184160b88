//! `vitlet embed`: the features before the head, one row per picture, as a .npy file, and beside it a CSV that says
//! which picture each row is.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use vitlet::Output;

use crate::error::{Context, Inputs, Result};
use crate::inference::{Compute, ComputeArgs, Inference, SizeArgs};
use crate::model::ModelFile;
use crate::pictures::{self, Source};
use crate::results::{Done, PictureResult};
use crate::{files, npy, output};

#[derive(Args)]
pub struct EmbedArgs {
    /// Model file, or hf:OWNER/NAME
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    /// JPEG, PNG, WebP or BMP files, directories, or - for standard input
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// Where to write f32 [rows, features]
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Where to write which picture each row is, row,image; by default NAME.rows.csv beside NAME.npy
    #[arg(long, value_name = "CSV")]
    rows: Option<PathBuf>,

    /// Write every patch token, f32 [rows, patches, dim], instead of the pooled features
    #[arg(long)]
    tokens: bool,

    #[command(flatten)]
    size: SizeArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    model: String,
    output: String,
    /// Null where the output is no file and `--rows` was not given.
    rows: Option<String>,
    shape: Vec<usize>,
    results: Vec<PictureResult<Row>>,
}

/// The fields of `embed` for one picture.
#[derive(Serialize)]
struct Row {
    row: usize,
}

/// A picture that cannot be read or run has no row.
pub fn run(args: EmbedArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let sources = pictures::list(&args.images)?;
    let rows = args.rows.clone().or_else(|| beside(&args.output));
    let outputs = || rows.iter().chain([&args.output]);
    for path in outputs() {
        files::refuse_inputs(path, files::of_pictures(&sources).chain([args.model.clone()]))?;
    }
    rows.as_ref().map_or(Ok(()), |rows| files::refuse_same(rows, &args.output))?;
    files::refuse_stdout(args.json, outputs())?;
    let compute = Compute::new(&args.compute)?;
    let output = if args.tokens { Output::Tokens } else { Output::Features };
    let mut inference = Inference::with(&file, &compute, compute.run(args.size.get()).outputs(&[output]))?;

    let (mut data, mut named) = (Vec::new(), vec![["row", "image"].map(str::to_string)]);
    let (mut inputs, mut results) = (Inputs::default(), Vec::new());
    let bar = output::progress(sources.len() as u64, "{bar:40.cyan} {pos}/{len} pictures, {eta} left");
    for source in &sources {
        match embed(source, &mut inference, inputs.count()) {
            Ok((features, told)) => {
                data.extend(features);
                named.push([told.rest.row.to_string(), told.image.clone()]);
                results.push(PictureResult::Done(told));
                inputs.done();
            }
            Err(e) => {
                bar.suspend(|| inputs.failed(&e));
                results.push(PictureResult::failed(source.to_string(), &e));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let (count, c) = (inputs.count(), inference.plan().config());
    let shape = if args.tokens { vec![count, c.patches(), c.dim] } else { vec![count, c.features()] };
    if count > 0 {
        npy::write(&args.output, &shape, &data)?;
        rows.as_ref().map_or(Ok(()), |path| files::write_csv(path, named))?;
    }
    let name = |path: &PathBuf| path.display().to_string();
    if args.json {
        let (output, rows) = (name(&args.output), rows.as_ref().map(name));
        output::json(&Document { model: file.name, output, rows, shape, results })?;
    } else if count > 0 {
        let mut out = output::beside(outputs());
        let rows = rows.as_ref().map_or(String::new(), |path| format!(", its pictures in {}", path.display()));
        writeln!(out, "{}: f32 {shape:?}{rows}", args.output.display())?;
    }
    inputs.end()
}

/// The features of one picture, which become row `row`.
fn embed(source: &Source, inference: &mut Inference, row: usize) -> Result<(Vec<f32>, Done<Row>)> {
    let picture = pictures::load(source)?;
    let answer = inference.picture(&picture).about(source)?;
    Ok((answer.values, Done::new(source.to_string(), &picture, answer.times, Row { row })))
}

/// `NAME.rows.csv` for `NAME.npy`; nothing beside a pipe or a device.
fn beside(output: &Path) -> Option<PathBuf> {
    vitlet_convert::output::is_regular(output).then(|| output.with_extension("rows.csv"))
}
