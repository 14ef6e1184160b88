//! Runs a model: which kernels, how many threads, and memory that grows with the pictures.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::{Deserialize, Serialize};
use vitlet::layout::keys;
use vitlet::{Config, Executor, Kernels, Model, Picture, Plan, Positions, RunConfig, Runner, Sequential, ThreadPool};

use crate::error::{Context, Error, Result};
use crate::model::ModelFile;
use crate::pictures::Rgb8;
use crate::{output, threads};

/// Options of every command that runs a model.
#[derive(Args, Default)]
pub struct ComputeArgs {
    /// Threads to use; by default the big cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,

    /// Kernels to use instead of the fastest that this CPU has
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
}

impl ComputeArgs {
    /// For what threads would not make faster.
    pub fn one_thread() -> Self {
        Self { threads: Some(1), kernel: None }
    }
}

/// The option of commands that take pictures.
#[derive(Args, Default)]
pub struct SizeArgs {
    /// Input size of the network instead of the file's: multiples of the patch; positions are resampled
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<Size>,
}

impl SizeArgs {
    /// What was asked for.
    pub fn get(&self) -> Option<Size> {
        self.size
    }

    /// What was asked for, if this network can have it.
    ///
    /// # Errors
    /// It cannot; the line names the nearest sizes that it can.
    pub fn fitting(&self, file: &ModelFile) -> Result<Option<Size>> {
        let Some(size) = self.size else { return Ok(None) };
        check_size(file.parse()?.config(), size).map(|()| Some(size)).about(&file.name)
    }
}

/// Refuses an input size that the network cannot have, with the nearest that it can have.
fn check_size(c: &Config, (width, height): Size) -> Result<(), String> {
    let Err(e) = c.at_size(height as usize, width as usize) else { return Ok(()) };
    let own = (c.image_width as u32, c.image_height as u32);
    let nearest = |edge: u32, fits: &dyn Fn(u32) -> bool| {
        let below = (edge.saturating_sub(NEAR)..=edge).rev().find(|&edge| fits(edge));
        let above = (edge..=edge.saturating_add(NEAR)).find(|&edge| fits(edge));
        [below.or(above), above.or(below)]
    };
    let at = |width: u32, height: u32| c.at_size(height as usize, width as usize).is_ok();
    let widths = nearest(width, &|width| at(width, own.1));
    let heights = nearest(height, &|height| at(own.0, height));
    let mut sizes: Vec<String> = widths
        .into_iter()
        .zip(heights)
        .filter_map(|(width, height)| width.zip(height))
        .filter(|&(width, height)| at(width, height))
        .map(|(width, height)| format!("{width}x{height}"))
        .collect();
    sizes.dedup();
    let why = e.to_string();
    let why = why.strip_prefix("run configuration: ").unwrap_or(&why);
    match sizes.is_empty() {
        true => Err(format!("--size {width}x{height}: {why}")),
        false => Err(format!("--size {width}x{height}: {why}; the nearest that fit: {}", sizes.join(", "))),
    }
}

/// Pixels from an edge within which another is looked for: more than any patch, and than 8 of ConvNeXt's.
const NEAR: u32 = 256;

/// Width and height of a network's input, in pixels.
pub type Size = (u32, u32);

fn size(text: &str) -> Result<Size, &'static str> {
    let edges = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    edges.ok_or("WxH is two numbers of pixels, as in 320x240")
}

/// Kernels and threads, shared by the models of one command.
pub struct Compute {
    pub kernels: Kernels,
    pub threads: usize,
    executor: Arc<dyn Executor + Send + Sync>,
}

impl Compute {
    /// What the arguments ask for.
    pub fn new(args: &ComputeArgs) -> Result<Self> {
        let kernels = match &args.kernel {
            None => Kernels::detect(),
            Some(name) => Kernels::by_name(name).ok_or_else(|| no_such_kernel(name))?,
        };
        let threads = threads::plan(args.threads.map(usize::from));
        let executor: Arc<dyn Executor + Send + Sync> = match threads {
            1 => Arc::new(Sequential),
            _ => Arc::new(ThreadPool::new(threads).about(format!("{threads} threads"))?),
        };
        Ok(Self { kernels, threads, executor })
    }

    /// A run with these kernels that has no memory for pictures yet, at `size` or the file's.
    pub fn run(&self, size: Option<Size>) -> RunConfig {
        let run = RunConfig::new(self.kernels).max_picture(1, 1);
        size.map_or(run, |(width, height)| run.input_size(width, height))
    }
}

fn no_such_kernel(name: &str) -> Error {
    let available: Vec<_> = Kernels::available().map(|k| k.name()).collect();
    Error::Usage(format!("--kernel {name}: this CPU has {}", available.join(", ")))
}

/// The same numbers everywhere, in [-2, 2), as spread out as pixels are: the top bits of an LCG (Knuth, MMIX).
pub fn synthetic_input(len: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..len).map(|_| next()).collect()
}

/// What a picture became.
pub struct Answer {
    /// Logits, features or tokens; all are finite.
    pub values: Vec<f32>,
    pub times: Times,
}

/// How long a picture took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Milliseconds from decoded pixels to the network's input.
    pub prepare_ms: f64,
    /// Milliseconds of the network.
    pub run_ms: f64,
    /// The sum of both.
    pub ms: f64,
}

