//! Whole networks: every instruction set of this CPU, one thread and two, on the built-in model.
//!
//!     cargo bench --bench model
//!     VITLET_MODEL=model.gguf cargo bench --bench model            another model file
//!
//! Before anything is timed, every combination must give the logits of scalar on one thread: to the bit, except for
//! f16.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use vitlet::{Kernels, Model, Plan, Precision, RunConfig, Scratch, ThreadPool};

const THREADS: [usize; 2] = [1, 2];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    match std::env::var_os("VITLET_MODEL") {
        None => bench(&mut criterion, "built-in", vitlet_models::MODEL),
        Some(path) => {
            let bytes = std::fs::read(&path).expect("VITLET_MODEL names a model file");
            let aligned = Scratch::copied(&bytes).expect("there is memory for the model");
            bench(&mut criterion, &path.to_string_lossy(), &aligned);
        }
    }
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, name: &str, bytes: &[u8]) {
    let model = Model::parse(bytes).expect("the model file is valid");
    let input: Vec<f32> = (0..model.config().input_len()).map(|i| (i * 7919 % 1000) as f32 / 250.0 - 2.0).collect();
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    let mut expected: Option<Vec<f32>> = None;
    for kernels in Kernels::available() {
        for threads in THREADS {
            let pool = ThreadPool::new(threads).expect("threads can be started");
            let run = RunConfig::new(kernels).max_picture(1, 1);
            let plan = Plan::new(&model, &run, threads).expect("the run is valid");
            let mut scratch = Scratch::new(plan.scratch_bytes()).expect("there is memory for a session");
            let mut session = plan.open(&model, &pool, &mut scratch).expect("the scratch is enough");
            let logits = session.run_tensor(&input).expect("the network runs").first();
            let expected = expected.get_or_insert_with(|| logits.to_vec());
            assert_alike(logits, expected, model.config().precision);
            let id = format!("{}, {threads} thread{}", kernels.name(), if threads == 1 { "" } else { "s" });
            group.bench_function(id, |b| b.iter(|| session.run_tensor(&input).map(|results| results.first().len())));
        }
    }
}

fn assert_alike(logits: &[f32], expected: &[f32], precision: Precision) {
    if precision != Precision::F16 {
        return assert_eq!(
            vitlet::digest(logits),
            vitlet::digest(expected),
            "int8 and f32 are the same bits everywhere"
        );
    }
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
    let error = squares(&mut logits.iter().zip(expected).map(|(a, b)| a - b)) / squares(&mut expected.iter().copied());
    assert!(error.sqrt() < 0.01, "f16: relative error {}", error.sqrt());
}
