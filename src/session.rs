//! A session: a model, the caller's scratch memory, and runs in it. Nothing is allocated, locked or asked of a system.

use crate::arena::Arena;
use crate::bytes;
use crate::config::Config;
use crate::error::Error;
use crate::family::{self, transformer::Input};
use crate::kernels::Kernels;
use crate::kernels::fpenv::exact;
use crate::kernels::isa::F32x16;
use crate::layout::ALIGNMENT;
use crate::model::Model;
use crate::parallel::{Executor, MAX_THREADS};
use crate::picture::{Picture, PictureError};
use crate::profile::{Profile, Watch};
use crate::tap::Tap;

/// What a run returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// `[classes]`; the features where the network has no head.
    #[default]
    Logits,
    /// The pooled features `[parts * dim]`, before the head.
    Features,
    /// The patch tokens after the last norm, `[patches, dim]`.
    Tokens,
}

/// How a model is run; decides how much scratch memory a session needs.
#[derive(Clone, Copy)]
pub struct RunConfig<'e> {
    /// Instruction set; see [`Kernels`].
    pub kernels: Kernels,
    /// The threads that work, 1 to [`MAX_THREADS`].
    pub executor: &'e dyn Executor,
    /// Width and height of the largest picture (of its region) for [`Session::run_picture`], in pixels.
    pub max_picture: (u32, u32),
    /// What runs return.
    pub output: Output,
}

/// A checked [`RunConfig`].
#[derive(Clone, Copy)]
pub(crate) struct Plan<'e> {
    pub(crate) kernels: Kernels,
    pub(crate) executor: &'e dyn Executor,
    /// Workers that there is memory for, whatever the executor says later.
    pub(crate) threads: usize,
    max_picture: (u32, u32),
    pub(crate) output: Output,
}

impl<'e> Plan<'e> {
    fn new(run: &RunConfig<'e>) -> Result<Self, Error> {
        let RunConfig { kernels, executor, max_picture, output } = *run;
        let threads = executor.threads();
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::RunConfig("an executor must have 1 to 256 threads"));
        }
        Ok(Self { kernels, executor, threads, max_picture, output })
    }

    fn scratch_bytes(&self, model: &Model<'_>) -> Result<usize, Error> {
        let picture = model.preprocess().scratch_bytes(self.max_picture);
        let picture = picture.ok_or(Error::RunConfig("the largest picture has an edge of 0 or is too large"))?;
        let mut arena = Arena::counting();
        let _ = Front::carve(model.config(), self, &mut arena);
        let shared = picture.checked_next_multiple_of(ALIGNMENT).map(|picture| picture.max(family::bytes(model, self)));
        let bytes = shared.and_then(|shared| shared.checked_add(arena.used()));
        bytes.filter(|&bytes| bytes <= MOST_BYTES).ok_or(Error::RunConfig("more memory than this machine can address"))
    }
}

/// No allocation is larger.
const MOST_BYTES: usize = isize::MAX as usize;

/// Runs of one model, one after another, in the caller's memory.
pub struct Session<'s, 'm> {
    model: &'s Model<'m>,
    plan: Plan<'s>,
    memory: &'s mut [u8],
    /// Pixel value to network input, per channel.
    normalized: [[f32; 256]; 3],
}

impl Model<'_> {
    /// Bytes of scratch memory, at a 64-byte boundary, that a [`Session`] with this configuration needs.
    ///
    /// # Errors
    /// `RunConfig`, if threads or the largest picture are out of range, or all of it is more than this machine can
    /// address.
    pub fn scratch_bytes(&self, run: &RunConfig<'_>) -> Result<usize, Error> {
        Plan::new(run)?.scratch_bytes(self)
    }
}

/// What lies before the memory that preparation and network share.
struct Front<'a> {
    /// The run's result, compact.
    out: &'a mut [F32x16],
    /// `[height, width, 3]`.
    pixels: &'a mut [u8],
}

impl<'a> Front<'a> {
    fn carve(c: &Config, plan: &Plan<'_>, arena: &mut Arena<'a>) -> Self {
        let out = output_len(c, plan.output).div_ceil(16);
        Self { out: arena.take(out), pixels: arena.take(c.input_len()) }
    }
}

fn output_len(c: &Config, output: Output) -> usize {
    match output {
        Output::Logits if c.classes > 0 => c.classes,
        Output::Logits | Output::Features => c.features(),
        Output::Tokens => c.patches() * c.dim,
    }
}