impl Times {
    /// Between three points in time.
    pub fn between(start: Instant, began: Instant, end: Instant) -> Self {
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        Self { prepare_ms: ms(start, began), run_ms: ms(began, end), ms: ms(start, end) }
    }
}

/// Passes on `values`, which are `what`, if they are finite: NaN is never a probability.
pub fn finite(values: Vec<f32>, what: &str) -> Result<Vec<f32>, String> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(values),
        Some(at) => Err(format!(
            "{what} are not finite: number {at} is {}; the input or the weights are broken, or too large for this \
             precision",
            values[at]
        )),
    }
}

/// A model, ready to run one picture after another.
pub struct Inference<'m> {
    model: Model<'m>,
    compute: &'m Compute,
    runner: Runner,
    /// What the last picture became, `[3, height, width]`.
    input: Vec<f32>,
}

impl<'m> Inference<'m> {
    /// Takes the memory of a session that gives the network's first output; pictures may need more.
    pub fn new(file: &'m ModelFile, compute: &'m Compute) -> Result<Self> {
        Self::with(file, compute, compute.run(None))
    }

    /// The same for another run than [`Compute::run`].
    pub fn with(file: &'m ModelFile, compute: &'m Compute, run: RunConfig) -> Result<Self> {
        let model = file.parse()?;
        let runner = Runner::new(file.shared(), run, Arc::clone(&compute.executor)).about(&file.name)?;
        if is_resampled(&model, runner.plan()) && model.text(keys::POSITION_RESAMPLING).is_none() {
            output::note(&format!("{} does not say how its positions are resampled: timm's rule is taken", file.name));
        }
        Ok(Self { model, compute, runner, input: Vec::new() })
    }

    /// What runs.
    pub fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// How it runs.
    pub fn plan(&self) -> &Plan {
        self.runner.plan()
    }

    /// The kernels and threads that run it.
    pub fn compute(&self) -> &'m Compute {
        self.compute
    }

    /// The output of one picture. Errors say why only.
    pub fn picture(&mut self, picture: &Rgb8) -> Result<Answer, String> {
        self.frame(&picture.borrow())
    }

    /// The output of one picture in any format. Errors say why only.
    pub fn frame(&mut self, picture: &Picture<'_>) -> Result<Answer, String> {
        self.input.resize(self.plan().config().input_len(), 0.0);
        let start = Instant::now();
        let ran = self.runner.make_room(picture).and_then(|()| {
            let mut session = self.runner.session()?;
            session.prepare(picture, &mut self.input)?;
            let began = Instant::now();
            Ok((began, session.run_tensor(&self.input)?.first().to_vec()))
        });
        let end = Instant::now();
        let (began, values) = ran.map_err(|e| e.to_string())?;
        Ok(Answer { values: finite(values, self.what())?, times: Times::between(start, began, end) })
    }

    /// The output of one normalized input `[3, height, width]`. Errors say why only.
    pub fn tensor(&mut self, input: &[f32]) -> Result<Vec<f32>, String> {
        let values = self.runner.run_tensor(input).map_err(|e| e.to_string())?.first().to_vec();
        finite(values, self.what())
    }

    /// Every output that the run asks for, of one normalized input. Errors say why only.
    pub fn outputs(&mut self, input: &[f32]) -> Result<Vec<Vec<f32>>, String> {
        let results = self.runner.run_tensor(input).map_err(|e| e.to_string())?;
        results.iter().map(|(info, values)| finite(values.to_vec(), info.name())).collect()
    }

    /// The name of the output.
    fn what(&self) -> &'static str {
        self.runner.outputs().next().map_or("outputs", |info| info.name())
    }

    /// [`Inference::tensor`], showing activations to `tap` on the way.
    pub fn tap(&mut self, input: &[f32], tap: &dyn vitlet::Tap) -> Result<Vec<f32>, String> {
        let mut session = self.runner.session().map_err(|e| e.to_string())?;
        let values = session.tap_tensor(input, tap).map_err(|e| e.to_string())?.first().to_vec();
        finite(values, self.what())
    }

    /// The normalized input `[3, height, width]` that a picture becomes.
    pub fn prepare(&mut self, picture: &Picture<'_>) -> Result<Vec<f32>, vitlet::Error> {
        let mut input = vec![0.0; self.plan().config().input_len()];
        self.runner.make_room(picture)?;
        self.runner.session()?.prepare(picture, &mut input)?;
        Ok(input)
    }

    /// Calls `each` with a function that runs `input` once, in one session, adding to `profile` if there is one.
    pub fn repeat<T>(
        &mut self,
        input: &[f32],
        profile: Option<&vitlet::Profile<'_>>,
        each: impl FnOnce(&mut dyn FnMut() -> Result<(), vitlet::Error>) -> T,
    ) -> Result<T, vitlet::Error> {
        let mut session = self.runner.session()?;
        Ok(each(&mut || {
            match profile {
                None => session.run_tensor(input),
                Some(profile) => session.profile_tensor(input, profile),
            }
            .map(|_| ())
        }))
    }
}

/// Whether a run has other positions than the file.
fn is_resampled(model: &Model<'_>, plan: &Plan) -> bool {
    let c = plan.config();
    matches!(c.positions, Positions::Resampled { .. }) && c.grid() != model.config().table_grid()
}

impl Rgb8 {
    /// The same pixels for the engine.
    pub fn borrow(&self) -> Picture<'_> {
        Picture::rgb8(&self.data, self.width, self.height, 3 * self.width as usize)
    }
}
