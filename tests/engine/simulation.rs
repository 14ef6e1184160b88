//! A whole network against the simulation of docs/numerics.md in PyTorch (tests/fixtures/simulate.py): every place that LayerScale
//! can have, both kinds of weight scales, every instruction set, the same bits.

use std::path::Path;

use safetensors::SafeTensors;
use vitlet::{Kernels, Named, Output, Precision, Sequential};
use vitlet_convert::{Mode, Options, WeightScale};

use crate::common::{checkpoint, convert, npy, run};

#[test]
fn logits_are_those_of_the_simulation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/numerics/network.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let vectors = SafeTensors::deserialize(&bytes).unwrap();
    let source = checkpoint("timm_deit3");
    let (_, inputs) = npy(&source.join("input.npy"));
    for layerscale in [Mode::Fold, Mode::FoldWeights, Mode::Keep, Mode::KeepPass] {
        for &(weight_scale, scale) in WeightScale::NAMES {
            let name = format!("logits.{}.{scale}", vitlet::LayerScale::from(layerscale).name());
            let expected: Vec<_> = vectors.tensor(&name).unwrap().data().as_chunks().0.to_vec();
            let options = Options { precision: Precision::Int8, layerscale, weight_scale, ..Options::default() };
            let model = convert(&source, &options);
            for kernels in Kernels::available() {
                let got = run(&model.bytes, &inputs, kernels, &Sequential, 1, Output::Logits);
                let got: Vec<_> = got.iter().map(|y| y.to_le_bytes()).collect();
                assert_eq!(got, expected, "{name} {}", kernels.name());
            }
        }
    }
}
