//! Every fixture checkpoint against PyTorch's f32 outputs on the same input tensors.

use crate::common::{checkpoint, checkpoints, convert, npy, relative_error, run};
use vitlet::{Kernels, Model, Output, Precision, Sequential};
use vitlet_convert::{Mode, Options};

const MODES: [Mode; 4] = [Mode::Fold, Mode::FoldWeights, Mode::Keep, Mode::KeepPass];

/// The relative error of every checkpoint and mode at one precision is at most `limit` of its name.
fn check_each(base: &Options, kernels: Kernels, limit: impl Fn(&str) -> f64) {
    let mut larger = Vec::new();
    for source in checkpoints() {
        let (_, inputs) = npy(&source.join("input.npy"));
        for (file, output) in [
            ("logits.npy", Output::Logits),
            ("features.npy", Output::Features),
            ("tokens.npy", Output::Tokens),
            ("depth.npy", Output::Depth),
        ] {
            let path = source.join(file);
            if !path.exists() {
                continue;
            }
            let (_, expected) = npy(&path);
            for layerscale in MODES {
                let model = convert(&source, &Options { layerscale, ..base.clone() });
                let got = run(&model.bytes, &inputs, kernels, &Sequential, output);
                let error = relative_error(&got, &expected);
                let name = source.file_name().unwrap().to_str().unwrap();
                println!("{name} {file} {layerscale:?}: {error:.2e}");
                if error.is_nan() || error > limit(name) {
                    larger.push(format!("{name} {file} {layerscale:?}: {error:.2e}"));
                }
                if Model::parse(&model.bytes).unwrap().config().layerscale == vitlet::LayerScale::None {
                    break;
                }
            }
        }
    }
    assert!(larger.is_empty(), "too far from PyTorch:\n{}", larger.join("\n"));
}

/// The relative error of every checkpoint and mode at one precision is at most `most`.
fn check(base: &Options, kernels: Kernels, most: f64) {
    check_each(base, kernels, |_| most);
}

fn of(precision: Precision) -> Options {
    Options { precision, ..Options::default() }
}

#[test]
fn f32_agrees_to_2e_5() {
    check(&of(Precision::F32), Kernels::detect(), 2e-5);
}

/// LayerNorm's affine part in the matrix after it is the same function.
#[test]
fn f32_with_folded_norms_agrees_to_2e_5() {
    check(&Options { fold_norm: true, ..of(Precision::F32) }, Kernels::detect(), 2e-5);
}

/// Position embeddings and tables resampled, rotations remade, as upstream does it for pictures of another size.
#[test]
fn f32_agrees_at_another_size() {
    let sizes = [
        ("timm_vit", (48, 40)),
        ("timm_beit", (48, 40)),
        ("timm_dinov3", (24, 40)),
        ("timm_convnext", (64, 32)),
        ("timm_xcit", (96, 48)),
        ("vit5", (48, 48)),
        ("vit5", (24, 40)),
    ];
    for (name, image_size) in sizes {
        let (source, suffix) = (checkpoint(name), format!("_{}x{}.npy", image_size.0, image_size.1));
        let options = Options { precision: Precision::F32, image_size: Some(image_size), ..Options::default() };
        let model = convert(&source, &options);
        let (_, inputs) = npy(&source.join(format!("input{suffix}")));
        let (_, expected) = npy(&source.join(format!("logits{suffix}")));
        let got = run(&model.bytes, &inputs, Kernels::detect(), &Sequential, Output::Logits);
        let error = relative_error(&got, &expected);
        assert!(error <= 2e-5, "{name}: {error:.2e}");
    }
}

/// Exports of a network whose checkpoint no importer takes: the operator RMSNormalization, and its arithmetic.
#[test]
fn f32_agrees_where_a_graph_has_rms_norms() {
    let folder = checkpoint("../onnx/rms_norm");
    let (_, inputs) = npy(&folder.join("input.npy"));
    let (_, expected) = npy(&folder.join("logits.npy"));
    for form in ["dynamo18_dynamic", "dynamo20", "dynamo23", "dynamo23_f16", "dynamo24_dynamic"] {
        for layerscale in MODES {
            let options = Options { layerscale, ..of(Precision::F32) };
            let model = convert(&folder.join(format!("{form}.onnx")), &options);
            let got = run(&model.bytes, &inputs, Kernels::detect(), &Sequential, Output::Logits);
            let error = relative_error(&got, &expected);
            assert!(error <= 2e-5, "{form} {layerscale:?}: {error:.2e}");
        }
    }
}

#[test]
fn f16_widened_agrees_to_2e_3() {
    assert!(!Kernels::baseline().computes_f16());
    check(&of(Precision::F16), Kernels::baseline(), 2e-3);
}

/// Sums of 64 products in f16 round to 11 bits. Networks without LayerNorm (ActNorm, Fixup) and XCiT's random
/// convolutions on small patches cancel more of their sums than others: the limits are docs/numerics.md's.
#[test]
fn f16_agrees_within_its_limits_where_the_cpu_computes_in_it() {
    let kernels = Kernels::detect();
    if kernels.computes_f16() {
        check_each(&of(Precision::F16), kernels, |name| match name {
            "timm_act_norm" | "timm_fixup" | "timm_xcit_p8" => 1e-2,
            _ => 5e-3,
        });
    }
}

#[test]
fn int8_stays_near() {
    // Random networks of a few dozen channels are far harsher on 8 bits than trained ones: a guard against wrong
    // wiring.
    check(&of(Precision::Int8), Kernels::detect(), 0.25);
}
