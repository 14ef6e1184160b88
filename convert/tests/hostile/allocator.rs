//! Memory, counted on each thread: other tests that run at the same time do not count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes in use, and the most so far.
    static MEMORY: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct Counting;

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MEMORY.with(|memory| {
            let (used, most) = memory.get();
            let used = used.saturating_add(layout.size());
            memory.set((used, most.max(used)));
        });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        MEMORY.with(|memory| {
            let (used, most) = memory.get();
            memory.set((used.saturating_sub(layout.size()), most));
        });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most memory that `work` has in use at once.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = MEMORY.with(|memory| {
        let (used, _) = memory.get();
        memory.set((used, used));
        used
    });
    let result = work();
    (result, MEMORY.with(Cell::get).1 - before)
}
