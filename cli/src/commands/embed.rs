//! `vitlet embed`: the features before the head, one row per picture, as a .npy file.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use vitlet::Output;

use crate::error::{Error, Result};
use crate::inference::{Compute, ComputeArgs, Inference};
use crate::model::ModelFile;
use crate::{files, npy, output, pictures};

#[derive(Args)]
pub struct EmbedArgs {
    /// Model file
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    /// JPEG, PNG, WebP or BMP files, directories, or - for standard input
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// Where to write f32 [images, features]
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Write every patch token, f32 [images, patches, dim], instead of the pooled features
    #[arg(long)]
    tokens: bool,

    #[command(flatten)]
    compute: ComputeArgs,
}

/// Any unreadable picture ends the command: rows must stay in step with the pictures.
pub fn run(args: EmbedArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let model = file.parse()?;
    let sources = pictures::list(&args.images)?;
    files::refuse_inputs(&args.output, files::of_pictures(&sources).chain([args.model.clone()]))?;
    let compute = Compute::new(&args.compute)?;
    let output = if args.tokens { Output::Tokens } else { Output::Features };
    let mut inference = Inference::new(model, &compute, output);

    let mut data = Vec::new();
    let bar = output::progress(sources.len() as u64, "{bar:40.cyan} {pos}/{len} pictures, {eta} left");
    for source in &sources {
        let picture = pictures::load(source)?;
        data.extend(inference.picture(&picture).map_err(|e| Error::new(source, e))?);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let c = model.config();
    let shape = if args.tokens { vec![sources.len(), c.patches(), c.dim] } else { vec![sources.len(), c.features()] };
    npy::write(&args.output, &shape, &data)?;
    writeln!(output::stdout(), "{}: f32 {shape:?}", args.output.display())?;
    Ok(())
}
