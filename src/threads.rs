//! A thread pool for hosts with an operating system: threads that wait for the next job by spinning briefly, then
//! sleep.
//!
//! An inference forks and joins a few dozen times within milliseconds, so between two jobs a thread spins; between two
//! inferences it sleeps and costs nothing. A thread that comes too late, because the system runs something else, is not
//! waited for: the caller works until nothing is left, closes the job, and waits only for those who joined it.
//!
//! The state is one word: the job's number, whether it is open, and how many helpers are in it.
#![allow(unsafe_code)]

use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::string::String;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::vec::Vec;

use crate::parallel::{Executor, MAX_THREADS};

/// Rounds of `spin_loop` between two looks at the clock, while a helper waits for a job.
const ROUNDS: u32 = 100;
/// Rounds of `spin_loop` before a caller that waits for its helpers lets other threads run.
const CALLER_ROUNDS: u32 = 10_000;

/// `state`: helpers in the job, in the low bits, which hold more than [`MAX_THREADS`].
const INSIDE: u64 = 0xffff;
const _: () = assert!(MAX_THREADS as u64 <= INSIDE);
/// `state`: helpers may still join.
const OPEN: u64 = 1 << 16;
/// `state`: one job further.
const NEXT: u64 = 1 << 17;

type Job<'j> = &'j (dyn Fn() + Sync);

/// How a pool's helpers are started, and how they wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    threads: usize,
    name: String,
    stack_bytes: Option<usize>,
    spin: Duration,
}

impl PoolConfig {
    /// The least stack of a helper, in bytes.
    pub const MIN_STACK_BYTES: usize = 128 << 10;

    /// For `threads` threads, the calling one included. Helpers are called `vitlet-1` and so on, have the stack that
    /// Rust's threads have, and spin for 200 microseconds.
    pub fn new(threads: usize) -> Self {
        Self { threads, name: "vitlet".into(), stack_bytes: None, spin: Duration::from_micros(200) }
    }

    /// What helpers are called, before a hyphen and a number. (Linux shows 15 bytes.)
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Stack of each helper, at least [`MIN_STACK_BYTES`](Self::MIN_STACK_BYTES).
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = Some(bytes);
        self
    }

    /// How long a helper that waits for a job spins before it sleeps. Waking takes longer than the gaps between the
    /// jobs of an inference do; spinning takes a core.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }
}

/// A fixed number of threads that work on one job at a time; dropping it ends them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// One `run` at a time.
    running: Mutex<()>,
}

struct Shared {
    state: AtomicU64,
    /// The open job, on the stack of its `run`.
    job: AtomicPtr<Job<'static>>,
    /// Helpers that sleep, or are about to.
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// How long helpers spin.
    spin: Duration,
}

impl ThreadPool {
    /// A pool of `threads` threads, the calling one included: `threads - 1` are started.
    ///
    /// # Errors
    /// `InvalidInput`, unless there are 1 to [`MAX_THREADS`]; the operating system's, if a thread could not be started.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with(&PoolConfig::new(threads))
    }

    /// A pool as `config` says.
    ///
    /// # Errors
    /// As [`ThreadPool::new`]; `InvalidInput` for a stack that is too small and a name with a NUL, too.
    pub fn with(config: &PoolConfig) -> std::io::Result<Self> {
        let invalid = |why: &str| Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        if !(1..=MAX_THREADS).contains(&config.threads) {
            return invalid("a pool has 1 to 256 threads");
        }
        if config.stack_bytes.is_some_and(|bytes| bytes < PoolConfig::MIN_STACK_BYTES) {
            return invalid("a helper's stack has at least 131072 bytes");
        }
        if config.name.contains('\0') {
            return invalid("a thread's name has no NUL");
        }
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            spin: config.spin,
        });
        let mut pool = Self { shared, helpers: Vec::new(), running: Mutex::new(()) };
        for i in 1..config.threads {
            let shared = Arc::clone(&pool.shared);
            let mut helper = std::thread::Builder::new().name(std::format!("{}-{i}", config.name));
            if let Some(bytes) = config.stack_bytes {
                helper = helper.stack_size(bytes);
            }
            pool.helpers.push(helper.spawn(move || shared.help())?);
        }
        Ok(pool)
    }

    /// The helpers: all threads of the pool except the calling one. For requests to the system, such as CPUs and
    /// priorities.
    pub fn helpers(&self) -> &[JoinHandle<()>] {
        &self.helpers
    }
}

