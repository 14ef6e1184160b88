//! Weights without a config.json: `--arch`, the statements of a training checkpoint itself, and suggestions from the
//! shapes.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use vitlet_convert::Options;

use crate::common::{announced, convert_ok, refused, root, save, tensors};

/// timm's smallest network, test_vit, for pictures of `size` x `size`: 64 channels, 6 blocks, 2 heads, patches of 16
/// x 16.
fn test_vit(dir: &Path, size: usize, classes: usize) {
    let (dim, hidden) = (64, 192);
    let mut tensors = vec![
        ("cls_token".to_owned(), vec![1, 1, dim]),
        ("pos_embed".to_owned(), vec![1, (size / 16).pow(2) + 1, dim]),
        ("patch_embed.proj.weight".to_owned(), vec![dim, 3, 16, 16]),
        ("patch_embed.proj.bias".to_owned(), vec![dim]),
        ("norm.weight".to_owned(), vec![dim]),
        ("norm.bias".to_owned(), vec![dim]),
        ("head.weight".to_owned(), vec![classes, dim]),
        ("head.bias".to_owned(), vec![classes]),
    ];
    for block in 0..6 {
        let layers =
            [("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim), ("mlp.fc1", hidden, dim), ("mlp.fc2", dim, hidden)];
        for (name, n, k) in layers {
            tensors.push((format!("blocks.{block}.{name}.weight"), vec![n, k]));
            tensors.push((format!("blocks.{block}.{name}.bias"), vec![n]));
        }
        for (name, leaf) in [("norm1", "weight"), ("norm1", "bias"), ("norm2", "weight"), ("norm2", "bias")] {
            tensors.push((format!("blocks.{block}.{name}.{leaf}"), vec![dim]));
        }
    }
    let values = |len: usize| -> Vec<u8> {
        (0..len).flat_map(|i| ((i * 37 % 101) as f32 / 505.0 - 0.1).to_le_bytes()).collect()
    };
    let data: Vec<_> = tensors.iter().map(|(_, shape)| values(shape.iter().product())).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor")));
    fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).expect("serialized"))
        .expect("written");
}

fn arch(name: &str) -> Options {
    Options { arch: Some(name.to_owned()), ..Options::default() }
}

#[test]
fn a_name_is_as_good_as_timms_config() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    test_vit(dir, 160, 1000);
    let named = convert_ok(dir, &arch("test_vit"));
    announced(&named, "pictures are prepared as for test_vit.r160_in1k, timm's default");
    let file = convert_ok(&dir.join("model.safetensors"), &arch("test_vit"));
    assert!(file.bytes[..] == named.bytes[..]);
    announced(&named, "no licence is stated");
    let tagged = convert_ok(dir, &arch("test_vit.r160_in1k"));
    fs::write(dir.join("README.md"), "---\nlicense: mit\n---\n").expect("written");
    assert_eq!(convert_ok(dir, &arch("test_vit")).report.license.as_deref(), Some("mit"));
    assert_eq!(convert_ok(dir, &arch("test_vit.r160_in1k")).report.license.as_deref(), Some("apache-2.0"));
    fs::remove_file(dir.join("README.md")).expect("removed");

    // As timm's save_for_hf writes it.
    let mut config = json!({
        "architecture": "test_vit",
        "num_classes": 1000,
        "pretrained_cfg": {"input_size": [3, 160, 160], "interpolation": "bicubic", "crop_pct": 0.95,
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 1000},
    });
    let with_config = |config: &Value| {
        fs::write(dir.join("config.json"), config.to_string()).expect("written");
        convert_ok(dir, &Options::default())
    };
    assert!(with_config(&config).bytes[..] == named.bytes[..]);
    config["pretrained_cfg"]["tag"] = "r160_in1k".into();
    config["pretrained_cfg"]["license"] = "apache-2.0".into();
    assert!(with_config(&config).bytes[..] == tagged.bytes[..]);
}

#[test]
fn other_classes_and_sizes_are_given_by_options() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    test_vit(dir, 96, 10);
    refused(dir, &arch("test_vit"), &["--arch test_vit: 1000 classes", "has 10", "--num-classes 10 fits"]);
    let classes = Options { num_classes: Some(10), ..arch("test_vit") };
    refused(dir, &classes, &["pictures of 160x160", "--image-size 96x96 fits"]);
    let both = Options { image_size: Some((96, 96)), ..classes.clone() };
    let converted = convert_ok(dir, &both);
    assert_eq!((converted.report.image_size, converted.report.classes), ((96, 96), 10));
    assert!(!converted.report.announcements.iter().any(|a| a.contains("resampled")));

    // The size of the architecture itself: resampled to another.
    test_vit(dir, 160, 10);
    let converted = convert_ok(dir, &both);
    assert_eq!(converted.report.image_size, (96, 96));
    announced(&converted, "resampled from 10x10 patches to 6x6");
}

