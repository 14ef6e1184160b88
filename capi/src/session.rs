//! Sessions: one model's runs, one after another, in the caller's memory.

use core::ffi::{c_char, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use engine::{Error, Executor, Kernels, Model, Picture, Plan, Results, RunConfig, Session};

use crate::error::{Failure, reported, vitlet_error};
use crate::executor::{Host, vitlet_executor};
use crate::model::vitlet_model;
use crate::output::{OUTPUTS, described, of_bits, vitlet_tensor_info};
use crate::picture::{EDGES, check_edge, vitlet_picture};
use crate::pointers::{
    VITLET_ALIGNMENT, check, copy_text, elements, elements_mut, exclusive, memory, shared, store, text,
};
use crate::status::{status, vitlet_status, vitlet_status as Status};
use crate::versions::{self, Versioned};

/// A session: the memory in which a model runs, for one thread at a time. It need not be closed.
pub struct vitlet_session {
    plan: Plan,
    executor: Host,
    model: *const vitlet_model,
    scratch: *mut u8,
    /// Unless null, ends runs while it is true.
    stop: *const bool,
    /// The addresses of the last run's outputs in it, and their lengths; null and 0 if there are none.
    results: [(*const f32, usize); OUTPUTS],
}

const NO_RESULTS: [(*const f32, usize); OUTPUTS] = [(ptr::null(), 0); OUTPUTS];

impl vitlet_session {
    /// # Safety
    /// Model and memory are there, and no other thread runs the session.
    unsafe fn run<T>(&mut self, work: impl FnOnce(Session<'_>) -> Result<T, Error>) -> Result<T, Failure> {
        let Self { plan, executor, model, scratch, stop, .. } = self;
        // SAFETY: the caller's promises; `open` was given that much memory.
        let (model, scratch) = unsafe { (shared(*model)?.model()?, elements_mut(*scratch, plan.scratch_bytes())?) };
        let mut session = plan.reopen(&model, executor, scratch)?;
        if !stop.is_null() {
            // SAFETY: the host keeps the flag as long as the session runs, and changes it atomically.
            session.stop_on(unsafe { AtomicBool::from_ptr(stop.cast_mut()) });
        }
        Ok(work(session)?)
    }

    /// A picture that the session has room for.
    ///
    /// # Safety
    /// Unless null or misaligned, the pointer leads to a picture whose planes hold its rows, not written for `'a`.
    #[inline(never)]
    unsafe fn picture<'a>(&self, picture: *const vitlet_picture) -> Result<Picture<'a>, Failure> {
        // SAFETY: the caller's promises.
        let picture = unsafe { versions::read(picture)?.borrow()? };
        let (width, height) = picture.region.map_or((picture.width, picture.height), |r| (r.width, r.height));
        if self.plan.has_room_for(width, height) {
            return Ok(picture);
        }
        let text = &["", " x ", " pixels: more than the largest picture of the session, ", " x ", ""];
        let (most_width, most_height) = self.plan.max_picture();
        let numbers = [width, height, most_width, most_height].map(u64::from);
        Err(Failure::numbers(Status::PictureTooLarge, text, &numbers))
    }

    /// Where output `index` of the last run stands.
    fn result(&self, index: usize) -> (*const f32, usize) {
        self.results.get(index).copied().unwrap_or(NO_RESULTS[0])
    }
}

/// A session, whose last run's results are gone from now on.
///
/// # Safety
/// Unless null or misaligned, the pointer leads to a session that no other thread uses for `'a`.
unsafe fn without_results<'a>(session: *mut vitlet_session) -> Result<&'a mut vitlet_session, Status> {
    // SAFETY: the caller's promise.
    let session = unsafe { exclusive(session) }?;
    session.results = NO_RESULTS;
    Ok(session)
}

/// Where a run's outputs stand: in the session's memory, until its next run.
fn places(results: &Results<'_>) -> [(*const f32, usize); OUTPUTS] {
    let mut places = NO_RESULTS;
    for (place, (_, values)) in places.iter_mut().zip(results.iter()) {
        *place = (values.as_ptr(), values.len());
    }
    places
}

/// How a model is run. Zeros are good defaults: `vitlet_options options = {0};`.
#[repr(C)]
pub struct vitlet_options {
    /// sizeof(vitlet_options), or 0 for the fields of version 1.
    pub size: usize,
    /// Number of threads of the executor, the calling one included, at most 256. 0 means the threads of the pool if the
    /// executor is a pool's, and 1 if there is no executor; for another executor the number must be set. A number that
    /// differs from the executor's gives VITLET_STATUS_OPTIONS.
    pub threads: u32,
    /// Pixels per row of the largest picture (of its region), at most 2^24; 0 is 4096.
    pub max_picture_width: u32,
    /// Rows of the largest picture (of its region), at most 2^24; 0 is 4096.
    pub max_picture_height: u32,
    /// The outputs of a run: values of vitlet_output, combined by `|`; 0 for the logits, or for the features if the
    /// network has no head.
    pub outputs: u32,
    /// Pixels per row of the network's input, a multiple of the patch. If both sizes are 0, the model's own size is
    /// taken; otherwise positions are resampled when the session opens.
    pub input_width: u32,
    /// Rows of the network's input, a multiple of the patch.
    pub input_height: u32,
    /// 1: opening the session reads a byte of every 4096 bytes of the model's file, so that the first run does not wait
    /// for the disk. 0: the first run reads the file. (The session's memory is written at opening in both cases.)
    pub prefault: u32,
    /// Kernels by name: "scalar", "neon", "neon-fp16", "neon-dotprod", "neon-i8mm", "avx2", "avx-vnni" or
    /// "avx512-vnni"; NULL for the fastest that this CPU has. All give the same bits in int8 models. Without std, NULL
    /// reads the CPU's ID registers, which needs EL1 or above and cores of one kind.
    pub kernels: *const c_char,
    /// The threads that do the work.
    pub executor: vitlet_executor,
    /// A flag that is read between the network's blocks: while it is true, runs end with VITLET_STATUS_STOPPED. Another
    /// thread or a signal handler sets it, by vitlet_stop_set() or as an atomic_bool. It must exist as long as the
    /// session runs. NULL: nothing stops a run.
    pub stop: *const bool,
}

// SAFETY: numbers, pointers and a function that may be null, the size first; a multiple of their alignment.
unsafe impl Versioned for vitlet_options {}

impl vitlet_options {
    /// # Safety
    /// `kernels` is null or ends with a NUL.
    unsafe fn plan(&self, model: &Model<'_>, executor: &Host) -> Result<Plan, Failure> {
        let kernels = match self.kernels.is_null() {
            true => fastest(),
            // SAFETY: the caller's promise.
            false => unsafe { text(self.kernels) }.and_then(by_name).ok_or(Status::Kernels)?,
        };
        let edge = |pixels: u32| if pixels == 0 { 4096 } else { pixels };
        let (width, height) = (edge(self.max_picture_width), edge(self.max_picture_height));
        check_edge(width, Status::Options, &["max_picture_width: ", EDGES])?;
        check_edge(height, Status::Options, &["max_picture_height: ", EDGES])?;
        let mut run = RunConfig::new(kernels).max_picture(width, height);
        if self.prefault > 1 {
            return Err(Failure::numbers(Status::Value, &["prefault: ", " is not 0 or 1"], &[self.prefault.into()]));
        }
        let (count, outputs) = of_bits(self.outputs)?;
        run = run.outputs(&outputs[..count]);
        if self.input_width | self.input_height != 0 {
            run = run.input_size(self.input_width, self.input_height);
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

/// Does not ask the CPU about features that every CPU has.
#[cfg(not(feature = "std"))]
fn by_name(name: &str) -> Option<Kernels> {
    Kernels::baseline().slower(name).or_else(|| fastest().slower(name))
}

/// Bytes before the scratch memory: the same on all machines, so that `vitlet inspect --c-header` knows them.
const HEADER_BYTES: usize = 1024;
const _: () = assert!(size_of::<vitlet_session>() <= HEADER_BYTES && HEADER_BYTES.is_multiple_of(VITLET_ALIGNMENT));

/// What a session is made of.
struct Planned<'m> {
    model: Model<'m>,
    options: vitlet_options,
    executor: Host,
    plan: Plan,
}

impl Planned<'_> {
    /// # Safety
    /// As [`vitlet_session_bytes`].
    unsafe fn new(model: *const vitlet_model, options: *const vitlet_options) -> Result<Self, Failure> {
        // SAFETY: the caller's promises.
        unsafe {
            let options = versions::read(options)?;
            let model = shared(model)?.model()?;
            let executor = Host::new(options.executor, options.threads)?;
            let plan = options.plan(&model, &executor)?;
            Ok(Self { model, options, executor, plan })
        }
    }
}

/// Stores the size of the memory, in bytes, that a session with these options needs. The address of that memory must be
/// a multiple of VITLET_ALIGNMENT. `error` may be NULL.
///
/// # Safety
/// `model` is a model; strings in the options end with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_session_bytes(
    model: *const vitlet_model,
    options: *const vitlet_options,
    bytes: *mut usize,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    unsafe {
        reported(error, || {
            check(bytes)?;
            let plan = Planned::new(model, options)?.plan;
            Ok(store(bytes, (HEADER_BYTES + plan.scratch_bytes()).next_multiple_of(VITLET_ALIGNMENT))?)
        })
    }
}

/// Makes a session in `memory`. The session uses that memory as long as it runs; afterwards the memory is the caller's
/// again. The call writes to all of it, so that no run touches a page for the first time. The model must outlive the
/// session. `error` may be NULL.
///
/// # Safety
/// `model` is a model and outlives the session; `memory` has `memory_bytes` bytes, which nobody else uses
/// meanwhile; strings in the options end with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_session_open(
    model: *const vitlet_model,
    options: *const vitlet_options,
    memory: *mut c_void,
    memory_bytes: usize,
    session: *mut *mut vitlet_session,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    unsafe { reported(error, || open(model, options, (memory, memory_bytes), session)) }
}

/// # Safety
/// As [`vitlet_session_open`].
unsafe fn open(
    model: *const vitlet_model,
    options: *const vitlet_options,
    (at, bytes): (*mut c_void, usize),
    session: *mut *mut vitlet_session,
) -> Result<(), Failure> {
    check(session)?;
    // SAFETY: the caller's promises: the memory is the session's alone, and aligned, so that its first bytes can hold
    // one.
    unsafe {
        let Planned { model: parsed, options, executor, plan } = Planned::new(model, options)?;
        let (header, scratch) =
            memory(at, bytes, HEADER_BYTES.saturating_add(plan.scratch_bytes()))?.split_at_mut(HEADER_BYTES);
        plan.open(&parsed, &executor, scratch)?;
        if options.prefault == 1 {
            (*model).prefault();
        }
        let header = header.as_mut_ptr().cast::<vitlet_session>();
        let (scratch, stop) = (scratch.as_mut_ptr(), options.stop);
        header.write(vitlet_session { plan, executor, model, scratch, stop, results: NO_RESULTS });
        Ok(store(session, header)?)
    }
}

/// Resizes, crops and normalizes a picture in the way the model was trained with, and runs the network.
/// vitlet_output_data() then has the results. `error` may be NULL.
///
/// # Safety
/// `session` is a session that no other thread uses now; the picture's planes hold its rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_run_picture(
    session: *mut vitlet_session,
    picture: *const vitlet_picture,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    unsafe {
        reported(error, || {
            let session = without_results(session)?;
            let picture = session.picture(picture)?;
            session.results = session.run(|mut session| Ok(places(&session.run_picture(&picture)?)))?;
            Ok(())
        })
    }
}

