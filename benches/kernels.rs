//! Each kernel at the sizes of DeiT-Tiny: against scalar, beside the peak of its instruction, and timed by criterion.
//!
//!     cargo bench --features bench --bench kernels                   everything, about two minutes
//!     cargo bench --features bench --bench kernels -- linear_i8      names that contain `linear_i8`
//!
//! The table of peaks comes first in any case.
//!
//! Before anything is timed, every instruction set must leave the bits that scalar leaves.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use vitlet::Kernels;
use vitlet::bench::{self, Case};
use vitlet::peak::{Mac, Peak};

struct Kernel {
    name: &'static str,
    /// None where the kernel is no matrix product.
    mac: Option<Mac>,
    case: fn(Kernels) -> Case,
}

/// A block of 32 rows, as the network cuts its 197 tokens.
const ROWS: usize = 32;

const KERNELS: [Kernel; 13] = [
    Kernel { name: "linear_i8 32x192x576 (qkv)", mac: Some(Mac::Int8), case: |k| bench::linear_i8(k, ROWS, 192, 576) },
    Kernel { name: "linear_i8 32x192x768 (up)", mac: Some(Mac::Int8), case: |k| bench::linear_i8(k, ROWS, 192, 768) },
    Kernel { name: "linear_i8 32x768x192 (down)", mac: Some(Mac::Int8), case: |k| bench::linear_i8(k, ROWS, 768, 192) },
    Kernel {
        name: "linear_i8 32x384x1536 (small up)",
        mac: Some(Mac::Int8),
        case: |k| bench::linear_i8(k, ROWS, 384, 1536),
    },
    Kernel { name: "linear_i8 1x192x1000 (head)", mac: Some(Mac::Int8), case: |k| bench::linear_i8(k, 1, 192, 1000) },
    Kernel {
        name: "attention_i8 32 of 197, 3 heads",
        mac: Some(Mac::Int8),
        case: |k| bench::attention_i8(k, ROWS, 197, 3),
    },
    Kernel { name: "linear_f32 32x192x768", mac: Some(Mac::F32), case: |k| bench::linear_f32(k, ROWS, 192, 768) },
    Kernel { name: "linear_f16 32x192x768", mac: Some(Mac::F32), case: |k| bench::linear_f16(k, ROWS, 192, 768) },
    Kernel {
        name: "depthwise_f32 7x7, 14x14x160",
        mac: Some(Mac::F32),
        case: |k| bench::depthwise_f32(k, [14, 14, 160], 7),
    },
    Kernel {
        name: "depthwise_f32 7x7, 7x7x768",
        mac: Some(Mac::F32),
        case: |k| bench::depthwise_f32(k, [7, 7, 768], 7),
    },
    Kernel { name: "layer_norm_quantize 32x192", mac: None, case: |k| bench::layer_norm_quantize(k, ROWS, 192) },
    Kernel { name: "gelu 32x768", mac: None, case: |k| bench::gelu(k, ROWS, 768) },
    Kernel { name: "gelu_quantize 32x768", mac: None, case: |k| bench::gelu_quantize(k, ROWS, 768) },
];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    KERNELS.iter().for_each(assert_bits);
    shares();
    for kernel in &KERNELS {
        let mut group = criterion.benchmark_group(kernel.name);
        for kernels in Kernels::available() {
            let mut case = (kernel.case)(kernels);
            group.throughput(Throughput::Elements(case.work));
            group.bench_function(kernels.name(), |b| b.iter(|| case.run()));
        }
    }
    criterion.final_summary();
}

fn assert_bits(kernel: &Kernel) {
    let digest = |kernels| {
        let mut case = (kernel.case)(kernels);
        case.run();
        case.digest()
    };
    let expected = digest(Kernels::scalar());
    for kernels in Kernels::available() {
        assert_eq!(digest(kernels), expected, "{} on {} against scalar", kernel.name, kernels.name());
    }
}

/// The table of kernels beside peaks. Both are the best of many short turns, taken alternately.
fn shares() {
    println!("{:<34} {:<14} {:>9}   {:>9}  {:>5}", "kernel", "instructions", "GMAC/s", "peak", "share");
    for kernel in &KERNELS {
        for kernels in Kernels::available() {
            let Some(peak) = kernel.mac.and_then(|mac| Peak::of(kernels, mac)) else { continue };
            let mut case = (kernel.case)(kernels);
            let (mut best, mut most) = (0.0f64, 0.0f64);
            for _ in 0..200 {
                most = most.max(peak.measure(1));
                best = best.max(rate(|| {
                    (0..4).for_each(|_| case.run());
                    4 * case.work
                }));
            }
            let (name, isa, share) = (kernel.name, kernels.name(), 100.0 * best / most);
            println!("{name:<34} {isa:<14} {best:>9.1}   {most:>9.1}  {share:>4.0} %  of {}", peak.name);
        }
    }
    println!();
}

/// Work per nanosecond.
fn rate(run: impl FnOnce() -> u64) -> f64 {
    let start = Instant::now();
    let work = run();
    work as f64 / start.elapsed().as_nanos() as f64
}
