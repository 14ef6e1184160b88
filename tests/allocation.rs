//! A run allocates nothing: counted by the allocator, on every thread of the pool.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use vitlet::{Executor, Kernels, Model, Picture, Plan, Precision, RunConfig, Scratch, ThreadPool};
use vitlet_convert::Options;

struct Counting;
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread's allocations count. The test harness has threads of its own, which allocate when they like.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// Counts on every thread of the pool from now on. All of them have started by then: starting allocates.
fn count_on(pool: &ThreadPool) {
    let inside = AtomicUsize::new(0);
    pool.run(&|| {
        COUNTED.set(true);
        inside.fetch_add(1, Ordering::Relaxed);
        while inside.load(Ordering::Relaxed) < pool.threads() {
            std::thread::yield_now();
        }
    });
}

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(COUNTED.get().into(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn parsing_and_running_allocate_nothing() {
    let pool = ThreadPool::new(2).unwrap();
    count_on(&pool);
    let pixels = vec![77; 3 * 90 * 70];
    for precision in [Precision::Int8, Precision::F16, Precision::F32] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/timm_deit3");
        let options = Options { precision, ..Options::default() };
        let bytes = vitlet_convert::convert(&source, &options, &mut |_| {}).unwrap().bytes;
        let run = RunConfig::new(Kernels::detect()).max_picture(90, 70);
        let need = Plan::new(&Model::parse(&bytes).unwrap(), &run, 2).unwrap().scratch_bytes();
        let mut scratch = Scratch::new(need).unwrap();
        let picture = Picture::rgb8(&pixels, 90, 70, 270);

        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let model = Model::parse(&bytes).unwrap();
        let plan = Plan::new(&model, &run, 2).unwrap();
        let mut session = plan.open(&model, &pool, &mut scratch).unwrap();
        for _ in 0..3 {
            let results = session.run_picture(&picture).unwrap();
            assert!(results.first().iter().all(|x| x.is_finite()));
        }
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{precision:?}");
    }
}