/// Runs the network on a normalized tensor `[3, input_height, input_width]` of `tensor_len` floats. Everything else is
/// as in vitlet_run_picture().
///
/// # Safety
/// `session` is a session that no other thread uses now; `tensor` has `tensor_len` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_run_tensor(
    session: *mut vitlet_session,
    tensor: *const f32,
    tensor_len: usize,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    unsafe {
        reported(error, || {
            let session = without_results(session)?;
            let tensor = elements(tensor, tensor_len)?;
            session.results = session.run(|mut session| Ok(places(&session.run_tensor(tensor)?)))?;
            Ok(())
        })
    }
}

/// The number of outputs of a session's runs, at least 1; 0 if `session` is NULL.
///
/// # Safety
/// `session` is a session that no other thread runs now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_output_count(session: *const vitlet_session) -> usize {
    // SAFETY: the caller's promise.
    unsafe { shared(session) }.map_or(0, |session| session.plan.outputs().count())
}

/// Fills `info` with the name and shape of output `index`, which are known before the first run. Outputs are in the
/// order of their bits.
///
/// # Safety
/// `session` is a session; `info.size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_output_info(
    session: *const vitlet_session,
    index: usize,
    info: *mut vitlet_tensor_info,
) -> vitlet_status {
    status(|| {
        check(info)?;
        // SAFETY: the caller's promises.
        unsafe {
            let output = shared(session)?.plan.outputs().nth(index).ok_or(Status::Value)?;
            versions::fill(info, &described(&output).ok_or(Status::Value)?)
        }
    })
}

