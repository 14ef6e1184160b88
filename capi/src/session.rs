//! Sessions: one model's runs, one after another, in the caller's memory.

use core::ffi::{c_char, c_void};

use engine::{Error, Executor, Kernels, Model, Output, Plan, Results, RunConfig, Session};

use crate::executor::{Host, vitlet_executor};
use crate::model::vitlet_model;
use crate::picture::vitlet_picture;
use crate::pointers::{
    VITLET_ALIGNMENT, check, copy_text, elements, elements_mut, exclusive, memory, shared, store, text,
};
use crate::status::{status, vitlet_status, vitlet_status as Status};

/// A session: the memory in which a model runs, for one thread at a time. It holds nothing that would have to be closed.
pub struct vitlet_session {
    plan: Plan,
    executor: Host,
    model: *const vitlet_model,
    scratch: *mut u8,
}

impl vitlet_session {
    /// # Safety
    /// Model and memory are there, and no other thread runs the session.
    unsafe fn run<T>(&mut self, work: impl FnOnce(Session<'_>) -> Result<T, Error>) -> Result<T, Status> {
        let Self { plan, executor, model, scratch } = self;
        // SAFETY: the caller's promises; `open` was given that much memory.
        let (model, scratch) = unsafe { (shared(*model)?.model()?, elements_mut(*scratch, plan.scratch_bytes())?) };
        Ok(work(plan.reopen(&model, executor, scratch)?)?)
    }
}

/// What runs give.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum vitlet_output {
    /// `[classes]`; the features if the network has no head.
    Logits = 0,
    /// The pooled features before the head, `[features]`.
    Features,
    /// The patch tokens after the last norm, `[patches, dim]`.
    Tokens,
}

/// How a model is run. Zeros are good defaults: `vitlet_options options = {0};`.
#[repr(C)]
pub struct vitlet_options {
    /// Threads of the executor, the calling one included, at most 256. 0: those of the pool if the executor is a
    /// pool's, 1 if there is no executor; for another executor it must be said. A number that is not the executor's
    /// gives VITLET_STATUS_OPTIONS.
    pub threads: u32,
    /// Pixels per row of the largest picture (of its region), at most 2^24; 0 is 4096.
    pub max_picture_width: u32,
    /// Rows of the largest picture (of its region), at most 2^24; 0 is 4096.
    pub max_picture_height: u32,
    /// A vitlet_output.
    pub output: u32,
    /// Kernels by name: "scalar", "neon", "neon-fp16", "neon-dotprod", "neon-i8mm", "avx2", "avx-vnni" or "avx512-vnni"; NULL for the fastest that this CPU has.
    /// All give the same bits in int8 models. Without std, NULL reads the CPU's ID registers, which needs EL1 or above and cores that are alike.
    pub kernels: *const c_char,
    /// The threads that work.
    pub executor: vitlet_executor,
}

impl vitlet_options {
    /// # Safety
    /// `kernels` is null or ends with a NUL.
    unsafe fn plan(&self, model: &Model<'_>, executor: &Host) -> Result<Plan, Status> {
        const OUTPUTS: [(vitlet_output, Output); 3] = [
            (vitlet_output::Logits, Output::Logits),
            (vitlet_output::Features, Output::Features),
            (vitlet_output::Tokens, Output::Tokens),
        ];
        let output = OUTPUTS.iter().find(|(number, _)| *number as u32 == self.output).ok_or(Status::Value)?.1;
        let kernels = match self.kernels.is_null() {
            true => fastest(),
            // SAFETY: the caller's promise.
            false => unsafe { text(self.kernels) }.and_then(by_name).ok_or(Status::Kernels)?,
        };
        let edge = |pixels: u32| if pixels == 0 { 4096 } else { pixels };
        let mut run = RunConfig::new(kernels).max_picture(edge(self.max_picture_width), edge(self.max_picture_height));
        if output != Output::Logits {
            run = run.outputs(&[output]);
        }
        Ok(Plan::new(model, &run, executor.threads())?)
    }
}

#[cfg(feature = "std")]
fn fastest() -> Kernels {
    Kernels::detect()
}

#[cfg(feature = "std")]
fn by_name(name: &str) -> Option<Kernels> {
    Kernels::by_name(name)
}

#[cfg(all(not(feature = "std"), target_arch = "aarch64"))]
fn fastest() -> Kernels {
    // SAFETY: the header asks those who do not name kernels to run at EL1 or above, on cores that are alike.
    unsafe {
        let [isar0, isar1, pfr0] = Kernels::read_aarch64_id_registers();
        Kernels::from_aarch64_id_registers(isar0, isar1, pfr0)
    }
}

#[cfg(all(not(feature = "std"), not(target_arch = "aarch64")))]
fn fastest() -> Kernels {
    Kernels::baseline()
}

/// Does not look at the CPU for what every CPU has.
#[cfg(not(feature = "std"))]
fn by_name(name: &str) -> Option<Kernels> {
    Kernels::baseline().slower(name).or_else(|| fastest().slower(name))
}

/// Bytes before the scratch memory.
const HEADER_BYTES: usize = size_of::<vitlet_session>().next_multiple_of(VITLET_ALIGNMENT);