impl Shared {
    fn help(&self) {
        let mut done = 0;
        while let Some(state) = self.wait_for_open(done) {
            if self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                // Another helper joined, or the job closed: look again.
                continue;
            }
            done = state / NEXT;
            // SAFETY: the job was open when this thread joined, so its `run` has stored the pointer and does not
            // return, nor unwind, before this thread has left: the reference on its stack is alive.
            let job = unsafe { *self.job.load(Ordering::Relaxed) };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
                // Dropping it may panic as well, and this thread would never leave the job.
                core::mem::forget(payload);
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// The state once a job later than `done` is open; `None` when the pool ends.
    fn wait_for_open(&self, done: u64) -> Option<u64> {
        let open = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN != 0 && state / NEXT != done).then_some(state)
        };
        let start = Instant::now();
        while start.elapsed() < self.spin {
            for _ in 0..ROUNDS {
                if let Some(state) = open() {
                    return Some(state);
                }
                core::hint::spin_loop();
            }
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let state = loop {
            // A job opened before `asleep` was counted is seen here; one opened after it wakes this thread.
            if self.stop.load(Ordering::Relaxed) {
                break None;
            }
            if let Some(state) = open() {
                break Some(state);
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        state
    }

    /// Lets helpers join `job`.
    fn open(&self, job: &Job<'_>) {
        self.job.store(ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        // The state is closed and empty here, so adding only moves the number and opens.
        self.state.fetch_add(NEXT | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            let _guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }

    /// Lets no more helpers join, and waits for those who have.
    fn close(&self) {
        let mut inside = self.state.fetch_and(!OPEN, Ordering::Acquire) & INSIDE;
        let mut spins = 0;
        while inside != 0 {
            spins += 1;
            if spins < CALLER_ROUNDS {
                core::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            inside = self.state.load(Ordering::Acquire) & INSIDE;
        }
    }
}

impl Executor for ThreadPool {
    fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        if self.helpers.is_empty() {
            return job();
        }
        let _one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.open(&job);
        let own = catch_unwind(AssertUnwindSafe(job));
        self.shared.close();
        let elsewhere = self.shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if elsewhere {
            resume_unwind(Box::new("a job panicked on a helper thread"));
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        {
            let _guard = self.shared.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.stop.store(true, Ordering::Relaxed);
            self.shared.wake.notify_all();
        }
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job that every one of `threads` threads takes part in: each waits inside for the others.
    fn meet(pool: &ThreadPool, threads: usize) {
        let inside = AtomicUsize::new(0);
        pool.run(&|| {
            inside.fetch_add(1, Ordering::Relaxed);
            while inside.load(Ordering::Relaxed) < threads {
                std::thread::yield_now();
            }
        });
        assert_eq!(inside.load(Ordering::Relaxed), threads);
    }

    #[test]
    fn every_thread_takes_part_once_awake_or_asleep() {
        let pool = ThreadPool::new(3).unwrap();
        for i in 0..200 {
            if i % 50 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            meet(&pool, 3);
        }
    }

    #[test]
    fn a_job_runs_once_a_thread_at_most_and_is_over_when_run_returns() {
        let pool = ThreadPool::new(3).unwrap();
        for _ in 0..5000 {
            let calls = AtomicUsize::new(0);
            pool.run(&|| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert!((1..=3).contains(&calls.load(Ordering::Relaxed)));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = ThreadPool::new(2).unwrap();
        // On both threads, so that a panic left over from a helper would show in the next job.
        let inside = AtomicUsize::new(0);
        let job = || {
            inside.fetch_add(1, Ordering::Relaxed);
            while inside.load(Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
            panic!("on purpose");
        };
        assert!(catch_unwind(AssertUnwindSafe(|| pool.run(&job))).is_err());
        meet(&pool, 2);
    }

    /// What a job panics with: dropping it panics again.
    struct Spiteful;
    impl Drop for Spiteful {
        fn drop(&mut self) {
            panic!("on purpose, again");
        }
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_keep_the_caller_waiting() {
        let pool = ThreadPool::new(2).unwrap();
        let caller = std::thread::current().id();
        let helper_is_in = AtomicBool::new(false);
        let job = || {
            if std::thread::current().id() != caller {
                helper_is_in.store(true, Ordering::Relaxed);
                std::panic::panic_any(Spiteful);
            }
            while !helper_is_in.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        };
        assert!(catch_unwind(AssertUnwindSafe(|| pool.run(&job))).is_err());
        meet(&pool, 2);
    }

    #[test]
    fn the_number_of_threads_is_bounded() {
        for threads in [0, MAX_THREADS + 1, 65_537, usize::MAX] {
            let error = ThreadPool::new(threads).err().map(|e| e.kind());
            assert_eq!(error, Some(std::io::ErrorKind::InvalidInput), "{threads}");
        }
        meet(&ThreadPool::new(MAX_THREADS).unwrap(), MAX_THREADS);
    }

    #[test]
    fn helpers_are_as_the_configuration_says() {
        let config = PoolConfig::new(3).name("camera").stack_bytes(PoolConfig::MIN_STACK_BYTES).spin(Duration::ZERO);
        let pool = ThreadPool::with(&config).unwrap();
        let names: Vec<_> = pool.helpers().iter().map(|helper| helper.thread().name().unwrap()).collect();
        assert_eq!(names, ["camera-1", "camera-2"]);
        (0..50).for_each(|_| meet(&pool, 3));
        let small = config.clone().stack_bytes(PoolConfig::MIN_STACK_BYTES - 1);
        for refused in [small, config.name("a\0b")] {
            assert_eq!(ThreadPool::with(&refused).err().map(|e| e.kind()), Some(std::io::ErrorKind::InvalidInput));
        }
    }
}
