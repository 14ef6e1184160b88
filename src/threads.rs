//! A thread pool for hosts with an operating system: threads that wait for the next job by spinning briefly, then sleep.
//!
//! An inference forks and joins a few dozen times within milliseconds, so between two jobs a thread spins; between two
//! inferences it parks and costs nothing.
#![allow(unsafe_code)]

use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::vec::Vec;

use crate::parallel::Executor;

/// Rounds of `spin_loop` before a waiting thread parks: some tens of microseconds.
const SPINS: u32 = 20_000;

type Job = &'static (dyn Fn() + Sync);

/// A fixed number of threads that work on one job at a time; dropping it ends them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// One `run` at a time.
    running: Mutex<()>,
}

struct Shared {
    /// Counts jobs; a change tells the helpers that there is a new one.
    epoch: AtomicUsize,
    /// Helpers that have not finished the current job.
    busy: AtomicUsize,
    job: Mutex<Option<Job>>,
    wake: Condvar,
    stop: AtomicBool,
    panicked: AtomicBool,
}

impl ThreadPool {
    /// A pool of `threads` threads, the calling one included: `threads - 1` are started.
    ///
    /// # Errors
    /// The operating system's, if a thread could not be started.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            job: Mutex::new(None),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let mut pool = Self { shared, helpers: Vec::new(), running: Mutex::new(()) };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let helper = std::thread::Builder::new().name(std::format!("vitlet-{i}")).spawn(move || shared.help())?;
            pool.helpers.push(helper);
        }
        Ok(pool)
    }

    /// Threads that work, the calling one included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }
}

impl Shared {
    fn help(&self) {
        let mut seen = 0;
        loop {
            let Some(job) = self.next_job(&mut seen) else { return };
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until the epoch is no longer `seen`; `None` when the pool ends.
    fn next_job(&self, seen: &mut usize) -> Option<Job> {
        for _ in 0..SPINS {
            if self.epoch.load(Ordering::Acquire) != *seen {
                break;
            }
            core::hint::spin_loop();
        }
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        while self.epoch.load(Ordering::Acquire) == *seen && !self.stop.load(Ordering::Relaxed) {
            job = self.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
        }
        *seen = self.epoch.load(Ordering::Acquire);
        if self.stop.load(Ordering::Relaxed) { None } else { *job }
    }
}

impl Executor for ThreadPool {
    fn run(&self, job: &(dyn Fn() + Sync)) {
        if self.helpers.is_empty() {
            return job();
        }
        let _one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: only the lifetime is changed; `run` does not return, nor unwind, before `busy` is 0, that is before every helper is done with the job.
        let job_for_helpers: Job = unsafe { core::mem::transmute::<&(dyn Fn() + Sync), Job>(job) };
        let shared = &*self.shared;
        shared.busy.store(self.helpers.len(), Ordering::Relaxed);
        {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(job_for_helpers);
            shared.epoch.fetch_add(1, Ordering::Release);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(job));
        let mut spins = 0;
        while shared.busy.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a job panicked on a helper thread"));
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        {
            let _held = self.shared.job.lock().unwrap_or_else(PoisonError::into_inner);
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

    #[test]
    fn every_thread_runs_every_job_once() {
        let pool = ThreadPool::new(3).unwrap();
        let calls = AtomicUsize::new(0);
        for _ in 0..2000 {
            pool.run(&|| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(calls.load(Ordering::Relaxed), 6000);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = ThreadPool::new(2).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| pool.run(&|| panic!("on purpose")))).is_err());
        let calls = AtomicUsize::new(0);
        pool.run(&|| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
