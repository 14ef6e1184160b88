//! Threads for hosts without threads. With std only.

use core::ffi::{c_char, c_void};
use core::time::Duration;
use std::boxed::Box;
use std::io;

use engine::{Executor, MAX_THREADS, PoolConfig, ThreadPool};

use crate::error::{Failure, reported, vitlet_error};
use crate::executor::{vitlet_executor, vitlet_job};
use crate::pointers::{check, elements, store, text};
use crate::status::{vitlet_status, vitlet_status as Status};
use crate::versions::{self, Versioned};

/// Threads of the library, for hosts that have none. Only the host starts them.
pub struct vitlet_pool {
    threads: ThreadPool,
}

impl vitlet_pool {
    pub(crate) fn threads(&self) -> usize {
        self.threads.threads()
    }
}

/// How a pool is started. Zeros are good defaults: `vitlet_pool_options options = {0};`. The thread that runs a session
/// is the host's. All other threads of a pool are its helpers, and the fields below concern them.
#[repr(C)]
pub struct vitlet_pool_options {
    /// sizeof(vitlet_pool_options), or 0 for the fields of version 1.
    pub size: usize,
    /// Number of threads, including the one that runs a session, at most 256. 0: one for each of `cpus`; without
    /// `cpus`, one for each CPU that this process may use.
    pub threads: u32,
    /// How long a helper spins for work before it sleeps, in microseconds; 0 is 200. Less saves power, but helpers may
    /// fall asleep within a run. More keeps cores busy between runs that follow closely.
    pub spin_microseconds: u32,
    /// Real-time priority of the helpers, 1 to 99 (Linux: SCHED_FIFO, for which the process needs permission). 0: the
    /// priority of the thread that starts the pool. The host should give the same priority to the thread that runs
    /// sessions, and leave one CPU to other programs.
    pub priority: u32,
    /// Name of the helpers; a hyphen and a number follow it. Linux shows 15 bytes. NULL is "vitlet".
    pub name: *const c_char,
    /// Numbers of the CPUs that the helpers may run on (Linux). NULL: the CPUs of the thread that starts the pool.
    pub cpus: *const u32,
    /// The number of elements in `cpus`.
    pub cpu_count: usize,
    /// Size of each helper's stack in bytes, at least 131072; 0 is 2 MB.
    pub stack_bytes: usize,
}

// SAFETY: numbers and pointers, the size first; a multiple of their alignment.
unsafe impl Versioned for vitlet_pool_options {}

impl vitlet_pool_options {
    /// # Safety
    /// `cpus` has `cpu_count` elements unless it is null.
    unsafe fn cpus(&self) -> Result<&[u32], Failure> {
        match (self.cpus.is_null(), self.cpu_count) {
            (true, 0) => Ok(&[]),
            (true, count) => {
                let text = &["cpus: NULL, but cpu_count is ", ""];
                Err(Failure::numbers(Status::Null, text, &[count as u64]))
            }
            (false, 0) => Err(Failure::Because(Status::Value, "cpus: an array without elements")),
            // SAFETY: the caller's promise.
            (false, count) => Ok(unsafe { elements(self.cpus, count) }?),
        }
    }

    fn threads(&self, cpus: &[u32]) -> Result<usize, Failure> {
        let available = || std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let threads = match (self.threads as usize, cpus.len()) {
            (0, 0) => available(),
            (0, cpus) => cpus,
            (threads, _) => threads,
        };
        match threads {
            1..=MAX_THREADS => Ok(threads),
            _ => {
                let text = &["threads: ", ", but a pool has 1 to 256"];
                Err(Failure::numbers(Status::Value, text, &[threads as u64]))
            }
        }
    }

    /// # Safety
    /// As [`vitlet_pool_start`].
    unsafe fn start(&self) -> Result<ThreadPool, Failure> {
        // SAFETY: the caller's promise.
        let cpus = unsafe { self.cpus() }?;
        let mut config = PoolConfig::new(self.threads(cpus)?);
        if !self.name.is_null() {
            let wrong = Failure::Because(Status::Value, "a pool's name is not UTF-8");
            // SAFETY: the caller's promise.
            config = config.name(unsafe { text(self.name) }.ok_or(wrong)?);
        }
        if self.stack_bytes > 0 {
            config = config.stack_bytes(self.stack_bytes);
        }
        if self.spin_microseconds > 0 {
            config = config.spin(Duration::from_micros(self.spin_microseconds.into()));
        }
        let pool = ThreadPool::with(&config).map_err(|e| refused(&e))?;
        system::place(&pool, cpus, self.priority)?;
        Ok(pool)
    }
}

/// Numbers were checked, all but the stack's.
fn refused(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            Failure::Because(Status::Value, "stack_bytes: less than 131072, or not supported by this system")
        }
        _ => Failure::System(Status::Threads, "a thread could not be started", error.raw_os_error()),
    }
}

