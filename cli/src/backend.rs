//! Who computes: the engine with a model file, or tract with an ONNX file, the f32 reference. Commands that take
//! `--backend` run either through [`Network`] and [`Runner`].

use std::path::Path;
use std::time::Instant;

use clap::{Args, ValueEnum};
use vitlet::picture::Preprocess;
use vitlet::{Config, Kernels, Named, Scores};
use vitlet_convert::onnx::Preparation;
#[cfg(feature = "tract")]
use vitlet_convert::reference::Reference;

use crate::error::{Error, Result};
use crate::inference::{Answer, Compute, Inference, SizeArgs, Times, finite};
use crate::model::ModelFile;
use crate::output;
use crate::pictures::Rgb8;
use crate::preparation::PreparationArgs;

/// Who computes.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Backend {
    /// The engine, with a model file
    Vitlet,
    /// tract, with an ONNX file, in f32 on one thread
    Tract,
}

/// Options of every command that also runs ONNX files on pictures.
#[derive(Args)]
pub struct BackendArgs {
    /// Who computes: vitlet a model file, or tract an ONNX file (in f32, on one thread)
    #[arg(long, value_enum, hide_possible_values = true, value_name = "vitlet|tract", default_value = "vitlet")]
    backend: Backend,

    #[command(flatten, next_help_heading = "Pictures for an ONNX file")]
    preparation: PreparationArgs,
}

impl BackendArgs {
    /// Opens what `path` is, for this backend.
    pub fn open(&self, path: &Path) -> Result<Network> {
        match (self.backend, self.preparation.given()) {
            (Backend::Vitlet, Some(option)) => Err(Error::Usage(format!(
                "{option} is for --backend tract; a model file has its own (see `vitlet convert`)"
            ))),
            (Backend::Vitlet, None) => ModelFile::open(path).map(|file| Network::Model(Box::new(file))),
            (Backend::Tract, _) => {
                let options = self.preparation.clone().options();
                let mut file = OnnxFile::open(path, options.image_size)?;
                if let Some((height, width)) = options.image_size.filter(|size| *size != file.size()) {
                    let why = format!("takes {}x{} pictures, not {height}x{width}", file.size().0, file.size().1);
                    return Err(Error::new(file.name, why));
                }
                let preparation = Preparation::new(file.size(), file.outputs(), &options)?;
                preparation.announcements.iter().for_each(|line| output::note(line));
                file.preprocess = Some(preparation.preprocess);
                file.labels = preparation.labels.unwrap_or_default();
                Ok(Network::Onnx(Box::new(file)))
            }
        }
    }

    /// Refuses an output that is a file which the options name, or lies in the folder that they name.
    pub fn refuse_inputs(&self, output: &Path) -> Result<()> {
        self.preparation.refuse_inputs(output)
    }

    /// Whether the engine computes.
    pub fn is_vitlet(&self) -> bool {
        self.backend == Backend::Vitlet
    }
}

/// A network that was named on the command line.
pub enum Network {
    Model(Box<ModelFile>),
    Onnx(Box<OnnxFile>),
}

impl Network {
    /// What to call it in messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Model(file) => &file.name,
            Self::Onnx(file) => &file.name,
        }
    }

    /// Whether its file is still the one that was opened: a model is read while it runs.
    pub fn unchanged(&self) -> Result<()> {
        match self {
            Self::Model(file) => file.unchanged(),
            Self::Onnx(_) => Ok(()),
        }
    }

    /// Makes it ready to run, at `size` or the file's: for the engine the network's first output, for tract what the
    /// file gives.
    pub fn start<'n>(&'n self, compute: &'n Compute, size: &SizeArgs) -> Result<Runner<'n>> {
        match self {
            Self::Model(file) => {
                let run = compute.run(size.fitting(file)?);
                Ok(Runner::Model(Box::new(Inference::with(file, compute, run)?)))
            }
            Self::Onnx(_) if size.get().is_some() => {
                Err(Error::Usage("--size is for model files; for an ONNX file there is --image-size HxW".to_string()))
            }
            Self::Onnx(file) => Ok(Runner::Onnx(file)),
        }
    }
}

