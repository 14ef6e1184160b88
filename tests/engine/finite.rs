//! What is not finite shows: NaN and infinity reach the outputs, also where activations are quantized or rounded.

use vitlet::{Kernels, Model, Precision, Sequential};
use vitlet_convert::Options;

use crate::common::{checkpoints, convert, npy, run};

#[test]
fn one_pixel_that_is_not_finite_shows_in_every_network() {
    for source in checkpoints() {
        let (_, inputs) = npy(&source.join("input.npy"));
        for precision in [Precision::Int8, Precision::F16, Precision::F32] {
            let model = convert(&source, &Options { precision, ..Options::default() });
            let len = Model::parse(&model.bytes).unwrap().config().input_len();
            let outputs = |input: &[f32], kernels| run(&model.bytes, input, kernels, &Sequential, None);
            for kernels in [Kernels::baseline(), Kernels::detect()] {
                let name = format!("{} {precision:?} {}", source.display(), kernels.name());
                assert!(outputs(&inputs[..len], kernels).iter().all(|x| x.is_finite()), "{name}");
                for (bad, at) in [(f32::NAN, 0), (f32::INFINITY, len / 2), (f32::NEG_INFINITY, len - 1)] {
                    let mut input = inputs[..len].to_vec();
                    input[at] = bad;
                    assert!(outputs(&input, kernels).iter().all(|x| !x.is_finite()), "{name}: {bad} at {at}");
                }
            }
        }
    }
}