impl<'s, 'm> Session<'s, 'm> {
    /// Takes `scratch` for as long as the session lives; what it holds does not matter.
    ///
    /// # Errors
    /// `Scratch`, if the memory is too small or not 64-byte aligned; `RunConfig` as [`Model::scratch_bytes`].
    pub fn new(model: &'s Model<'m>, run: &RunConfig<'s>, scratch: &'s mut [u8]) -> Result<Self, Error> {
        let plan = Plan::new(run)?;
        let need = plan.scratch_bytes(model)?;
        let have = scratch.len();
        if have < need || !scratch.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(Error::Scratch { need, have });
        }
        Ok(Self { model, plan, memory: &mut scratch[..need], normalized: model.preprocess().normalized() })
    }

    /// Resizes, crops and normalizes a picture of any format as the model's preprocessing says, and runs the network.
    ///
    /// # Errors
    /// `Picture`, if it is malformed or larger than the session's largest; `Executor`.
    pub fn run_picture(&mut self, picture: &Picture<'_>) -> Result<&[f32], Error> {
        self.check_picture(picture)?;
        let (front, shared) = carve(self.model.config(), &self.plan, self.memory);
        self.model.preprocess().prepare(self.plan.kernels, picture, shared, front.pixels)?;
        let input = Input::Rgb8 { pixels: front.pixels, normalized: &self.normalized };
        exact(|| family::forward(self.model, &self.plan, input, shared, front.out, Watch::default()))?;
        Ok(&bytes::floats(front.out)[..output_len(self.model.config(), self.plan.output)])
    }

    /// Runs the network on a normalized input tensor `[3, height, width]`.
    ///
    /// # Errors
    /// `InputLen`, if the tensor has another length; `Executor`.
    pub fn run_tensor(&mut self, tensor: &[f32]) -> Result<&[f32], Error> {
        self.tensor(tensor, Watch::default())
    }

    /// [`Session::run_tensor`], adding to `profile` where the time goes.
    ///
    /// # Errors
    /// As `run_tensor`.
    pub fn profile_tensor(&mut self, tensor: &[f32], profile: &Profile<'_>) -> Result<&[f32], Error> {
        self.tensor(tensor, Watch { profile: Some(profile), tap: None })
    }

    /// [`Session::run_tensor`], showing activations to `tap` on the way.
    ///
    /// # Errors
    /// As `run_tensor`.
    pub fn tap_tensor(&mut self, tensor: &[f32], tap: &dyn Tap) -> Result<&[f32], Error> {
        self.tensor(tensor, Watch { profile: None, tap: Some(tap) })
    }

    fn tensor(&mut self, tensor: &[f32], watch: Watch<'_>) -> Result<&[f32], Error> {
        self.check_input(tensor.len())?;
        let (front, shared) = carve(self.model.config(), &self.plan, self.memory);
        let input = Input::Tensor(tensor);
        exact(|| family::forward(self.model, &self.plan, input, shared, front.out, watch))?;
        Ok(&bytes::floats(front.out)[..output_len(self.model.config(), self.plan.output)])
    }

    /// Writes the normalized input tensor `[3, height, width]` that [`Session::run_picture`] would feed to the network.
    ///
    /// # Errors
    /// `Picture` and `InputLen`.
    pub fn prepare(&mut self, picture: &Picture<'_>, out: &mut [f32]) -> Result<(), Error> {
        self.check_picture(picture)?;
        self.check_input(out.len())?;
        let (front, shared) = carve(self.model.config(), &self.plan, self.memory);
        self.model.preprocess().prepare(self.plan.kernels, picture, shared, front.pixels)?;
        let plane = out.len() / 3;
        for (i, pixel) in front.pixels.as_chunks::<3>().0.iter().enumerate() {
            for (c, &value) in pixel.iter().enumerate() {
                out[c * plane + i] = self.normalized[c][usize::from(value)];
            }
        }
        Ok(())
    }

    fn check_picture(&self, picture: &Picture<'_>) -> Result<(), PictureError> {
        picture.check()?;
        let (width, height) = self.plan.max_picture;
        let region = picture.region();
        if region.width > width || region.height > height {
            return Err(PictureError::TooLarge);
        }
        Ok(())
    }

    fn check_input(&self, have: usize) -> Result<(), Error> {
        let need = self.model.config().input_len();
        if have == need { Ok(()) } else { Err(Error::InputLen { need, have }) }
    }
}

/// The front, and the memory that preparation and network use one after the other.
fn carve<'a>(c: &Config, plan: &Plan<'_>, memory: &'a mut [u8]) -> (Front<'a>, &'a mut [u8]) {
    let mut arena = Arena::over(memory);
    let front = Front::carve(c, plan, &mut arena);
    (front, arena.into_rest())
}
