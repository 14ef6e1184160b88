//! Fork and join: vitlet's pool beside rayon's, on bare joins and in whole inferences of the built-in model.
//!
//!     cargo bench --bench threads
//!
//! An inference joins its threads two or three times a block. Rayon is used as it is fastest: everything runs inside
//! `install`, so that the caller is one of the pool's threads, and a fork is `rayon::scope`. Both are taken in turn, so
//! that what else the machine does hits both; the table shows medians. Every executor must give the same logits.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use vitlet::{Executor, Kernels, Model, Plan, RunConfig, Scratch, ThreadPool};

const THREADS: usize = 2;
/// About as many as an inference of a deep network has.
const JOINS: usize = 100;
const ROUNDS: usize = 300;

/// Must be used inside `install` of a pool of [`THREADS`].
struct Rayon;

impl Executor for Rayon {
    fn threads(&self) -> usize {
        THREADS
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        rayon::scope(|scope| {
            for _ in 1..THREADS {
                scope.spawn(|_| job());
            }
            job();
        });
    }
}

fn main() {
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().expect("threads can be started");
    rayon.install(compare);
}

fn compare() {
    let ours = ThreadPool::new(THREADS).expect("threads can be started");
    println!("{:<34} {:>12} {:>12}  {:>6}", "median, microseconds", "vitlet", "rayon", "ratio");
    row(&format!("{JOINS} joins"), [&mut || joins(&ours), &mut || joins(&Rayon)]);
    let (mut with_ours, mut with_rayon) = (inference(&ours), inference(&Rayon));
    assert_eq!(with_ours(), with_rayon(), "logits, bit for bit");
    row(
        "an inference of the built-in model",
        [&mut || _ = black_box(with_ours()), &mut || _ = black_box(with_rayon())],
    );
    println!();

    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    let mut group = criterion.benchmark_group(format!("{JOINS} joins"));
    group.bench_function("vitlet", |b| b.iter(|| joins(&ours)));
    group.bench_function("rayon", |b| b.iter(|| joins(&Rayon)));
    group.finish();
    criterion.final_summary();
}

/// Joins with next to nothing between them: each thread claims pieces until none is left, as the engine's do.
fn joins(executor: &dyn Executor) {
    for _ in 0..JOINS {
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        executor.run(&|| {
            while next.fetch_add(1, Ordering::Relaxed) < 8 {
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(done.into_inner(), 8);
    }
}

/// One inference a call; returns the logits' digest.
fn inference(executor: &dyn Executor) -> impl FnMut() -> u64 + '_ {
    let model: &'static Model<'static> =
        Box::leak(Box::new(Model::parse(vitlet_models::MODEL).expect("the model is valid")));
    let run = RunConfig::new(Kernels::detect()).max_picture(1, 1);
    let plan = Box::leak(Box::new(Plan::new(model, &run, executor.threads()).expect("the run is valid")));
    let scratch = Box::leak(Box::new(Scratch::new(plan.scratch_bytes()).expect("there is memory for a session")));
    let mut session = plan.open(model, executor, scratch).expect("the scratch is enough");
    let input: Vec<f32> = (0..model.config().input_len()).map(|i| (i * 7919 % 1000) as f32 / 250.0 - 2.0).collect();
    move || vitlet::digest(session.run_tensor(&input).expect("the network runs").first())
}

/// Runs both in turn and prints their medians.
fn row(name: &str, mut contestants: [&mut dyn FnMut(); 2]) {
    let mut times = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (run, times) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let [ours, rayon] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    println!("{name:<34} {ours:>12.1} {rayon:>12.1}  {:>6.2}", ours / rayon);
}
