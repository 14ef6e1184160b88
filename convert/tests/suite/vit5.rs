//! ViT-5: a state dict alone says everything, and what does not fit is refused.

use crate::common::{announced, convert_ok, copy, fixture, floats, refused, root, save, tensors};
use vitlet::picture::Resize;
use vitlet::{Model, Named, Positions, Resampling};
use vitlet_convert::{Converted, Options};

fn named(arch: &str) -> Options {
    Options { arch: Some(arch.to_owned()), ..Options::default() }
}

/// The sines of a model file's rotations.
fn angles(converted: &Converted) -> Vec<f32> {
    let mut sines = Vec::new();
    Model::parse(&converted.bytes).expect("a model").for_each_tensor(|spec, bytes| {
        if spec.name.as_str() == "rope_sin" {
            sines.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
        }
    });
    sines
}

#[test]
fn the_tensors_say_everything() {
    let converted = convert_ok(&fixture("vit5"), &Options::default());
    announced(
        &converted,
        "a ViT-5, as its tensors say: 3 blocks, 36 wide, 3 heads, patch 8, 32x32 pixels, places 0 to 3",
    );
    let model = Model::parse(&converted.bytes).expect("a model");
    let c = model.config();
    assert_eq!((c.family.name(), c.head_dim(), c.hidden, c.prefix_tokens(), c.classes), ("vit5", 12, 108, 5, 7));
    assert_eq!((c.norm_eps, c.positions), (1e-6, Positions::Resampled { rule: Resampling::Bicubic, grid: None }));
    assert_eq!((model.rope().next(), model.rope().len()), (Some(1.0), 3));
    assert_eq!((model.preprocess().resize, model.name()), (Resize::ShorterEdge(32), Some("vit5")));
}

#[test]
fn a_file_of_the_trainers_gives_the_bytes_of_safetensors() {
    let whole = convert_ok(&fixture("vit5"), &Options::default());
    let pth = convert_ok(&root().join("tests/fixtures/torch/vit5.pth"), &Options::default());
    assert!(pth.bytes[..] == whole.bytes[..]);
}

#[test]
fn another_size_has_positions_of_its_own() {
    let options = Options { image_size: Some((24, 40)), ..Options::default() };
    let converted = convert_ok(&fixture("vit5"), &options);
    announced(&converted, "position embedding resampled from 4x4 patches to 3x5");
    let model = Model::parse(&converted.bytes).expect("a model");
    assert_eq!((model.config().grid(), model.config().rotated_tokens()), ((3, 5), 4 + 15));
    assert_eq!((model.config().positions, model.rope().len()), (Positions::Fixed, 0));
    let options = Options { image_size: Some((24, 41)), ..Options::default() };
    refused(&fixture("vit5"), &options, &["not a multiple of the 8x8 patch", "24x40"]);
}

#[test]
fn names_of_architectures_are_compared_with_the_weights() {
    refused(&fixture("vit5"), &named("vit5_small"), &["12 blocks, 384 wide", "3 blocks, 36 wide"]);
    refused(&fixture("vit5"), &named("vit5_huge"), &["vit5_small, vit5_base, vit5_large, vit5_xlarge"]);
    refused(&fixture("vit5"), &named("deit3_small_patch16_224"), &["the weights are those of a ViT-5"]);
    refused(&root().join("tests/fixtures/onnx/vit"), &named("vit5_small"), &["reg_token", "ViT-5"]);
    let options = Options { num_classes: Some(8), ..named("vit5_small") };
    assert!(vitlet_convert::convert(&fixture("vit5"), &options, &mut |_| {}).is_err());
}

/// Only the shapes that decide are those of the authors' smallest network: `--arch` is compared before all is read.
#[test]
fn the_authors_sizes_have_the_authors_names() {
    let scratch = copy("vit5");
    let mut all = tensors(&scratch.dir);
    for i in 3..12 {
        all.insert(format!("blocks.{i}.gamma_1"), all["blocks.0.gamma_1"].clone());
    }
    let patch = all.get_mut("patch_embed.proj.weight").expect("there");
    (patch.1, patch.2) = (vec![384, 3, 8, 8], vec![0; 4 * 384 * 3 * 8 * 8]);
    save(&all, &scratch.file("model.safetensors"));
    refused(&scratch.dir, &named("vit5_base"), &["12 blocks, 768 wide", "12 blocks, 384 wide", "as vit5_small has"]);
    refused(&scratch.dir, &named("vit5_small"), &["patch_embed.proj.bias", "ViT-5 asks for [384]"]);
}