/// The address of output `index`, valid until the session's next run, and in `len` its number of floats (`len` may be
/// NULL). NULL and 0 if there is no such output, or if the last run failed.
///
/// # Safety
/// `session` is a session that no other thread runs now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_output_data(
    session: *const vitlet_session,
    index: usize,
    len: *mut usize,
) -> *const f32 {
    // SAFETY: the caller's promises.
    unsafe {
        let (start, count) = shared(session).map_or((ptr::null(), 0), |session| session.result(index));
        if check(len).is_ok() {
            len.write(count);
        }
        start
    }
}

/// Writes the normalized tensor `[3, input_height, input_width]` that vitlet_run_picture() feeds to the network, so
/// that a program can inspect it or measure its time. This discards the results of the last run. `error` may be NULL.
///
/// # Safety
/// As vitlet_run_picture(); `tensor` has `tensor_len` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_prepare_picture(
    session: *mut vitlet_session,
    picture: *const vitlet_picture,
    tensor: *mut f32,
    tensor_len: usize,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    unsafe {
        reported(error, || {
            let session = without_results(session)?;
            let picture = session.picture(picture)?;
            let tensor = elements_mut(tensor, tensor_len)?;
            session.run(|mut session| session.prepare(&picture, tensor))
        })
    }
}

/// Sets a flag that vitlet_options.stop points to: atomically, and safely in a signal handler. NULL is allowed.
///
/// # Safety
/// `flag` is NULL or a bool that is read and written atomically only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_stop_set(flag: *mut bool, stop: bool) {
    if check(flag).is_ok() {
        // SAFETY: the caller's promise.
        unsafe { AtomicBool::from_ptr(flag) }.store(stop, Ordering::Relaxed);
    }
}

/// Copies the name of the kernels that a session uses, like vitlet_model_label().
///
/// # Safety
/// `session` is a session that no other thread runs now, `buffer` has `buffer_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_session_kernels(
    session: *const vitlet_session,
    buffer: *mut c_char,
    buffer_bytes: usize,
) -> usize {
    // SAFETY: the caller's promises.
    unsafe { copy_text(shared(session).map_or("", |s| s.plan.kernels().name()), buffer, buffer_bytes) }
}
