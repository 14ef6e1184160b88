//! The host's threads. (pool.rs has some for hosts without.)

use core::ffi::c_void;

use engine::Executor;

use crate::error::Failure;
use crate::status::vitlet_status as Status;

/// Work to be done by threads.
pub type vitlet_job = Option<unsafe extern "C" fn(data: *mut c_void)>;

/// The host's threads; vitlet_options.threads is their number.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vitlet_executor {
    /// Calls `job(data)` once on each thread that helps, and returns when all these calls have returned. The calling
    /// thread may be one of them. A call that finds no work left returns at once. `run` must not throw: an exception
    /// that reaches the library ends the process. NULL: the calling thread works alone.
    pub run: Option<unsafe extern "C" fn(context: *mut c_void, job: vitlet_job, data: *mut c_void)>,
    /// Passed on to `run`.
    pub context: *mut c_void,
}

type Run = unsafe extern "C" fn(*mut c_void, vitlet_job, *mut c_void);

/// An executor of C for the engine.
pub(crate) struct Host {
    executor: vitlet_executor,
    threads: usize,
}

impl Host {
    /// `threads` as the options have it: 0 stands for as many as the executor is known to have.
    ///
    /// # Safety
    /// A pool's executor has its pool.
    pub(crate) unsafe fn new(executor: vitlet_executor, threads: u32) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let known = executor.run.map_or(Some(1), |run| unsafe { pool_threads(run, executor.context) });
        let asked = (threads > 0).then_some(threads as usize);
        match (asked, known) {
            (Some(asked), Some(known)) if asked != known => {
                let text = &["threads: ", ", but the executor has ", ""];
                Err(Failure::numbers(Status::Options, text, &[asked as u64, known as u64]))
            }
            _ => {
                let unknown = Failure::Because(Status::Options, "threads: 0, but this executor needs a number");
                Ok(Self { executor, threads: asked.or(known).ok_or(unknown)? })
            }
        }
    }
}

/// The threads of a pool's executor; `None` of another one, which has to say itself.
///
/// # Safety
/// A pool's executor has its pool.
#[cfg(feature = "std")]
unsafe fn pool_threads(run: Run, context: *mut c_void) -> Option<usize> {
    // There is one `run_on_pool`, and no other function is like it, so that its address is its own.
    let is_pool = core::ptr::fn_addr_eq(run, crate::pool::run_on_pool as Run);
    // SAFETY: the caller's promise.
    is_pool.then(|| unsafe { &*context.cast::<crate::pool::vitlet_pool>() }.threads())
}

/// There are no pools without std.
///
/// # Safety
/// None is asked for.
#[cfg(not(feature = "std"))]
unsafe fn pool_threads(_: Run, _: *mut c_void) -> Option<usize> {
    None
}

// SAFETY: the engine calls `run` on the thread that runs the session only.
unsafe impl Sync for Host {}

impl Executor for Host {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        let Some(run) = self.executor.run else {
            return job();
        };
        let mut data = job;
        // SAFETY: the job's data is what `call` takes, and outlives `run`, which returns after the last call has
        // returned (the host's promise).
        unsafe { call_host(run, self.executor.context, (&raw mut data).cast()) };
    }
}

/// An exception or a panic that comes out of `run` ends the process here, as in every `extern "C"` function: other
/// threads may still work on the job, whose frames must not be unwound.
///
/// # Safety
/// `run` may be called with `context` and with the data of a job.
unsafe extern "C" fn call_host(run: Run, context: *mut c_void, data: *mut c_void) {
    // Without std there is nothing that unwinds.
    #[cfg(feature = "std")]
    let run: unsafe extern "C-unwind" fn(*mut c_void, vitlet_job, *mut c_void) =
        // SAFETY: the same convention, except for unwinding: it is unknown in one, and this function stops it in the
        // other.
        unsafe { core::mem::transmute(run) };
    // SAFETY: the caller's promise.
    unsafe { run(context, Some(call), data) };
}

/// # Safety
/// `data` leads to the reference that `Host::run` keeps.
unsafe extern "C" fn call(data: *mut c_void) {
    // SAFETY: the caller's promise; `&dyn Fn() + Sync` may be shared among threads.
    let job = unsafe { *data.cast::<&(dyn Fn() + Sync)>() };
    job();
}
