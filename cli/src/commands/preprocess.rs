//! `vitlet preprocess`: the model's input for a picture or a frame, as a tensor that `run` and Python read.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use crate::error::{Context, Error, Result};
use crate::frames::{Found, FrameArgs, Tell};
use crate::inference::{Compute, ComputeArgs, Inference, SizeArgs, Times};
use crate::model::ModelFile;
use crate::pictures::{self, Source};
use crate::sessions::{InputSize, Sessions};
use crate::{files, npy, output};

#[derive(Args)]
pub struct PreprocessArgs {
    /// Model file, or hf:OWNER/NAME
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    /// A JPEG, PNG, WebP or BMP file, or - for standard input
    #[arg(required_unless_present = "camera", value_name = "IMAGE")]
    image: Option<PathBuf>,

    #[command(flatten)]
    frames: FrameArgs,

    /// Where to write f32 [1, 3, height, width], normalized; of frames the first, or with --frames N
    /// [N, 3, height, width]
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    size: SizeArgs,
}

pub fn run(args: PreprocessArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let compute = Compute::new(&ComputeArgs::one_thread())?;
    let mut sessions = Sessions::new(&file, &compute, InputSize::new(&file.parse()?, args.size.fitting(&file)?));
    match &args.image {
        Some(image) if !args.frames.is_some() => picture(image, &args.model, &args.output, &mut sessions),
        _ => frames(args, &file, &mut sessions),
    }
}

fn picture(image: &Path, model: &Path, output: &PathBuf, sessions: &mut Sessions<'_>) -> Result<()> {
    let source = if image.as_os_str() == "-" { Source::Stdin } else { Source::File(image.to_path_buf()) };
    files::refuse_inputs(output, files::of_pictures([&source]).chain([model.to_path_buf()]))?;
    npy::check_name(output)?;
    let picture = pictures::load(&source)?;
    let inference = sessions.of_picture(picture.width, picture.height).about(&source)?;
    let input = inference.prepare(&picture.borrow()).about(&source)?;
    let (width, height) = (picture.width, picture.height);
    write(output, &input, inference, &format!("{source}, {width} x {height}"))
}

/// All frames have the input size of the first.
fn frames(args: PreprocessArgs, file: &ModelFile, sessions: &mut Sessions<'_>) -> Result<()> {
    let PreprocessArgs { model, image, frames, output, .. } = args;
    files::refuse_inputs(&output, image.iter().chain([&model]))?;
    npy::check_name(&output)?;
    let (mut data, mut count, mut size) = (Vec::new(), 0, None);
    let (paths, tell) = (Vec::from_iter(image), Tell::new(false, [&output]));
    let ended = frames.or_frames(1).each(&paths, tell, &|| file.unchanged(), &mut |frame| {
        let (width, height) = *size.get_or_insert(frame.picture.seen());
        let inference = sessions.of_picture(width, height)?;
        let start = Instant::now();
        data.extend(inference.prepare(&frame.picture).map_err(|e| e.to_string())?);
        let end = Instant::now();
        count += 1;
        let text = format!("{} x {}", frame.picture.width, frame.picture.height);
        Ok(Found { times: Times::between(start, end, end), text, fields: () })
    });
    if let (Ok(()) | Err(Error::Partial(_)), Some((width, height)), 1..) = (&ended, size, count) {
        let inference = sessions.of_picture(width, height).about(&file.name)?;
        write(&output, &data, inference, &format!("{count} frames"))?;
    }
    ended
}

/// Writes inputs, and says of what.
fn write(path: &PathBuf, inputs: &[f32], inference: &Inference<'_>, of: &str) -> Result<()> {
    let c = inference.plan().config();
    let shape = [inputs.len() / c.input_len(), 3, c.image_height, c.image_width];
    npy::write(path, &shape, inputs)?;
    Ok(writeln!(output::beside([path]), "{}: f32 {shape:?} of {of}", path.display())?)
}