/// Which commands are for a network, said by one that is not.
pub fn commands_for(c: &Config) -> String {
    let first = match (c.head.depth(), c.classes) {
        _ if c.head.patch_classes() > 0 => "`vitlet segment` shows the classes of its patches, ",
        (Some(_), _) => "`vitlet depth` shows its depth, ",
        (None, 0) => "",
        (None, _) => "`vitlet classify` shows its labels, ",
    };
    format!("{first}`vitlet embed` writes its features, `vitlet run` all outputs")
}

/// What a network is, for reports.
pub struct Facts<'n> {
    pub precision: &'static str,
    pub layerscale: &'static str,
    pub kernel: &'static str,
    pub threads: usize,
    /// Height and width of the input.
    pub size: (usize, usize),
    /// Classes, 0 where there is no head (or, of an ONNX file, features that can not be told from classes).
    pub classes: usize,
    pub scores: Scores,
    pub labels: Vec<&'n str>,
}

/// A network that runs one picture after another. Errors say why only.
pub enum Runner<'n> {
    Model(Box<Inference<'n>>),
    Onnx(&'n OnnxFile),
}

impl<'n> Runner<'n> {
    pub fn facts(&self) -> Facts<'n> {
        match self {
            Self::Model(inference) => {
                let (model, compute) = (inference.model(), inference.compute());
                let c = *inference.plan().config();
                Facts {
                    precision: c.precision.name(),
                    layerscale: c.layerscale.name(),
                    kernel: compute.kernels.name(),
                    threads: compute.threads,
                    size: (c.image_height, c.image_width),
                    classes: c.classes,
                    scores: c.scores,
                    labels: model.labels().collect(),
                }
            }
            Self::Onnx(file) => Facts {
                precision: "f32",
                layerscale: "as exported",
                kernel: "tract",
                threads: 1,
                size: file.size(),
                classes: file.outputs(),
                // As conversion decides: a softmax of one number is always 1.
                scores: if file.outputs() == 1 { Scores::Sigmoid } else { Scores::Softmax },
                labels: file.labels.iter().map(String::as_str).collect(),
            },
        }
    }

    /// How pictures are prepared.
    pub fn preprocess(&self) -> Result<Preprocess> {
        match self {
            Self::Model(inference) => Ok(*inference.plan().preprocess()),
            Self::Onnx(file) => file.preprocess.ok_or_else(|| Error::new(&file.name, "no preparation of pictures")),
        }
    }

    /// Logits (or features) of one picture.
    pub fn picture(&mut self, picture: &Rgb8) -> Result<Answer, String> {
        match self {
            Self::Model(inference) => inference.picture(picture),
            Self::Onnx(file) => file.picture(picture),
        }
    }

    /// Names and shapes of what [`Runner::outputs`] gives.
    pub fn listed(&self) -> Vec<(&'static str, Vec<usize>)> {
        match self {
            Self::Model(inference) => {
                inference.plan().outputs().map(|info| (info.name(), info.shape().to_vec())).collect()
            }
            Self::Onnx(file) => vec![("logits", vec![file.outputs()])],
        }
    }

    /// Every output that was asked for, of one normalized input `[3, height, width]`.
    pub fn outputs(&mut self, input: &[f32]) -> Result<Vec<Vec<f32>>, String> {
        match self {
            Self::Model(inference) => inference.outputs(input),
            Self::Onnx(_) => self.tensor(input).map(|values| vec![values]),
        }
    }

    /// Logits (or features) of one normalized input `[3, height, width]`.
    pub fn tensor(&mut self, input: &[f32]) -> Result<Vec<f32>, String> {
        match self {
            Self::Model(inference) => inference.tensor(input),
            Self::Onnx(file) => finite(file.run(input)?, "logits"),
        }
    }
}

/// An ONNX file that tract runs, and how pictures become its input.
pub struct OnnxFile {
    pub name: String,
    #[cfg(feature = "tract")]
    reference: Reference,
    /// Only commands that take pictures need it.
    preprocess: Option<Preprocess>,
    labels: Vec<String>,
}