/// Starts the helpers of a pool. There is one helper less than threads, because the thread that runs a session counts,
/// too. Helpers wait for work, spinning at first, then asleep. No other function takes memory from the system. `error`
/// may be NULL. Libraries that are built without std lack this function.
///
/// # Safety
/// A pointer can be stored at `pool`; `options.cpus` has `options.cpu_count` elements; the name ends with
/// a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_pool_start(
    options: *const vitlet_pool_options,
    pool: *mut *mut vitlet_pool,
    error: *mut vitlet_error,
) -> vitlet_status {
    // SAFETY: the caller's promises.
    unsafe {
        reported(error, || {
            check(pool)?;
            let threads = versions::read(options)?.start()?;
            Ok(store(pool, Box::into_raw(Box::new(vitlet_pool { threads })))?)
        })
    }
}

/// Ends the threads of a pool, which no session may use any more. NULL is allowed.
///
/// # Safety
/// `pool` is NULL or a pool that is not stopped yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitlet_pool_stop(pool: *mut vitlet_pool) {
    if check(pool).is_ok() {
        // SAFETY: made by `vitlet_pool_start`, and given back once.
        drop(unsafe { Box::from_raw(pool) });
    }
}

/// The executor that works on a pool's threads; several sessions may share one, and take turns.
#[unsafe(no_mangle)]
pub extern "C" fn vitlet_pool_executor(pool: *mut vitlet_pool) -> vitlet_executor {
    vitlet_executor { run: if pool.is_null() { None } else { Some(run_on_pool) }, context: pool.cast() }
}

/// # Safety
/// `context` is a pool, `job` may be called with `data` on any thread.
pub(crate) unsafe extern "C" fn run_on_pool(context: *mut c_void, job: vitlet_job, data: *mut c_void) {
    /// A pointer that the job may take to other threads.
    struct Data(*mut c_void);
    // SAFETY: the engine's jobs are `Sync`.
    unsafe impl Sync for Data {}
    impl Data {
        fn get(&self) -> *mut c_void {
            self.0
        }
    }
    // SAFETY: the caller's promise.
    let pool = unsafe { &*context.cast::<vitlet_pool>() };
    let data = Data(data);
    if let Some(job) = job {
        // SAFETY: the caller's promise.
        pool.threads.run(&|| unsafe { job(data.get()) });
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::unix::thread::JoinHandleExt;

    use super::*;

    /// Keeps the helpers to CPUs, if any are named, and gives them a priority, unless it is 0.
    pub(super) fn place(pool: &ThreadPool, cpus: &[u32], priority: u32) -> Result<(), Failure> {
        let set = set(cpus)?;
        if priority > 99 {
            let text = &["priority: ", " is not 1 to 99, or 0 for none"];
            return Err(Failure::numbers(Status::Value, text, &[priority.into()]));
        }
        for helper in pool.helpers() {
            // A number in std; with musl, a pointer in libc.
            #[allow(clippy::unnecessary_cast, reason = "not with musl")]
            let thread = helper.as_pthread_t() as libc::pthread_t;
            if !cpus.is_empty() {
                // SAFETY: the thread runs as long as its handle is there; the set is as large as said.
                let code = unsafe { libc::pthread_setaffinity_np(thread, size_of::<libc::cpu_set_t>(), &set) };
                done(code, "cpus: the system does not let the helpers run on them")?;
            }
            if priority > 0 {
                // SAFETY: numbers, for which zeros are values.
                let mut parameters: libc::sched_param = unsafe { core::mem::zeroed() };
                parameters.sched_priority = priority as i32;
                // SAFETY: the thread runs as long as its handle is there.
                let code = unsafe { libc::pthread_setschedparam(thread, libc::SCHED_FIFO, &parameters) };
                done(code, "priority: the system does not give it to the helpers")?;
            }
        }
        Ok(())
    }

    fn set(cpus: &[u32]) -> Result<libc::cpu_set_t, Failure> {
        // SAFETY: numbers, for which zeros are values.
        let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
        for &cpu in cpus {
            if cpu as usize >= libc::CPU_SETSIZE as usize {
                let text = &["cpus: ", " is not a CPU's number, 0 to 1023"];
                return Err(Failure::numbers(Status::Value, text, &[cpu.into()]));
            }
            // SAFETY: the number lies within the set.
            unsafe { libc::CPU_SET(cpu as usize, &mut set) };
        }
        Ok(set)
    }

    fn done(code: i32, what: &'static str) -> Result<(), Failure> {
        if code == 0 { Ok(()) } else { Err(Failure::System(Status::Threads, what, Some(code))) }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::*;

    pub(super) fn place(_: &ThreadPool, cpus: &[u32], priority: u32) -> Result<(), Failure> {
        if cpus.is_empty() && priority == 0 {
            return Ok(());
        }
        Err(Failure::Because(Status::Threads, "cpus and priority: not supported on this system"))
    }
}
