//! No tensor of a checkpoint goes unnoticed: changing any one of them moves the logits by at least a hundred
//! tolerances.

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use vitlet::{Kernels, Precision, Sequential};
use vitlet_convert::Options;

use crate::common::{checkpoints, convert, npy, relative_error, run};

/// 100 times the 2e-5 to which f32 agrees with PyTorch.
pub const LEAST: f64 = 2e-3;

/// Biases of the keys (and of CaiT's mixing of scores) add the same number to all scores of a query and cancel in the
/// softmax; `mask_token` is for pretraining. `num_batches_tracked` is BatchNorm's count. ViT-5's frequencies are equal
/// in all blocks, or the checkpoint is refused.
const CANNOT: [&str; 7] =
    ["key.bias", "attn.k.bias", "k_norm.bias", "proj_l.bias", "mask_token", "num_batches_tracked", ".freqs"];

/// A unit that Depth Anything's checkpoints have and its network does not use, in both forms.
const UNUSED: [&str; 2] =
    ["neck.fusion_stage.layers.0.residual_layer1.", "depth_head.scratch.refinenet4.resConfUnit1."];

#[test]
fn every_tensor_moves_the_logits() {
    let options = Options { precision: Precision::F32, ..Options::default() };
    let outputs = |source: &Path, inputs: &[f32]| {
        let model = convert(source, &options);
        run(&model.bytes, inputs, Kernels::detect(), &Sequential, None)
    };
    let mut checked = 0;
    for source in checkpoints() {
        let (_, inputs) = npy(&source.join("input.npy"));
        let expected = outputs(&source, &inputs);
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sensitivity").join(source.file_name().unwrap());
        std::fs::create_dir_all(&copy).unwrap();
        for json in ["config.json", "preprocessor_config.json"] {
            if source.join(json).exists() {
                std::fs::copy(source.join(json), copy.join(json)).unwrap();
            }
        }
        let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for changed in tensors.names() {
            if UNUSED.iter().any(|start| changed.starts_with(start)) || CANNOT.iter().any(|end| changed.ends_with(end))
            {
                continue;
            }
            let values: Vec<_> = tensors
                .iter()
                .map(|(name, tensor)| {
                    let mut values = floats(&tensor);
                    if name == changed {
                        disturb(&mut values);
                    }
                    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                    (name, tensor.shape().to_vec(), bytes)
                })
                .collect();
            let views = values
                .iter()
                .map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
            safetensors::serialize_to_file(views, None, &copy.join("model.safetensors")).unwrap();
            let moved = relative_error(&outputs(&copy, &inputs), &expected);
            assert!(moved >= LEAST, "{}: {changed} moves the logits by {moved:.1e} only", source.display());
            checked += 1;
        }
    }
    assert!(checked > 700, "{checked} tensors");
}

fn floats(tensor: &TensorView<'_>) -> Vec<f32> {
    let halves = || tensor.data().as_chunks::<2>().0.iter();
    match tensor.dtype() {
        Dtype::F32 => tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::I64 => tensor.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        other => panic!("a fixture of type {other:?}"),
    }
}

/// Adds or subtracts a tenth of the root mean square, in no regular order.
pub fn disturb(values: &mut [f32]) {
    let rms = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
    let mut state = 1_u32;
    for x in values {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *x += if state >> 31 == 0 { 0.1 * rms } else { -0.1 * rms };
    }
}