impl OnnxFile {
    /// Opens a file for tensors; `size` (height, width) is for a file that leaves it open.
    #[cfg(feature = "tract")]
    pub fn open(path: &Path, size: Option<(usize, usize)>) -> Result<Self> {
        let name = path.display().to_string();
        if !is_onnx(path) {
            return Err(Error::new(name, "tract runs ONNX files, NAME.onnx; leave out --backend for a model file"));
        }
        let reference = Reference::open(path, size)?;
        Ok(Self { name, reference, preprocess: None, labels: Vec::new() })
    }

    /// Opens a file for pictures that are prepared as another model's are.
    pub fn open_like(path: &Path, preprocess: &Preprocess) -> Result<Self> {
        let own = (preprocess.height as usize, preprocess.width as usize);
        let file = Self::open(path, Some(own))?;
        let (height, width) = file.size();
        if (height, width) != own {
            let why = format!("takes {height}x{width} pictures, the model {}x{}", preprocess.height, preprocess.width);
            return Err(Error::new(file.name, why));
        }
        Ok(Self { preprocess: Some(*preprocess), ..file })
    }

    /// Logits (or features) of one picture.
    pub fn picture(&self, picture: &Rgb8) -> Result<Answer, String> {
        let preprocess = self.preprocess.as_ref().ok_or("no preparation of pictures")?;
        let start = Instant::now();
        let input = prepare(preprocess, picture)?;
        let began = Instant::now();
        let values = self.run(&input)?;
        let times = Times::between(start, began, Instant::now());
        Ok(Answer { values: finite(values, "logits")?, times })
    }
}

#[cfg(feature = "tract")]
impl OnnxFile {
    /// Height and width of the input.
    pub fn size(&self) -> (usize, usize) {
        self.reference.size()
    }

    /// Length of the output.
    pub fn outputs(&self) -> usize {
        self.reference.outputs()
    }

    /// Logits (or features) of one normalized input `[3, height, width]`.
    pub fn run(&self, input: &[f32]) -> Result<Vec<f32>, String> {
        self.reference.run(input).map_err(|e| e.why)
    }
}

/// A program built without tract can not have opened one.
#[cfg(not(feature = "tract"))]
impl OnnxFile {
    pub fn open(path: &Path, _size: Option<(usize, usize)>) -> Result<Self> {
        Err(Error::new(path.display(), WITHOUT_TRACT))
    }

    pub fn size(&self) -> (usize, usize) {
        (0, 0)
    }

    pub fn outputs(&self) -> usize {
        0
    }

    pub fn run(&self, _input: &[f32]) -> Result<Vec<f32>, String> {
        Err(WITHOUT_TRACT.to_string())
    }
}

/// Why an ONNX file cannot be run, and the cure.
#[cfg(not(feature = "tract"))]
pub const WITHOUT_TRACT: &str = "this vitlet was built without tract, which runs ONNX files; build it with cargo build --release -p vitlet-cli --features tract";

/// Whether the name ends as an ONNX file's does.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// The normalized input `[3, height, width]` that a picture becomes, as the engine computes it.
fn prepare(preprocess: &Preprocess, picture: &Rgb8) -> Result<Vec<f32>, String> {
    let need = preprocess.scratch_bytes((picture.width, picture.height)).ok_or("an edge of zero or too many pixels")?;
    let pixels = preprocess.height as usize * preprocess.width as usize;
    let (mut scratch, mut bytes) = (vec![0; need], vec![0; 3 * pixels]);
    preprocess.prepare(Kernels::detect(), &picture.borrow(), &mut scratch, &mut bytes).map_err(|e| e.to_string())?;
    let normalized = preprocess.normalized();
    let channel =
        |c: usize| bytes.iter().skip(c).step_by(3).map(|b| normalized[c][usize::from(*b)]).collect::<Vec<_>>();
    Ok((0..3).flat_map(channel).collect())
}
