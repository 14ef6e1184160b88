//! A session: a model, the caller's scratch memory, and runs in it. Nothing is allocated, locked or asked of a system.

use core::sync::atomic::AtomicBool;

use crate::arena::Arena;
use crate::bytes::{floats, floats_mut};
use crate::config::Positions;
use crate::error::{Error, PictureError};
use crate::fpenv::exact;
use crate::lanes::{ALIGNMENT, F32x16, pad16};
use crate::model::Model;
use crate::networks::transformer::{Input, Rotation};
use crate::networks::{self, Run, Tables};
use crate::output::{Output, OutputInfo};
use crate::parallel::Executor;
use crate::picture::Picture;
use crate::plan::{Front, Plan, RunConfig, TablesMut};
use crate::positions;
use crate::profile::{Profile, Watch};
use crate::tap::Tap;

impl Plan {
    /// Checks `run` for a model and an executor of `threads` threads, 1 to [`MAX_THREADS`](crate::MAX_THREADS).
    ///
    /// # Errors
    /// `RunConfig` or `Config`, if the model has not the outputs or cannot take the sizes, if a number is out of range,
    /// or if all of it is more memory than this machine can address.
    pub fn new(model: &Model<'_>, run: &RunConfig, threads: usize) -> Result<Self, Error> {
        let plan = Self::checked(model, run, threads)?;
        let network = networks::bytes(&plan.config, plan.outputs, plan.threads);
        plan.measured(network)
    }

    /// Opens a session in `scratch`; what that holds does not matter. Tables are computed here: normalized pixel values
    /// and, for another input size than the file's, positions.
    ///
    /// # Errors
    /// `Scratch`, if the memory is too small or not 64-byte aligned; `RunConfig`, if the plan is another model's.
    pub fn open<'s>(
        &'s self,
        model: &Model<'s>,
        executor: &'s dyn Executor,
        scratch: &'s mut [u8],
    ) -> Result<Session<'s>, Error> {
        let session = self.reopen(model, executor, scratch)?;
        let (front, _) = carve(self, session.memory);
        fill(self, model, front.tables)?;
        Ok(session)
    }

    /// Opens the session again that [`open`](Self::open) made in `scratch`, for owners that keep a plan, a model's
    /// [parts](crate::ModelParts) and memory side by side. In other memory, runs give numbers without
    /// meaning.
    ///
    /// # Errors
    /// As `open`.
    pub fn reopen<'s>(
        &'s self,
        model: &Model<'s>,
        executor: &'s dyn Executor,
        scratch: &'s mut [u8],
    ) -> Result<Session<'s>, Error> {
        if !self.is_for(model) {
            return Err(Error::RunConfig("the plan was made for another model"));
        }
        let (need, have) = (self.scratch_bytes(), scratch.len());
        if have < need || !scratch.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(Error::Scratch { need, have });
        }
        Ok(Session { model: *model, plan: self, executor, stop: None, memory: &mut scratch[..need] })
    }
}

/// Runs of one model, one after another, in the caller's memory.
pub struct Session<'s> {
    model: Model<'s>,
    plan: &'s Plan,
    executor: &'s dyn Executor,
    stop: Option<&'s AtomicBool>,
    memory: &'s mut [u8],
}

/// What a run gave, until the next one.
#[derive(Clone, Copy)]
pub struct Results<'r> {
    plan: &'r Plan,
    out: &'r [F32x16],
}

impl<'r> Results<'r> {
    /// The values of an output, as its shape orders them; `None` if it was not asked for.
    pub fn get(&self, output: Output) -> Option<&'r [f32]> {
        let place = self.plan.outputs.place(&self.plan.config, output)?;
        Some(&floats(self.out.get(place)?)[..OutputInfo::of(&self.plan.config, output)?.elements()])
    }

    /// The values of the first output.
    pub fn first(&self) -> &'r [f32] {
        self.iter().next().map_or(&[], |(_, values)| values)
    }

    /// Every output that was asked for, with its values.
    pub fn iter(&self) -> impl Iterator<Item = (OutputInfo, &'r [f32])> {
        self.plan.outputs().filter_map(|info| Some((info, self.get(info.output())?)))
    }
}

