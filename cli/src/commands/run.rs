//! `vitlet run`: normalized tensors in, logits (or every output) out, all .npy. For comparison with a pipeline in
//! Python.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use vitlet::{Output, Positions};

use crate::backend::{Backend, Network, OnnxFile, Runner};
use crate::error::{Error, Result, why};
use crate::inference::{Compute, ComputeArgs, Inference};
use crate::model::ModelFile;
use crate::{files, npy, output, pictures, stats};

#[derive(Args)]
pub struct RunArgs {
    /// Model file or hf:OWNER/NAME (with --backend tract, an ONNX file)
    #[arg(short, long, value_name = "FILE", required_unless_present = "images")]
    model: Option<PathBuf>,

    /// Input: f32 [batch, 3, height, width], normalized
    #[arg(long, value_name = "FILE", required_unless_present = "images")]
    input: Option<PathBuf>,

    /// Where to write f32 [batch, classes], [batch, height, width] of a depth model, or else [batch, features]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Where to write every output of the network, one NAME.npy each: logits, features, tokens, depth
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    outputs: Option<PathBuf>,

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
    let (Some(model), Some(input)) = (&args.model, &args.input) else {
        return Err(Error::Usage("run needs --model and --input".to_string()));
    };
    if args.output.is_none() && args.outputs.is_none() {
        return Err(Error::Usage("run needs --output FILE or --outputs DIR".to_string()));
    }
    let all = args.outputs.is_some();
    let file = match args.backend {
        Backend::Vitlet => Some(Box::new(ModelFile::open(model)?)),
        Backend::Tract => None,
    };
    let x = npy::read(input)?;
    let [_, 3, height, width] = x.shape[..] else {
        let why = format!("shape {:?}, networks take [batch, 3, height, width]", x.shape);
        return Err(Error::new(input.display(), why));
    };
    let network = match file {
        Some(file) => Network::Model(file),
        None => Network::Onnx(Box::new(OnnxFile::open(model, Some((height, width)))?)),
    };
    let compute = Compute::new(&args.compute)?;
    let mut runner = match &network {
        Network::Model(file) => Runner::Model(Box::new(inference(file, &compute, (height, width), all)?)),
        Network::Onnx(file) => Runner::Onnx(file),
    };
    if (height, width) != runner.facts().size {
        let (height, width) = runner.facts().size;
        let why = format!("shape {:?}, the model takes [batch, 3, {height}, {width}]", x.shape);
        return Err(Error::new(input.display(), why));
    }
    let outputs = outputs(&args, &runner)?;
    for output in &outputs {
        files::refuse_inputs(&output.path, [model, input])?;
        npy::check_name(&output.path)?;
        if output.path.is_dir() {
            return Err(Error::new(output.path.display(), "cannot write: a directory"));
        }
    }

    let (mut y, mut ms) = (vec![Vec::new(); outputs.len()], Vec::new());
    for (i, row) in x.data.chunks_exact(3 * height * width).enumerate() {
        let what = || format!("{}, row {i}", input.display());
        if let Some(at) = row.iter().position(|x| !x.is_finite()) {
            return Err(Error::new(what(), format!("element {at} is {}: inputs are finite numbers", row[at])));
        }
        let start = Instant::now();
        let values = runner.outputs(row).map_err(|e| Error::new(what(), e))?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
        y.iter_mut().zip(values).for_each(|(y, values)| y.extend(values));
    }
    let mut out = output::beside(outputs.iter().map(|output| &output.path));
    for (output, y) in outputs.iter().zip(y) {
        let shape = [&[x.shape[0]], &output.shape[..]].concat();
        npy::write(&output.path, &shape, &y)?;
        write!(out, "{}: f32 {shape:?}", output.path.display())?;
        match ms.is_empty() || all {
            true => writeln!(out)?,
            false => writeln!(out, ", {:.2} ms a row", stats::median(&ms))?,
        }
    }
    if all && !ms.is_empty() {
        writeln!(out, "{:.2} ms a row", stats::median(&ms))?;
    }
    Ok(())
}

/// The network at the size of the input, for its first output or `all` that it has.
fn inference<'m>(
    file: &'m ModelFile,
    compute: &'m Compute,
    (height, width): (usize, usize),
    all: bool,
) -> Result<Inference<'m>> {
    let edge = |n: usize| u32::try_from(n).map_err(|_| Error::new(&file.name, format!("{n} pixels are too many")));
    let mut run = compute.run(Some((edge(width)?, edge(height)?)));
    let c = *file.parse()?.config();
    if let (Positions::Fixed, Err(why)) = (c.positions, c.at_size(height, width)) {
        let own = format!("[batch, 3, {}, {}]", c.image_height, c.image_width);
        return Err(Error::new(&file.name, format!("takes {own}, not {height} x {width} pixels: {why}")));
    }
    if all {
        run = run.outputs(&Output::of(&c).collect::<Vec<_>>());
    }
    Inference::with(file, compute, run)
}

/// An output and where it goes.
struct Written {
    path: PathBuf,
    /// Without the batch.
    shape: Vec<usize>,
}

/// What is written: the first output to `--output`, or each under its name in the folder `--outputs`, which is made.
fn outputs(args: &RunArgs, runner: &Runner) -> Result<Vec<Written>> {
    let listed = runner.listed().into_iter();
    match (&args.output, &args.outputs) {
        (Some(path), _) => Ok(listed.take(1).map(|(_, shape)| Written { path: path.clone(), shape }).collect()),
        (None, Some(folder)) => {
            if folder.exists() && !folder.is_dir() {
                return Err(Error::new(folder.display(), "a file, not a folder: --outputs makes a folder with files"));
            }
            std::fs::create_dir_all(folder).map_err(|e| Error::new(folder.display(), why(&e)))?;
            Ok(listed.map(|(name, shape)| Written { path: folder.join(format!("{name}.npy")), shape }).collect())
        }
        (None, None) => Ok(Vec::new()),
    }
}

fn was_classify_meant(picture: &Path) -> Error {
    let picture = picture.display();
    Error::Usage(format!("run takes tensors, not {picture}: was `vitlet classify {picture}` meant?"))
}
