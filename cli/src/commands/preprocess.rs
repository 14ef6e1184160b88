//! `vitlet preprocess`: the model's input for a picture, as a tensor that `run` and Python read.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Context, Result};
use crate::inference::{Compute, ComputeArgs, Inference, SizeArgs};
use crate::model::ModelFile;
use crate::pictures::{self, Source};
use crate::{files, npy, output};

#[derive(Args)]
pub struct PreprocessArgs {
    /// Model file, or hf:OWNER/NAME
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    /// A JPEG, PNG, WebP or BMP file, or - for standard input
    #[arg(value_name = "IMAGE")]
    image: PathBuf,

    /// Where to write f32 [1, 3, height, width], normalized
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    size: SizeArgs,
}

pub fn run(args: PreprocessArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let source = if args.image.as_os_str() == "-" { Source::Stdin } else { Source::File(args.image) };
    files::refuse_inputs(&args.output, files::of_pictures([&source]).chain([args.model]))?;
    let picture = pictures::load(&source)?;
    let compute = Compute::new(&ComputeArgs::one_thread())?;
    let mut inference = Inference::with(&file, &compute, compute.run(args.size.get()))?;
    let input = inference.prepare(&picture).about(&source)?;
    let c = inference.plan().config();
    let shape = [1, 3, c.image_height, c.image_width];
    npy::write(&args.output, &shape, &input)?;
    let (width, height) = (picture.width, picture.height);
    writeln!(
        output::beside([&args.output]),
        "{}: f32 {shape:?} of {source}, {width} x {height}",
        args.output.display()
    )?;
    Ok(())
}