impl<'s> Session<'s> {
    /// Looks at `flag` before each run and between the network's blocks from now on: while it is true, runs end with
    /// [`Error::Stopped`]. Preparing a picture and embedding it are not interrupted.
    pub fn stop_on(&mut self, flag: &'s AtomicBool) {
        self.stop = Some(flag);
    }

    /// What runs give, with names and shapes.
    pub fn outputs(&self) -> impl Iterator<Item = OutputInfo> {
        self.plan.outputs()
    }

    /// Resizes, crops and normalizes a picture of any format as the model's preprocessing says, and runs the network.
    ///
    /// # Errors
    /// `Picture`, if it is malformed or larger than the session's largest; `Executor`; `Stopped`.
    pub fn run_picture(&mut self, picture: &Picture<'_>) -> Result<Results<'_>, Error> {
        self.once().picture(picture)
    }

    /// Runs the network on a normalized input tensor `[3, height, width]` of the session's input size.
    ///
    /// # Errors
    /// `InputLen`, if the tensor has another length; `Executor`; `Stopped`.
    pub fn run_tensor(&mut self, tensor: &[f32]) -> Result<Results<'_>, Error> {
        self.once().tensor(tensor, Watch::default())
    }

    /// [`Session::run_tensor`], adding to `profile` where the time goes.
    ///
    /// # Errors
    /// As `run_tensor`.
    pub fn profile_tensor(&mut self, tensor: &[f32], profile: &Profile<'_>) -> Result<Results<'_>, Error> {
        self.once().tensor(tensor, Watch { profile: Some(profile), ..Watch::default() })
    }

    /// [`Session::run_tensor`], showing activations to `tap` on the way.
    ///
    /// # Errors
    /// As `run_tensor`.
    pub fn tap_tensor(&mut self, tensor: &[f32], tap: &dyn Tap) -> Result<Results<'_>, Error> {
        self.once().tensor(tensor, Watch { tap: Some(tap), ..Watch::default() })
    }