#[test]
fn frequencies_are_those_of_the_checkpoint_and_the_same_in_all_blocks() {
    let scratch = copy("vit5");
    let whole = convert_ok(&scratch.dir, &Options::default());
    let mut all = tensors(&scratch.dir);
    let without: crate::common::Tensors =
        all.iter().filter(|(name, _)| !name.ends_with(".freqs")).map(|(name, t)| (name.clone(), t.clone())).collect();
    save(&without, &scratch.file("model.safetensors"));
    let computed = convert_ok(&scratch.dir, &Options::default());
    announced(&computed, "no attn.rope.freqs in the checkpoint: frequencies are powers of 10000");
    announced(&computed, "no attn.rope_reg.freqs in the checkpoint: frequencies are powers of 100");
    // The fixture has ViT-5's own, rounded by PyTorch.
    let (own, computed) = (angles(&whole), angles(&computed));
    assert!(own.len() == computed.len() && own.iter().zip(&computed).all(|(a, b)| (a - b).abs() < 1e-6));

    let other = floats(&[1.0, 0.5, 0.25]);
    all.get_mut("blocks.1.attn.rope.freqs").expect("there").2.clone_from(&other);
    save(&all, &scratch.file("model.safetensors"));
    scratch.refused(&["blocks.1.attn.rope.freqs", "differs from that of block 0"]);
    all.get_mut("blocks.1.attn.rope.freqs").expect("there").2 = floats(&[1.5, 0.5, 0.25]);
    all.get_mut("blocks.0.attn.rope.freqs").expect("there").2 = floats(&[1.5, 0.5, 0.25]);
    save(&all, &scratch.file("model.safetensors"));
    scratch.refused(&["blocks.0.attn.rope.freqs", "above 1"]);
    for i in [0, 1, 2] {
        all.get_mut(&format!("blocks.{i}.attn.rope.freqs")).expect("there").2.clone_from(&other);
    }
    save(&all, &scratch.file("model.safetensors"));
    assert!(convert_ok(&scratch.dir, &Options::default()).bytes[..] != whole.bytes[..]);
}

#[test]
fn what_is_no_square_is_refused() {
    for (name, shape) in [("reg_token", [1, 3, 36]), ("pos_embed", [1, 15, 36])] {
        let scratch = copy("vit5");
        let mut all = tensors(&scratch.dir);
        let tensor = all.get_mut(name).expect("there");
        (tensor.1, tensor.2) = (shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]);
        save(&all, &scratch.file("model.safetensors"));
        scratch.refused(&[name, "rows", "square"]);
    }
}

/// Tensors without elements, whose other lengths no file has to pay for.
#[test]
fn lengths_that_no_network_has_are_refused() {
    let lengths = [("reg_token", vec![1, 1 << 62, 0]), ("pos_embed", vec![1, 1 << 62, 0])];
    let patch = ("patch_embed.proj.weight", vec![0, 3, usize::MAX >> 1, 1]);
    for (name, shape) in lengths.into_iter().chain([patch]) {
        let scratch = copy("vit5");
        let mut all = tensors(&scratch.dir);
        let tensor = all.get_mut(name).expect("there");
        (tensor.1, tensor.2) = (shape, Vec::new());
        save(&all, &scratch.file("model.safetensors"));
        scratch.refused(&[name, "of another shape than ViT-5's"]);
        refused(&scratch.dir, &named("vit5_base"), &[name]);
    }
}

#[test]
fn further_tensors_and_missing_ones_are_refused() {
    let scratch = copy("vit5");
    let mut all = tensors(&scratch.dir);
    let one = all["norm.weight"].clone();
    all.insert("blocks.0.attn.extra".to_owned(), one);
    save(&all, &scratch.file("model.safetensors"));
    scratch.refused(&["blocks.0.attn.extra", "ViT-5"]);
    all.remove("blocks.0.attn.extra");
    all.remove("blocks.1.attn.proj.bias");
    save(&all, &scratch.file("model.safetensors"));
    scratch.refused(&["blocks.1.attn.proj.bias", "missing"]);
}

#[test]
fn a_config_that_is_not_read_is_announced() {
    let scratch = copy("vit5");
    scratch.write("config.json", r#"{"note": "by hand"}"#);
    announced(&convert_ok(&scratch.dir, &Options::default()), "config.json is not read");
}
