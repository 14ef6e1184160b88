//! A run allocates nothing: counted by the allocator, on all threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use vitlet::{F32x16, Kernels, Model, Output, Picture, Precision, RunConfig, Session, ThreadPool};
use vitlet_convert::Options;

struct Counting;
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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
    let pixels = vec![77; 3 * 90 * 70];
    for precision in [Precision::Int8, Precision::F16, Precision::F32] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/timm_deit3");
        let options = Options { precision, ..Options::default() };
        let bytes = vitlet_convert::convert(&source, &options, &mut |_| {}).unwrap().bytes;
        let run =
            RunConfig { kernels: Kernels::detect(), executor: &pool, max_picture: (90, 70), output: Output::Logits };
        let need = Model::parse(&bytes).unwrap().scratch_bytes(&run).unwrap();
        let mut scratch = vec![F32x16([0.0; 16]); need.div_ceil(64)];
        let picture = Picture::rgb8(&pixels, 90, 70, 270);

        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let model = Model::parse(&bytes).unwrap();
        let mut session = Session::new(&model, &run, vitlet::scratch_from(&mut scratch)).unwrap();
        for _ in 0..3 {
            let logits = session.run_picture(&picture).unwrap();
            assert!(logits.iter().all(|x| x.is_finite()));
        }
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{precision:?}");
    }
}
