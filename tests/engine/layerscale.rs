//! LayerScale on a trained checkpoint, and on the same function with its gammas spread over five decades: folded into
//! the scales nothing is lost; folded into the weights per tensor or in f16 it is. tests/fixtures/spread_gammas.py does
//! the same to a checkpoint of any size, and docs/layerscale.md has the numbers for one of ImageNet.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use vitlet::{Kernels, Model, Precision, Sequential};
use vitlet_convert::{Mode, Options, WeightScale};

use crate::common::{convert, relative_error, run};

/// Uniform within [0, 1): the top bits of an LCG (Knuth, MMIX).
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }
}

/// gamma_j times 10^-U(0, 5).
fn over_five_decades(random: &mut Uniform, gamma: f32) -> f32 {
    gamma * 10f32.powf(-5.0 * random.next())
}

/// A number from -57 to 82.9, as the gammas of a trained ViT-5-S. Twelve uniform numbers add up to a nearly normal one.
fn as_in_a_trained_vit5(random: &mut Uniform, _: f32) -> f32 {
    let normal = (0..12).map(|_| random.next()).sum::<f32>() - 6.0;
    (32.5 * normal).clamp(-57.0, 82.9)
}

/// Every gamma becomes what `draw` gives for it. Row j of the matrix before it, and its bias, are divided by the factor
/// between the old gamma_j and the new one.
fn spread(from: &Path, to: &Path, draw: fn(&mut Uniform, f32) -> f32) {
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = view.data().as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32());
            (name, view.shape().to_vec(), values.collect())
        })
        .collect();
    let mut random = Uniform(7);
    let gammas: Vec<String> = tensors.iter().map(|t| t.0.clone()).filter(|name| name.ends_with(".gamma")).collect();
    assert!(!gammas.is_empty());
    for gamma in gammas {
        let last = gamma.replace("ls1.gamma", "attn.proj").replace("ls2.gamma", "mlp.fc2");
        let old = &tensors.iter().find(|t| t.0 == gamma).unwrap().2;
        let new: Vec<f32> = old.iter().map(|&g| draw(&mut random, g)).collect();
        let factors: Vec<f32> = new.iter().zip(old).map(|(new, old)| new / old).collect();
        let dim = new.len();
        for (name, _, values) in &mut tensors {
            let rows = values.len() / dim;
            if *name == gamma {
                values.copy_from_slice(&new);
            } else if *name == format!("{last}.weight") || *name == format!("{last}.bias") {
                values.iter_mut().enumerate().for_each(|(i, w)| *w /= factors[i / rows]);
            }
        }
    }
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, values)| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views =
        stored.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
}

/// Logits of four pictures of noise.
fn logits(source: &Path, precision: Precision, weight_scale: WeightScale, layerscale: Mode) -> Vec<f32> {
    let model = convert(source, &Options { precision, weight_scale, layerscale, ..Options::default() });
    let len = Model::parse(&model.bytes).unwrap().config().input_len();
    let mut random = Uniform(3);
    let input: Vec<f32> = (0..4 * len).map(|_| 4.0 * random.next() - 2.0).collect();
    run(&model.bytes, &input, Kernels::detect(), &Sequential, None)
}

#[test]
fn folding_into_the_scale_loses_nothing_where_folding_into_the_weights_does() {
    let trained = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cifar10-vit-layerscale");
    let folder = tempfile::tempdir().unwrap();
    spread(&trained, folder.path(), over_five_decades);
    let (channel, tensor) = (WeightScale::PerChannel, WeightScale::PerTensor);
    let exact = logits(&trained, Precision::F32, channel, Mode::Keep);
    let error = |source: &Path, precision, weight_scale, mode: Mode| {
        let error = relative_error(&logits(source, precision, weight_scale, mode), &exact);
        println!("{precision:?} {weight_scale:?} {mode:?}: {error:.1e}");
        error
    };

    let same = error(folder.path(), Precision::F32, channel, Mode::Keep);
    assert!(same < 1e-4, "not the same function: {same:.1e}");
    for source in [trained.as_path(), folder.path()] {
        // Every mode keeps int8 per channel, since each row has its own scale wherever gamma is.
        for mode in [Mode::Fold, Mode::FoldWeights, Mode::Keep, Mode::KeepPass] {
            let error = error(source, Precision::Int8, channel, mode);
            assert!(error < 0.05, "{mode:?}: {error}");
        }
        for mode in [Mode::Fold, Mode::Keep, Mode::KeepPass] {
            let error = error(source, Precision::F16, channel, mode);
            assert!(error < 5e-3, "{mode:?}: {error}");
        }
    }
    let fold = error(folder.path(), Precision::Int8, channel, Mode::Fold);
    for mode in [Mode::Fold, Mode::Keep] {
        let damaged = error(folder.path(), Precision::Int8, tensor, mode);
        assert!(damaged > 10.0 * fold, "per tensor, {mode:?}: {damaged}, per channel {fold}");
    }
}

/// Both networks are one function, so their int8 models are as good as one: codes differ at ties alone, scales by a
/// rounding. With one scale per tensor, the rows of small gammas leave no codes to the others.
#[test]
fn gammas_as_extreme_as_in_a_trained_vit5_cost_nothing() {
    let trained = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cifar10-vit-layerscale");
    let folder = tempfile::tempdir().unwrap();
    spread(&trained, folder.path(), as_in_a_trained_vit5);
    let (int8, channel, tensor) = (Precision::Int8, WeightScale::PerChannel, WeightScale::PerTensor);
    let plain = logits(&trained, int8, channel, Mode::Fold);
    for mode in [Mode::Fold, Mode::Keep, Mode::KeepPass] {
        let error = relative_error(&logits(folder.path(), int8, channel, mode), &plain);
        println!("{mode:?}: {error:.1e}");
        assert!(error < 0.02, "{mode:?}: {error}");
    }
    let damaged = relative_error(&logits(folder.path(), int8, tensor, Mode::Fold), &plain);
    println!("per tensor: {damaged:.1e}");
    assert!(damaged > 0.2, "per tensor: {damaged}");
}

/// gamma of 1e-6 of its size before is what a deep network starts with: in f16 weights nothing is left of it.
#[test]
fn f16_scales_hold_what_f16_weights_lose() {
    use vitlet_convert::diagonal::scale_rows;
    use vitlet_convert::network::Linear;
    use vitlet_convert::quantize::{damage, fold_into_scale, quantize_f16, quantize_f16_unscaled};

    let mut random = Uniform(5);
    let (n, k) = (48, 96);
    let weight = (0..n * k).map(|_| 0.08 * random.next() - 0.04).collect();
    let linear = Linear { n, k, weight, bias: vec![0.0; n] };
    let gamma = vec![1e-6; n];
    let mut folded = quantize_f16(&linear);
    fold_into_scale(&mut folded, &gamma);
    let kept = damage(&folded, &linear, Some(&gamma));
    assert!(kept.f16_underflows == 0 && kept.sqnr_db > 60.0, "{kept:?}");

    let mut scaled = linear;
    scale_rows(&mut scaled, &gamma);
    let lost = damage(&quantize_f16_unscaled(&scaled).unwrap(), &scaled, None);
    assert!(lost.f16_underflows > n * k / 2 && lost.sqnr_db < 10.0, "{lost:?}");
}