    /// For one run.
    fn once(&mut self) -> Session<'_> {
        let Self { model, plan, executor, stop, ref mut memory } = *self;
        Session { model, plan, executor, stop, memory }
    }

    /// The only run of a session, whose results are its owner's.
    pub(crate) fn picture(self, picture: &Picture<'_>) -> Result<Results<'s>, Error> {
        self.check_picture(picture)?;
        Watch { stop: self.stop, ..Watch::default() }.go_on()?;
        let (front, shared) = carve(self.plan, self.memory);
        self.plan.preprocess.prepare(self.plan.kernels, picture, shared, front.pixels)?;
        let tables = Tables::of(front.tables);
        let input = Input::Rgb8 { pixels: front.pixels, normalized: tables.normalized };
        let watch = Watch { stop: self.stop, ..Watch::default() };
        let run = inference(&self.model, self.plan, self.executor, tables, watch);
        exact(|| networks::forward(&run, input, shared, front.out))?;
        Ok(Results { plan: self.plan, out: front.out })
    }

    /// As [`Session::picture`], of a normalized input.
    pub(crate) fn tensor(self, tensor: &[f32], watch: Watch<'_>) -> Result<Results<'s>, Error> {
        self.check_input(tensor.len())?;
        let (front, shared) = carve(self.plan, self.memory);
        let (tables, watch) = (Tables::of(front.tables), Watch { stop: self.stop, ..watch });
        watch.go_on()?;
        let run = inference(&self.model, self.plan, self.executor, tables, watch);
        exact(|| networks::forward(&run, Input::Tensor(tensor), shared, front.out))?;
        Ok(Results { plan: self.plan, out: front.out })
    }

    /// Writes the normalized input tensor `[3, height, width]` that [`Session::run_picture`] would feed to the network.
    ///
    /// # Errors
    /// `Picture` and `InputLen`.
    pub fn prepare(&mut self, picture: &Picture<'_>, out: &mut [f32]) -> Result<(), Error> {
        self.check_picture(picture)?;
        self.check_input(out.len())?;
        let (front, shared) = carve(self.plan, self.memory);
        self.plan.preprocess.prepare(self.plan.kernels, picture, shared, front.pixels)?;
        let normalized = floats(front.tables.normalized).as_chunks::<256>().0;
        let plane = out.len() / 3;
        for (i, pixel) in front.pixels.as_chunks::<3>().0.iter().enumerate() {
            for (c, &value) in pixel.iter().enumerate() {
                out[c * plane + i] = normalized[c][usize::from(value)];
            }
        }
        Ok(())
    }

    fn check_picture(&self, picture: &Picture<'_>) -> Result<(), PictureError> {
        picture.check()?;
        let region = picture.region();
        if self.plan.has_room_for(region.width, region.height) { Ok(()) } else { Err(PictureError::TooLarge) }
    }

    fn check_input(&self, have: usize) -> Result<(), Error> {
        let need = self.plan.config.input_len();
        if have == need { Ok(()) } else { Err(Error::InputLen { need, have }) }
    }
}

impl<'a> Tables<'a> {
    fn of(tables: TablesMut<'a>) -> Self {
        let TablesMut { normalized, positions, rotation: [cos, sin] } = tables;
        Self {
            normalized: floats(normalized).as_chunks().0,
            positions: (!positions.is_empty()).then_some(positions),
            rotation: (!cos.is_empty()).then_some(Rotation { cos, sin }),
        }
    }
}

/// Computes a session's tables.
fn fill(plan: &Plan, model: &Model<'_>, tables: TablesMut<'_>) -> Result<(), Error> {
    let c = &plan.config;
    let normalized = plan.preprocess.normalized();
    floats_mut(tables.normalized).copy_from_slice(normalized.as_flattened());
    let stated = model.weights().embedding()?;
    if let (Positions::Resampled { rule, .. }, Some(table)) = (c.positions, stated.positions)
        && !tables.positions.is_empty()
    {
        let out = floats_mut(tables.positions);
        positions::resample(floats(table), c.table_grid(), c.grid(), pad16(c.dim), rule, out);
    }
    if let Some(rotation) = stated.rotation
        && !tables.rotation[0].is_empty()
    {
        let (row, [cos, sin]) = (pad16(c.head_dim() / 2), tables.rotation.map(floats_mut));
        // Registers stay where they are.
        let ahead = (c.rotated_tokens() - c.patches()) * row;
        cos[..ahead].copy_from_slice(&floats(rotation.cos)[..ahead]);
        sin[..ahead].copy_from_slice(&floats(rotation.sin)[..ahead]);
        let (cos, sin) = (&mut cos[ahead..], &mut sin[ahead..]);
        match c.positions {
            Positions::Rotated => positions::rotations(c.grid(), model.rope(), row, cos, sin),
            _ => positions::stretched_rotations(c.grid(), c.table_grid(), model.rope(), row, cos, sin),
        }
    }
    Ok(())
}

fn inference<'r>(
    model: &'r Model<'r>,
    plan: &'r Plan,
    executor: &'r dyn Executor,
    tables: Tables<'r>,
    watch: Watch<'r>,
) -> Run<'r> {
    let Plan { config, kernels, threads, outputs, .. } = plan;
    Run {
        weights: model.weights(),
        config,
        kernels: *kernels,
        threads: *threads,
        outputs: *outputs,
        executor,
        tables,
        watch,
    }
}

/// The front, and the memory that preparation and network use one after the other.
fn carve<'a>(plan: &Plan, memory: &'a mut [u8]) -> (Front<'a>, &'a mut [u8]) {
    let mut arena = Arena::over(memory);
    let front = Front::carve(plan, &mut arena);
    (front, arena.into_rest())
}
