//! An owner: a model's file, its executor and its memory in one value.

use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;

use crate::error::Error;
use crate::model::{Model, ModelParts};
use crate::output::OutputInfo;
use crate::parallel::Executor;
use crate::picture::Picture;
use crate::plan::{Plan, RunConfig};
use crate::scratch::Scratch;
use crate::session::{Results, Session};

/// The bytes of a model file, on a 64-byte boundary, the same at every call: a memory map, a [`Scratch`], a static.
/// Several runners may share them.
pub type ModelBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Runs of one model, one after another, on pictures of any size.
///
/// ```no_run
/// let mut runner = vitlet::Runner::open("model.gguf")?;
/// let pixels = [128; 320 * 240 * 3];
/// let results = runner.run_picture(&vitlet::Picture::rgb8(&pixels, 320, 240, 3 * 320))?;
/// println!("{:?}", vitlet::top_k::<5>(results.first()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Runner {
    file: ModelBytes,
    parts: ModelParts,
    executor: Arc<dyn Executor + Send + Sync>,
    stop: Arc<AtomicBool>,
    run: RunConfig,
    plan: Plan,
    scratch: Scratch,
}

impl Runner {
    /// Reads a model file and starts as many threads as the system offers.
    ///
    /// # Errors
    /// The system's; `InvalidData` with the engine's [`Error`], if it is not a model.
    #[cfg(feature = "std")]
    pub fn open(path: impl AsRef<std::path::Path>) -> std::io::Result<Self> {
        let invalid = |error: Error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        let file = Scratch::copied(&std::fs::read(path)?).map_err(invalid)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(crate::parallel::MAX_THREADS);
        let executor = Arc::new(crate::threads::ThreadPool::new(threads)?);
        Self::new(Arc::new(file), RunConfig::new(crate::kernels::Kernels::detect()), executor).map_err(invalid)
    }

    /// Checks the file and takes the memory.
    ///
    /// # Errors
    /// As [`Model::parse`], [`Plan::new`] and [`Scratch::new`].
    pub fn new(file: ModelBytes, run: RunConfig, executor: Arc<dyn Executor + Send + Sync>) -> Result<Self, Error> {
        let model = Model::parse((*file).as_ref())?;
        let (parts, plan) = (model.parts(), Plan::new(&model, &run, executor.threads())?);
        let mut scratch = Scratch::new(plan.scratch_bytes())?;
        plan.open(&model, &*executor, &mut scratch)?;
        Ok(Self { file, parts, executor, stop: Arc::default(), run, plan, scratch })
    }

    /// What runs.
    ///
    /// # Panics
    /// If the file's bytes are others than when it was opened, which their owner has promised not to do.
    pub fn model(&self) -> Model<'_> {
        self.parts.model((*self.file).as_ref()).expect("the file's bytes are the same at every call")
    }

    /// How it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What runs give, with names and shapes.
    pub fn outputs(&self) -> impl Iterator<Item = OutputInfo> {
        self.plan.outputs()
    }

    /// While this flag is true, runs end between two blocks with [`Error::Stopped`]. Any thread may set it.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// As [`Session::run_picture`]; takes more memory where a picture is larger than all before it.
    ///
    /// # Errors
    /// As [`Session::run_picture`] and [`Scratch::new`].
    pub fn run_picture(&mut self, picture: &Picture<'_>) -> Result<Results<'_>, Error> {
        self.make_room(picture)?;
        self.session()?.picture(picture)
    }

    /// As [`Session::run_tensor`].
    ///
    /// # Errors
    /// As [`Session::run_tensor`].
    pub fn run_tensor(&mut self, tensor: &[f32]) -> Result<Results<'_>, Error> {
        self.session()?.tensor(tensor, Default::default())
    }

    /// The session beneath, for all else that it does.
    ///
    /// # Errors
    /// As [`Plan::reopen`].
    pub fn session(&mut self) -> Result<Session<'_>, Error> {
        let model = self.parts.model((*self.file).as_ref())?;
        let mut session = self.plan.reopen(&model, &*self.executor, &mut self.scratch)?;
        session.stop_on(&self.stop);
        Ok(session)
    }

    /// Takes memory for a picture like this one, if it is larger than all before it.
    ///
    /// # Errors
    /// `Picture`, if it is malformed; as [`Plan::new`] and [`Scratch::new`].
    pub fn make_room(&mut self, picture: &Picture<'_>) -> Result<(), Error> {
        picture.check()?;
        let region = picture.region();
        if self.plan.has_room_for(region.width, region.height) {
            return Ok(());
        }
        let model = self.parts.model((*self.file).as_ref())?;
        let (width, height) = self.plan.max_picture();
        let run = self.run.max_picture(width.max(region.width), height.max(region.height));
        let plan = Plan::new(&model, &run, self.plan.threads)?;
        let mut scratch = Scratch::new(plan.scratch_bytes())?;
        plan.open(&model, &*self.executor, &mut scratch)?;
        (self.plan, self.scratch) = (plan, scratch);
        Ok(())
    }
}
