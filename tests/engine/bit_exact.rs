//! int8 and f32 outputs are the same bits from every instruction set and at any number of threads.

use crate::common::{checkpoints, convert, npy, run};
use vitlet::{Executor, Kernels, Precision, Sequential, ThreadPool, digest};
use vitlet_convert::Options;

#[test]
fn every_kernel_and_thread_count_gives_the_same_bits() {
    let pools: Vec<_> = [2, 3].into_iter().map(|threads| ThreadPool::new(threads).unwrap()).collect();
    for source in checkpoints() {
        let (_, inputs) = npy(&source.join("input.npy"));
        for precision in [Precision::Int8, Precision::F32] {
            let model = convert(&source, &Options { precision, ..Options::default() });
            let expected = digest(&run(&model.bytes, &inputs, Kernels::scalar(), &Sequential, None));
            for kernels in Kernels::available() {
                let executors = [&Sequential as &dyn Executor, &pools[0], &pools[1]];
                for executor in executors {
                    let got = digest(&run(&model.bytes, &inputs, kernels, executor, None));
                    assert_eq!(got, expected, "{} {precision:?} {kernels:?} {}", source.display(), executor.threads());
                }
            }
        }
    }
}

/// The test scripts say which kernels a machine or an emulated core must have (`VITLET_EXPECTED_KERNELS`), so that none
/// is left untested in silence.
#[test]
fn the_expected_kernels_are_here() {
    let Ok(expected) = std::env::var("VITLET_EXPECTED_KERNELS") else { return };
    let here: Vec<_> = Kernels::available().map(Kernels::name).collect();
    assert!(expected.is_empty() || here.join(",") == expected, "expected {expected}, found {}", here.join(","));
}