/// Stores the bytes of memory, at a multiple of VITLET_ALIGNMENT, that a session with these options needs.
///
/// # Safety
/// `model` is a model; the options' strings end with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_session_bytes(
    model: *const vitlet_model,
    options: *const vitlet_options,
    bytes: *mut usize,
) -> vitlet_status {
    status(|| {
        // SAFETY: the caller's promises.
        unsafe {
            let options = shared(options)?;
            let host = Host::new(options.executor, options.threads)?;
            let plan = options.plan(&shared(model)?.model()?, &host)?;
            store(bytes, (HEADER_BYTES + plan.scratch_bytes()).next_multiple_of(VITLET_ALIGNMENT))
        }
    })
}

/// Makes a session in `memory`, which it uses from then on, and which is the caller's again when it runs no more. The model must live longer.
///
/// # Safety
/// As the comment says, and `memory` has `memory_bytes` bytes; the options' strings end with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_session_open(
    model: *const vitlet_model,
    options: *const vitlet_options,
    memory: *mut c_void,
    memory_bytes: usize,
    session: *mut *mut vitlet_session,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    status(|| unsafe { open(model, shared(options)?, (memory, memory_bytes), session) })
}

/// # Safety
/// As [`vitlet_session_open`].
unsafe fn open(
    model: *const vitlet_model,
    options: &vitlet_options,
    (at, bytes): (*mut c_void, usize),
    session: *mut *mut vitlet_session,
) -> Result<(), Status> {
    check(session)?;
    // SAFETY: the caller's promises: the memory is the session's alone, and aligned, so that its first bytes can hold one.
    unsafe {
        let executor = Host::new(options.executor, options.threads)?;
        let parsed = shared(model)?.model()?;
        let plan = options.plan(&parsed, &executor)?;
        let (header, scratch) = memory(at, bytes, HEADER_BYTES + plan.scratch_bytes())?.split_at_mut(HEADER_BYTES);
        plan.open(&parsed, &executor, scratch)?;
        let header = header.as_mut_ptr().cast::<vitlet_session>();
        header.write(vitlet_session { plan, executor, model, scratch: scratch.as_mut_ptr() });
        store(session, header)
    }
}

/// Resizes, crops and normalizes a picture as the model was trained, runs the network, and stores where the result is, valid until the next run.
/// `len` may be NULL.
///
/// # Safety
/// `session` is a session that no other thread uses now; the picture's planes hold its rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_run_picture(
    session: *mut vitlet_session,
    picture: *const vitlet_picture,
    output: *mut *const f32,
    len: *mut usize,
) -> vitlet_status {
    status(|| {
        check(output)?;
        // SAFETY: the caller's promises.
        unsafe {
            let picture = shared(picture)?.borrow()?;
            let (at, count) = exclusive(session)?.run(|mut session| Ok(place(session.run_picture(&picture)?)))?;
            give(at, count, output, len)
        }
    })
}

/// Runs the network on a normalized tensor `[3, input_height, input_width]` of `tensor_len` floats; the rest is as in vitlet_run_picture().
///
/// # Safety
/// `session` is a session that no other thread uses now; `tensor` has `tensor_len` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_run_tensor(
    session: *mut vitlet_session,
    tensor: *const f32,
    tensor_len: usize,
    output: *mut *const f32,
    len: *mut usize,
) -> vitlet_status {
    status(|| {
        check(output)?;
        // SAFETY: the caller's promises.
        unsafe {
            let tensor = elements(tensor, tensor_len)?;
            let (at, count) = exclusive(session)?.run(|mut session| Ok(place(session.run_tensor(tensor)?)))?;
            give(at, count, output, len)
        }
    })
}

/// Writes the normalized tensor `[3, input_height, input_width]` that vitlet_run_picture() feeds to the network: to look at it, or to time it.
///
/// # Safety
/// As vitlet_run_picture(); `tensor` has `tensor_len` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_prepare_picture(
    session: *mut vitlet_session,
    picture: *const vitlet_picture,
    tensor: *mut f32,
    tensor_len: usize,
) -> vitlet_status {
    status(|| {
        // SAFETY: the caller's promises.
        unsafe {
            let picture = shared(picture)?.borrow()?;
            let tensor = elements_mut(tensor, tensor_len)?;
            exclusive(session)?.run(|mut session| session.prepare(&picture, tensor))
        }
    })
}

/// Copies the name of the kernels that a session uses, like vitlet_model_label().
///
/// # Safety
/// `session` is a session, `buffer` has `buffer_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_session_kernels(
    session: *const vitlet_session,
    buffer: *mut c_char,
    buffer_bytes: usize,
) -> usize {
    // SAFETY: the caller's promises.
    unsafe { copy_text(shared(session).map_or("", |s| s.plan.kernels().name()), buffer, buffer_bytes) }
}

/// Where the first output stands: in the session's memory, until its next run.
fn place(results: Results<'_>) -> (*const f32, usize) {
    (results.first().as_ptr(), results.first().len())
}

/// # Safety
/// `output` was checked; a length can be stored at `len` unless it is null.
unsafe fn give(at: *const f32, count: usize, output: *mut *const f32, len: *mut usize) -> Result<(), Status> {
    // SAFETY: the caller's promises.
    unsafe {
        store(output, at)?;
        if len.is_null() { Ok(()) } else { store(len, count) }
    }
}
