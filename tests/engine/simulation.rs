//! A whole network against the simulation of docs/numerics.md in PyTorch (tests/fixtures/simulate.py): every place that
//! LayerScale can have, both kinds of weight scales, every instruction set, the same bits.

use std::path::Path;

use safetensors::SafeTensors;
use vitlet::{Kernels, Named, Precision, Sequential};
use vitlet_convert::{Mode, Options, WeightScale};

use crate::common::{checkpoint, checkpoints, convert, npy, relative_error, run};

/// The families beside the plain ViT against their simulation (tests/fixtures/families.py), from every instruction set.
#[test]
fn families_are_those_of_the_simulation() {
    let mut compared = 0;
    for source in checkpoints().iter().filter(|source| source.join("int8.npy").exists()) {
        let (_, inputs) = npy(&source.join("input.npy"));
        let (_, exact) = npy(&source.join("logits.npy"));
        let (_, expected) = npy(&source.join("int8.npy"));
        let model = convert(source, &Options::default());
        for kernels in Kernels::available() {
            let got = run(&model.bytes, &inputs, kernels, &Sequential, None);
            let (difference, error) = (relative_error(&got, &expected), relative_error(&expected, &exact));
            println!(
                "{} {}: {difference:.1e} from the simulation, whose error is {error:.1e}",
                source.display(),
                kernels.name()
            );
            assert!(difference <= 1e-6, "{} {}: {difference:.1e}", source.display(), kernels.name());
            compared += 1;
        }
    }
    assert!(compared >= 4, "{compared} networks");
}

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
                let got = run(&model.bytes, &inputs, kernels, &Sequential, None);
                let got: Vec<_> = got.iter().map(|y| y.to_le_bytes()).collect();
                assert_eq!(got, expected, "{name} {}", kernels.name());
            }
        }
    }
}
