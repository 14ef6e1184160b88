//! Work split into blocks that workers claim, safe under any executor.
//!
//! [`Executor`] is the caller's: sequential, a thread pool, the other cores of a bare-metal board. It only has to call
//! the job, on as many threads as it likes. The engine's own atomics hand every block, and every worker's scratch, to
//! one claimant, so a wrong executor can be slow, or be reported, but never races.
#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;
use crate::fpenv::FpEnv;

/// The most threads that work at once.
pub const MAX_THREADS: usize = 256;

/// Runs a job on several threads at once.
pub trait Executor: Sync {
    /// Threads that [`run`](Self::run) calls a job on at most, the calling one included. As many work at once, each in
    /// scratch memory of its own: a session asks when it is opened, and calls of more threads find nothing to do.
    fn threads(&self) -> usize;

    /// Calls `job` once on each thread that shall help (including the calling one), and returns when all calls have
    /// returned.
    fn run(&self, job: &(dyn Fn() + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential;

impl Executor for Sequential {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        job();
    }
}

/// Something that comes apart into `count()` disjoint pieces.
pub(crate) trait Split: Sync {
    type Piece;

    fn count(&self) -> usize;

    /// Piece `i`, below `count()`.
    ///
    /// # Safety
    /// Each piece is taken at most once in the lifetime of `self`.
    unsafe fn take(&self, i: usize) -> Self::Piece;
}

/// A slice cut into chunks of `chunk` elements; the last may be shorter.
pub(crate) struct Chunks<'a, T> {
    start: *mut T,
    len: usize,
    chunk: usize,
    count: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: through a shared `Chunks` only disjoint `&mut [T]` can be had (`Split::take`'s contract), as if the slice had
// been split before it was sent.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// `chunk` of 0 is read as 1.
    pub(crate) fn new(slice: &'a mut [T], chunk: usize) -> Self {
        let (len, chunk) = (slice.len(), chunk.max(1));
        Self { start: slice.as_mut_ptr(), len, chunk, count: len.div_ceil(chunk), slice: PhantomData }
    }

    /// With empty pieces behind them, any number of them.
    pub(crate) fn then_empty(self) -> Self {
        Self { count: usize::MAX, ..self }
    }
}

impl<'a, T: Send> Split for Chunks<'a, T> {
    type Piece = &'a mut [T];

    fn count(&self) -> usize {
        self.count
    }

    unsafe fn take(&self, i: usize) -> &'a mut [T] {
        let at = i.saturating_mul(self.chunk).min(self.len);
        let len = self.chunk.min(self.len - at);
        // SAFETY: [at, at + len) lies within the slice that `new` borrowed for 'a, and no other piece overlaps it; the
        // caller takes each piece once.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

/// Two that come apart together; pieces past the end of the shorter are not claimed.
impl<A: Split, B: Split> Split for (A, B) {
    type Piece = (A::Piece, B::Piece);

    fn count(&self) -> usize {
        self.0.count().min(self.1.count())
    }

    unsafe fn take(&self, i: usize) -> Self::Piece {
        // SAFETY: the caller's promise for the pair is the promise for both.
        unsafe { (self.0.take(i), self.1.take(i)) }
    }
}

/// One of two kinds of pieces.
pub(crate) enum Either<A, B> {
    Left(A),
    Right(B),
}

impl<A: Split, B: Split> Split for Either<A, B> {
    type Piece = Either<A::Piece, B::Piece>;

    fn count(&self) -> usize {
        match self {
            Self::Left(a) => a.count(),
            Self::Right(b) => b.count(),
        }
    }

    unsafe fn take(&self, i: usize) -> Self::Piece {
        match self {
            // SAFETY: the caller's promise is passed on.
            Self::Left(a) => Either::Left(unsafe { a.take(i) }),
            // SAFETY: as above.
            Self::Right(b) => Either::Right(unsafe { b.take(i) }),
        }
    }
}

/// Calls `work(worker's scratch, i, piece i)` for every piece of `pieces`, each once, spread over the executor's
/// threads; at most `workers.count()` work at a time. Returns when all are done.
pub(crate) fn for_each<W: Split, P: Split>(
    executor: &dyn Executor,
    workers: W,
    pieces: P,
    work: impl Fn(&mut W::Piece, usize, P::Piece) + Sync,
) -> Result<(), Error> {
    let count = pieces.count();
    let (next, slot, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let job = || {
        if next.load(Ordering::Relaxed) >= count {
            return;
        }
        let slot = slot.fetch_add(1, Ordering::Relaxed);
        if slot >= workers.count() {
            return;
        }
        // SAFETY: fetch_add gives each slot to one call, so each worker's scratch is taken once.
        let mut scratch = unsafe { workers.take(slot) };
        // Every thread has an environment of its own. `fpenv::exact` keeps arithmetic behind the change by a call out
        // of line; here the operands are read from memory, and no read is moved before the change.
        let _env = FpEnv::set();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            // SAFETY: fetch_add gives each index to one call, so each piece is taken once.
            work(&mut scratch, i, unsafe { pieces.take(i) });
            done.fetch_add(1, Ordering::Release);
        }
    };
    if count > 1 && workers.count() > 1 {
        executor.run(&job);
    }
    // Alone, or after an executor that called nothing.
    job();
    if done.load(Ordering::Acquire) == count { Ok(()) } else { Err(Error::Executor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;
    impl Executor for Never {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, _: &(dyn Fn() + Sync)) {}
    }

    struct TooOften;
    impl Executor for TooOften {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, job: &(dyn Fn() + Sync)) {
            std::thread::scope(|s| {
                for _ in 0..7 {
                    s.spawn(job);
                }
            });
        }
    }

    #[test]
    fn every_piece_is_worked_on_once_under_any_executor() {
        for executor in [&Sequential as &dyn Executor, &Never, &TooOften] {
            for len in [0, 1, 9, 10, 11, 1000] {
                let mut items = std::vec![0u32; len];
                let mut scratch = [0u8; 3];
                for_each(executor, Chunks::new(&mut scratch, 1), Chunks::new(&mut items, 10), |_, _, piece| {
                    piece.iter_mut().for_each(|x| *x += 1);
                })
                .unwrap();
                assert!(items.iter().all(|&x| x == 1), "{len}");
            }
        }
    }
}