#[test]
fn weights_without_a_head_are_told_the_option_for_them() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    test_vit(dir, 160, 1000);
    let mut all = tensors(dir);
    all.retain(|name, _| !name.starts_with("head."));
    save(&all, &dir.join("model.safetensors"));
    refused(
        dir,
        &arch("test_vit"),
        &["tensor head.weight: missing", "; --num-classes 0 is for weights without a head"],
    );
    let headless = Options { num_classes: Some(0), ..arch("test_vit") };
    assert_eq!(convert_ok(dir, &headless).report.classes, 0);
}

#[test]
fn what_does_not_fit_is_answered_with_what_does() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    test_vit(dir, 160, 1000);
    let looks = "look like test_vit (6 blocks, 64 wide, patch 16)";
    refused(dir, &Options::default(), &["no config.json names", "--arch", looks]);
    refused(dir, &arch("vit_tiny_patch16_224"), &["it has 12 blocks, 192 wide, patch 16, but the weights", looks]);
    refused(dir, &arch("resnet50"), &["--arch resnet50: not supported", looks]);
    refused(dir, &arch("test_vit.in22k"), &["--arch test_vit.in22k: no such tag; timm has r160_in1k"]);
    fs::write(dir.join("config.json"), "{}").expect("written");
    refused(dir, &Options { num_classes: Some(10), ..Options::default() }, &["--num-classes: goes with --arch"]);
    let onnx = root().join("tests/fixtures/onnx/vit/legacy13.onnx");
    refused(&onnx, &arch("test_vit"), &["--arch, --num-classes and --max-depth are for checkpoints"]);
}

/// Lengths that no file has to pay for, since another one is 0.
#[test]
fn lengths_without_elements_are_not_counted_up_to() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    test_vit(dir, 160, 1000);
    let mut all = tensors(dir);
    for rows in [1 << 62, usize::MAX - 1] {
        all.insert("pos_embed".into(), (Dtype::F32, vec![1, rows, 0], Vec::new()));
        save(&all, &dir.join("model.safetensors"));
        let cure = "the weights' position embedding is for another size; give the size of its pictures with \
                    --image-size";
        refused(dir, &arch("test_vit"), &[cure, "look like test_vit"]);
        refused(dir, &Options::default(), &["look like test_vit"]);
    }
    all.insert("patch_embed.proj.weight".into(), (Dtype::F32, vec![64, 3, 0, 1 << 62], Vec::new()));
    save(&all, &dir.join("model.safetensors"));
    refused(dir, &Options::default(), &["no config.json names"]);
}

#[test]
fn a_training_checkpoint_names_its_own_network() {
    let fixtures = root().join("tests/fixtures");
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("model_best.pth.tar");
    fs::copy(fixtures.join("torch/model_best.pth.tar"), &file).expect("copied");
    let ema = Options { ema: true, ..Options::default() };
    let by_itself = convert_ok(&file, &ema);
    announced(&by_itself, "the architecture is vit_tiny_patch16_224, as the file itself says");
    announced(&by_itself, "from the training's arguments in the file: num_classes 7, img_size 16, ");

    let mut config: Value =
        serde_json::from_slice(&fs::read(fixtures.join("onnx/vit/config.json")).expect("read")).expect("JSON");
    for key in ["tag", "license"] {
        config["pretrained_cfg"].as_object_mut().expect("an object").remove(key);
    }
    fs::write(scratch.path().join("config.json"), config.to_string()).expect("written");
    assert!(convert_ok(&file, &ema).bytes[..] == by_itself.bytes[..]);
}

/// timm's train.py keeps the tag of the weights that it began with.
#[test]
fn the_tag_of_a_training_is_not_that_of_its_weights() {
    let fixtures = root().join("tests/fixtures");
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("model_best.pth.tar");
    let mut bytes = fs::read(fixtures.join("torch/model_best.pth.tar")).expect("read");
    // A longer name in the place of the epoch, so that nothing else moves; a number that is dropped fills the rest.
    let (epoch, name) = (&b"X\x05\0\0\0epochq\x01K\x03"[..], &b"X\x14\0\0\0vit_tiny_patch16_224q\x03"[..]);
    let before = [epoch, b"X\x04\0\0\0archq\x02", name].concat();
    let after = b"K\x000X\x04\0\0\0archX\x21\0\0\0vit_tiny_patch16_224.augreg_in21kq\x03";
    let at = bytes.windows(before.len()).position(|window| window == before).expect("there");
    bytes[at..at + before.len()].copy_from_slice(after);
    fs::write(&file, bytes).expect("written");
    let converted = convert_ok(&file, &Options { ema: true, ..Options::default() });
    assert_eq!(converted.report.name, "vit_tiny_patch16_224");
    assert_eq!(converted.report.license, None);
    announced(&converted, "pictures are prepared as for vit_tiny_patch16_224.augreg_in21k, as the file says");
}
