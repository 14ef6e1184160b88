//! `vitlet embed`: the features before the head, one row per picture or frame, as a .npy file, and beside it a CSV that
//! says which picture each row is. Of frames also as lines of JSON.

mod frames;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use vitlet::Output;

use crate::error::{Context, Error, Inputs, Result};
use crate::frames::{FrameArgs, STREAM};
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
    #[arg(required_unless_present = "camera", value_name = "IMAGE")]
    images: Vec<PathBuf>,

    #[command(flatten)]
    frames: FrameArgs,

    /// Where to write f32 [rows, features]; frames may go to --json instead, with their features in it
    #[arg(short, long, value_name = "FILE", required_unless_present = STREAM)]
    output: Option<PathBuf>,

    /// Where to write which picture each row is, row,image (of frames row,source,frame,time); by default NAME.rows.csv
    /// beside NAME.npy
    #[arg(long, value_name = "CSV", requires = "output")]
    rows: Option<PathBuf>,

    /// Write every patch token, f32 [rows, patches, dim], instead of the pooled features
    #[arg(long)]
    tokens: bool,

    #[command(flatten)]
    size: SizeArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Print one JSON document, or one per line and frame
    #[arg(long)]
    json: bool,
}

/// Files that are written.
struct Outputs {
    npy: PathBuf,
    /// Nothing beside a pipe or a device.
    rows: Option<PathBuf>,
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

impl EmbedArgs {
    /// The outputs, none of which is one of the `inputs`; none without `-o`.
    fn outputs(&self, inputs: &[PathBuf]) -> Result<Option<Outputs>> {
        let Some(npy) = self.output.clone() else { return Ok(None) };
        let outputs = Outputs { rows: self.rows.clone().or_else(|| beside(&npy)), npy };
        for path in outputs.paths() {
            files::refuse_inputs(path, inputs.iter().chain([&self.model]))?;
        }
        outputs.rows.as_ref().map_or(Ok(()), |rows| files::refuse_same(rows, &outputs.npy))?;
        npy::check_name(&outputs.npy)?;
        files::refuse_stdout(self.json, outputs.paths())?;
        Ok(Some(outputs))
    }

    /// The network's output that is written.
    fn inference<'m>(&self, file: &'m ModelFile, compute: &'m Compute) -> Result<Inference<'m>> {
        let output = if self.tokens { Output::Tokens } else { Output::Features };
        Inference::with(file, compute, compute.run(self.size.fitting(file)?).outputs(&[output]))
    }

    /// The shape of `rows` rows.
    fn shape(&self, rows: usize, inference: &Inference<'_>) -> Vec<usize> {
        let c = inference.plan().config();
        if self.tokens { vec![rows, c.patches(), c.dim] } else { vec![rows, c.features()] }
    }
}

impl Outputs {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.rows.iter().chain([&self.npy])
    }

    /// Writes the rows, and which picture or frame each is.
    fn write<const N: usize>(&self, shape: &[usize], data: &[f32], named: Vec<[String; N]>) -> Result<()> {
        npy::write(&self.npy, shape, data)?;
        self.rows.as_ref().map_or(Ok(()), |path| files::write_csv(path, named))
    }

    /// Says what was written, the `what` of each row.
    fn report(&self, shape: &[usize], what: &str) -> Result<()> {
        let rows = self.rows.as_ref().map_or(String::new(), |path| format!(", its {what} in {}", path.display()));
        Ok(writeln!(output::beside(self.paths()), "{}: f32 {shape:?}{rows}", self.npy.display())?)
    }
}

pub fn run(args: EmbedArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    if args.frames.is_some() {
        return frames::run(&args, &file);
    }
    let sources = pictures::list(&args.images)?;
    // clap asks for it where there are no frames.
    let inputs: Vec<PathBuf> = files::of_pictures(&sources).collect();
    let outputs = args.outputs(&inputs)?.ok_or(Error::Usage("-o FILE is missing".to_string()))?;
    let compute = Compute::new(&args.compute)?;
    let mut inference = args.inference(&file, &compute)?;
    pictures(args, file.name.clone(), &sources, &outputs, &mut inference)
}

/// A picture that cannot be read or run has no row.
fn pictures(
    args: EmbedArgs,
    model: String,
    sources: &[Source],
    outputs: &Outputs,
    inference: &mut Inference<'_>,
) -> Result<()> {
    let (mut data, mut named) = (Vec::new(), vec![["row", "image"].map(str::to_string)]);
    let (mut inputs, mut results) = (Inputs::default(), Vec::new());
    let bar = output::progress(sources.len() as u64, "{bar:40.cyan} {pos}/{len} pictures, {eta} left");
    for source in sources {
        match embed(source, inference, inputs.count()) {
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

    let shape = args.shape(inputs.count(), inference);
    if inputs.count() > 0 {
        outputs.write(&shape, &data, named)?;
    }
    let name = |path: &PathBuf| path.display().to_string();
    if args.json {
        let (output, rows) = (name(&outputs.npy), outputs.rows.as_ref().map(name));
        output::json(&Document { model, output, rows, shape, results })?;
    } else if inputs.count() > 0 {
        outputs.report(&shape, "pictures")?;
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
