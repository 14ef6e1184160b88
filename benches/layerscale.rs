//! LayerScale in the kernels alone: the end of a residual branch with gamma folded away, multiplied in the epilogue, or
//! in a separate pass, for the widths of DeiT-Tiny, Small and Base and all of their 197 tokens, in the blocks of 48
//! that the network takes.
//!
//!     cargo bench --features bench --bench layerscale
//!
//! Before anything is timed, the three must leave the same bits as each other and as scalar: gamma is a power of two
//! here. To run one of them N times, on another machine or counted for an ARM core as docs/notes/performance.md
//! describes:
//!
//!     cargo bench --features bench --bench layerscale -- --count KIND WIDTH N

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use vitlet::Kernels;
use vitlet::bench::{Case, Gamma, residual_i8};

const KINDS: [(&str, Gamma); 3] = [("fold", Gamma::Folded), ("keep", Gamma::Fused), ("keep-pass", Gamma::Pass)];
const WIDTHS: [usize; 3] = [192, 384, 768];

/// 197 tokens as the network cuts them.
struct Tokens([Case; 2]);

impl Tokens {
    /// The MLP's second layer: `4 width` inputs.
    fn new(kernels: Kernels, width: usize, gamma: Gamma) -> Self {
        Self([48, 5].map(|rows| residual_i8(kernels, [rows, 4 * width, width], gamma)))
    }

    fn run(&mut self) {
        let [block, rest] = &mut self.0;
        (0..4).for_each(|_| block.run());
        rest.run();
    }

    fn digests(&mut self) -> [u64; 2] {
        self.run();
        [self.0[0].digest(), self.0[1].digest()]
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--count") {
        return count(&arguments[at + 1..]);
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for width in WIDTHS {
        let expected = Tokens::new(Kernels::scalar(), width, Gamma::Folded).digests();
        for kernels in Kernels::available() {
            let mut group = criterion.benchmark_group(format!("197 x {} x {width}, {}", 4 * width, kernels.name()));
            group.throughput(Throughput::Elements(197 * 4 * (width * width) as u64));
            for (name, gamma) in KINDS {
                let mut tokens = Tokens::new(kernels, width, gamma);
                assert_eq!(tokens.digests(), expected, "{name}, width {width}, {}", kernels.name());
                group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(|| tokens.run()));
            }
        }
    }
    criterion.final_summary();
}

/// One kind alone, for a counter of instructions: `KIND WIDTH N`.
fn count(arguments: &[String]) {
    let [kind, width, runs] = arguments else { panic!("--count KIND WIDTH N") };
    let (_, gamma) = KINDS.iter().find(|(name, _)| name == kind).expect("fold, keep or keep-pass");
    let mut tokens = Tokens::new(Kernels::detect(), width.parse().expect("a width"), *gamma);
    (0..runs.parse::<usize>().expect("a number of runs")).for_each(|_| tokens.run());
}
