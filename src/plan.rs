//! How a model is run: the caller's request, checked, and the memory that it takes.

use crate::arena::Arena;
use crate::config::{Config, Head, Preprocess};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::lanes::{ALIGNMENT, F32x16, pad16};
use crate::model::Model;
use crate::output::{Output, OutputInfo, Outputs};
use crate::parallel::MAX_THREADS;

/// How a model shall be run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunConfig {
    kernels: Kernels,
    max_picture: (u32, u32),
    outputs: Outputs,
    input_size: Option<(u32, u32)>,
}

impl RunConfig {
    /// The model's first output at the model's own input size, for pictures up to 4096 x 4096 pixels.
    pub fn new(kernels: Kernels) -> Self {
        Self { kernels, max_picture: (4096, 4096), outputs: Outputs::default(), input_size: None }
    }

    /// Width and height of the largest picture (of its region), in pixels. Larger ones take more scratch memory.
    pub fn max_picture(mut self, width: u32, height: u32) -> Self {
        self.max_picture = (width, height);
        self
    }

    /// What runs give, in any number and order.
    pub fn outputs(mut self, outputs: &[Output]) -> Self {
        self.outputs = Outputs::of(outputs);
        self
    }

    /// Width and height of the network's input, in pixels: multiples of the patch. Positions are resampled when a
    /// session opens, by the rule that the model file states.
    pub fn input_size(mut self, width: u32, height: u32) -> Self {
        self.input_size = Some((width, height));
        self
    }
}

/// A [`RunConfig`], checked for one model and one number of threads: all that a session is beside the model, the
/// executor and the memory.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The network at the session's input size.
    pub(crate) config: Config,
    /// As the model file has them.
    stated: (Config, Preprocess),
    pub(crate) preprocess: Preprocess,
    pub(crate) kernels: Kernels,
    /// Workers that there is memory for, whatever an executor says later.
    pub(crate) threads: usize,
    max_picture: (u32, u32),
    pub(crate) outputs: Outputs,
    bytes: usize,
}

/// No allocation is larger.
const MOST_BYTES: usize = isize::MAX as usize;

impl Plan {
    /// All but the memory.
    pub(crate) fn checked(model: &Model<'_>, run: &RunConfig, threads: usize) -> Result<Self, Error> {
        let RunConfig { kernels, max_picture, outputs, input_size } = *run;
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::RunConfig("an executor must have 1 to 256 threads"));
        }
        let stated = (*model.config(), *model.preprocess());
        let (mut config, mut preprocess) = stated;
        if let Some((width, height)) = input_size {
            config = config.at_size(height as usize, width as usize)?;
            preprocess = preprocess.at_size(height, width);
        }
        let outputs = outputs.or_first(&config);
        let outputs = outputs.ok_or(Error::RunConfig(match config.head {
            Head::Classifier if config.classes == 0 => "the network has no classifier: it gives features and tokens",
            Head::Classifier => "the network has no depth head: it gives logits, features and tokens",
            Head::Depth(_) => "the network has no classifier: it gives depth, features and tokens",
            Head::Linear(_) => "the network has no classifier: it gives a map of its head, features and tokens",
        }))?;
        Ok(Self { config, stated, preprocess, kernels, threads, max_picture, outputs, bytes: 0 })
    }

    /// With memory for a network that needs `network` bytes.
    pub(crate) fn measured(mut self, network: usize) -> Result<Self, Error> {
        let picture = self.preprocess.scratch_bytes(self.max_picture);
        let picture = picture.ok_or(Error::RunConfig("the largest picture has an edge of 0 or is too large"))?;
        let mut front = Arena::counting();
        let _ = Front::carve(&self, &mut front);
        let shared = picture.checked_next_multiple_of(ALIGNMENT).map(|picture| picture.max(network));
        let bytes = shared.and_then(|shared| shared.checked_add(front.used())).filter(|&bytes| bytes <= MOST_BYTES);
        self.bytes = bytes.ok_or(Error::RunConfig("more memory than this machine can address"))?;
        Ok(self)
    }

    /// Bytes of scratch memory, at a 64-byte boundary, that a session needs.
    pub fn scratch_bytes(&self) -> usize {
        self.bytes
    }

    /// What runs give, with names and shapes.
    pub fn outputs(&self) -> impl Iterator<Item = OutputInfo> {
        self.outputs.infos(&self.config)
    }

    /// The network's hyperparameters at the session's input size.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How a picture becomes the network's input of that size.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Instruction set of the session.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Width and height of the largest picture.
    pub fn max_picture(&self) -> (u32, u32) {
        self.max_picture
    }

    /// Whether a picture (its region) of this size has room.
    pub fn has_room_for(&self, width: u32, height: u32) -> bool {
        width <= self.max_picture.0 && height <= self.max_picture.1
    }

    /// Whether it was made for a network like this one.
    pub(crate) fn is_for(&self, model: &Model<'_>) -> bool {
        self.stated == (*model.config(), *model.preprocess())
    }
}

/// What lies before the memory that preparation and network share.
pub(crate) struct Front<'a> {
    pub(crate) tables: TablesMut<'a>,
    /// The run's outputs, each compact, from a chunk's start on.
    pub(crate) out: &'a mut [F32x16],
    /// `[height, width, 3]`.
    pub(crate) pixels: &'a mut [u8],
}

/// What a session computes when it is opened.
pub(crate) struct TablesMut<'a> {
    /// Pixel value to network input, `[3, 256]`.
    pub(crate) normalized: &'a mut [F32x16],
    /// `[patches, pad16(dim)]`; empty where the file's fit.
    pub(crate) positions: &'a mut [F32x16],
    /// Cosines and sines of rotations, `[rotated_tokens, pad16(head_dim / 2)]`; empty where the file's fit.
    pub(crate) rotation: [&'a mut [F32x16]; 2],
}

impl<'a> Front<'a> {
    pub(crate) fn carve(plan: &Plan, arena: &mut Arena<'a>) -> Self {
        let c = &plan.config;
        let table = |is_made: bool, rows: usize, n: usize| if is_made { rows * pad16(n) / 16 } else { 0 };
        let positions = table(c.has_positions() && c.grid() != c.table_grid(), c.patches(), c.dim);
        let rotation = table(c.grid() != plan.stated.0.grid(), c.rotated_tokens(), c.head_dim() / 2);
        Self {
            tables: TablesMut {
                normalized: arena.take(3 * 256 / 16),
                positions: arena.take(positions),
                rotation: [arena.take(rotation), arena.take(rotation)],
            },
            out: arena.take(plan.outputs.chunks(c)),
            pixels: arena.take(c.input_len()),
        }
    }
}
