//! `vitlet run`: normalized tensors in, logits (or features) out, both .npy. What a Python pipeline compares with.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use crate::backend::{Backend, Network, OnnxFile};
use crate::error::{Error, Result};
use crate::inference::{Compute, ComputeArgs};
use crate::model::ModelFile;
use crate::{files, npy, output, pictures, stats};

#[derive(Args)]
pub struct RunArgs {
    /// Model file (with --backend tract, an ONNX file)
    #[arg(short, long, value_name = "FILE", required_unless_present = "images")]
    model: Option<PathBuf>,

    /// Input: f32 [batch, 3, height, width], normalized
    #[arg(long, value_name = "FILE", required_unless_present = "images")]
    input: Option<PathBuf>,

    /// Where to write f32 [batch, classes], or [batch, features] for a model without head
    #[arg(long, value_name = "FILE", required_unless_present = "images")]
    output: Option<PathBuf>,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Who computes: vitlet a model file, or tract an ONNX file (in f32, on one thread)
    #[arg(long, value_enum, hide_possible_values = true, value_name = "vitlet|tract", default_value = "vitlet")]
    backend: Backend,

    /// Taken only to say that `classify` takes pictures
    #[arg(hide = true)]
    images: Vec<PathBuf>,
}

pub fn run(args: RunArgs) -> Result<()> {
    if let Some(picture) = args.images.first().or(args.input.as_ref().filter(|p| pictures::is_pictures_name(p))) {
        return Err(was_classify_meant(picture));
    }
    let (Some(model), Some(input), Some(output)) = (&args.model, &args.input, &args.output) else {
        return Err(Error::Usage("run needs --model, --input and --output".to_string()));
    };
    files::refuse_inputs(output, [model, input])?;
    let (network, x) = match args.backend {
        Backend::Vitlet => (Network::Model(Box::new(ModelFile::open(model)?)), npy::read(input)?),
        Backend::Tract => {
            let x = npy::read(input)?;
            let size = if let [_, _, height, width] = x.shape[..] { Some((height, width)) } else { None };
            (Network::Onnx(Box::new(OnnxFile::open(model, size)?)), x)
        }
    };
    let compute = Compute::new(&args.compute)?;
    let mut runner = network.start(&compute)?;
    let facts = runner.facts();
    let (height, width) = facts.size;
    if x.shape.len() != 4 || x.shape[1..] != [3, height, width] {
        let want = format!("shape {:?}, the model takes [batch, 3, {height}, {width}]", x.shape);
        return Err(Error::new(input.display(), want));
    }

    let (mut y, mut ms) = (Vec::new(), Vec::new());
    for (i, row) in x.data.chunks_exact(3 * height * width).enumerate() {
        let what = || format!("{}, row {i}", input.display());
        if let Some(at) = row.iter().position(|x| !x.is_finite()) {
            return Err(Error::new(what(), format!("element {at} is {}: inputs are finite numbers", row[at])));
        }
        let start = Instant::now();
        y.extend(runner.tensor(row).map_err(|e| Error::new(what(), e))?);
        ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let shape = [x.shape[0], facts.outputs];
    npy::write(output, &shape, &y)?;
    let (path, mut out) = (output.display(), output::beside([output]));
    match ms.is_empty() {
        true => writeln!(out, "{path}: f32 {shape:?}")?,
        false => writeln!(out, "{path}: f32 {shape:?}, {:.2} ms a row", stats::median(&ms))?,
    }
    Ok(())
}

fn was_classify_meant(picture: &Path) -> Error {
    let picture = picture.display();
    Error::Usage(format!("run takes tensors, not {picture}: was `vitlet classify {picture}` meant?"))
}
