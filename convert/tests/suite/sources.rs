//! The other shapes a source can have: shards, prefixes, separate heads, other sizes, other names for the same tensors.

use std::fs;

use crate::common::{Tensors, convert_err, convert_ok, fixture, floats, linear, save, shared, tensors};
use safetensors::Dtype;
use vitlet::picture::Resize;
use vitlet::{Model, Pooling, Precision};
use vitlet_convert::{Options, imagenet_names, imagenet_synsets};

#[test]
fn shards_and_wrappers_prefixes_change_nothing() {
    let dir = fixture("timm_vit");
    let whole = convert_ok(&dir, &Options::default());
    let scratch = tempfile::tempdir().expect("a directory");
    fs::copy(dir.join("config.json"), scratch.path().join("config.json")).expect("copied");
    let all = tensors(&dir);
    let (mut first, mut second, mut map) = (Tensors::new(), Tensors::new(), serde_json::Map::new());
    for (i, (name, tensor)) in all.into_iter().enumerate() {
        let (file, part) = if i % 2 == 0 {
            ("model-00001-of-00002.safetensors", &mut first)
        } else {
            ("model-00002-of-00002.safetensors", &mut second)
        };
        let name = format!("module._orig_mod.{name}");
        map.insert(name.clone(), file.into());
        part.insert(name, tensor);
    }
    save(&first, &scratch.path().join("model-00001-of-00002.safetensors"));
    save(&second, &scratch.path().join("model-00002-of-00002.safetensors"));
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(scratch.path().join("model.safetensors.index.json"), index.to_string()).expect("written");
    assert!(whole.bytes[..] == convert_ok(scratch.path(), &Options::default()).bytes[..]);
}

#[test]
fn the_file_beside_its_configuration_is_as_good_as_the_directory() {
    let dir = fixture("timm_vit");
    let file = convert_ok(&dir.join("model.safetensors"), &Options::default());
    assert!(file.bytes[..] == convert_ok(&dir, &Options::default()).bytes[..]);
}

#[test]
fn gammas_under_their_first_name() {
    let dir = fixture("timm_deit3");
    let scratch = tempfile::tempdir().expect("a directory");
    fs::copy(dir.join("config.json"), scratch.path().join("config.json")).expect("copied");
    let rename = |name: String| name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2");
    let renamed: Tensors = tensors(&dir).into_iter().map(|(name, t)| (rename(name), t)).collect();
    save(&renamed, &scratch.path().join("model.safetensors"));
    assert!(
        convert_ok(&dir, &Options::default()).bytes[..] == convert_ok(scratch.path(), &Options::default()).bytes[..]
    );
}

/// XCiT's authors have one matrix for q, k and v in class attention, too, and another name for the positional encoding.
#[test]
fn xcit_under_its_first_names() {
    let dir = fixture("timm_xcit");
    let scratch = tempfile::tempdir().expect("a directory");
    fs::copy(dir.join("config.json"), scratch.path().join("config.json")).expect("copied");
    let mut all = tensors(&dir);
    for (block, leaf) in [(0, "weight"), (0, "bias"), (1, "weight"), (1, "bias")] {
        let at = |part: &str| format!("cls_attn_blocks.{block}.attn.{part}.{leaf}");
        let parts = ["q", "k", "v"].map(|part| all.remove(&at(part)).expect("a part"));
        let (dtype, mut shape, _) = parts[0].clone();
        shape[0] *= 3;
        all.insert(at("qkv"), (dtype, shape, parts.into_iter().flat_map(|(.., data)| data).collect()));
    }
    let rename = |name: String| name.replace("pos_embed.", "pos_embeder.");
    let renamed: Tensors = all.into_iter().map(|(name, t)| (rename(name), t)).collect();
    save(&renamed, &scratch.path().join("model.safetensors"));
    assert!(
        convert_ok(&dir, &Options::default()).bytes[..] == convert_ok(scratch.path(), &Options::default()).bytes[..]
    );
}

/// ConvNeXt's authors' names.
#[test]
fn convnext_under_its_first_names() {
    let dir = fixture("timm_convnext");
    let scratch = tempfile::tempdir().expect("a directory");
    fs::copy(dir.join("config.json"), scratch.path().join("config.json")).expect("copied");
    let names = [
        ("stem.", "downsample_layers.0."),
        (".blocks.", "."),
        (".conv_dw.", ".dwconv."),
        (".mlp.fc1.", ".pwconv1."),
        (".mlp.fc2.", ".pwconv2."),
        ("head.norm.", "norm."),
        ("head.fc.", "head."),
    ];
    let rename = |name: String| {
        let name = names.iter().fold(name, |name, (timm, first)| name.replace(timm, first));
        let stage = name.strip_prefix("stages.").and_then(|name| name.split_once(".downsample."));
        stage.map(|(stage, leaf)| format!("downsample_layers.{stage}.{leaf}")).unwrap_or(name)
    };
    let renamed: Tensors = tensors(&dir).into_iter().map(|(name, t)| (rename(name), t)).collect();
    save(&renamed, &scratch.path().join("model.safetensors"));
    assert!(
        convert_ok(&dir, &Options::default()).bytes[..] == convert_ok(scratch.path(), &Options::default()).bytes[..]
    );
}

/// ResMLP's authors' names, and their shapes of what timm expands.
#[test]
fn resmlp_under_its_first_names() {
    let dir = fixture("timm_resmlp");
    let scratch = tempfile::tempdir().expect("a directory");
    fs::copy(dir.join("config.json"), scratch.path().join("config.json")).expect("copied");
    let names = [
        ("stem.", "patch_embed."),
        ("linear_tokens.", "attn."),
        ("mlp_channels.", "mlp."),
        (".ls1", ".gamma_1"),
        (".ls2", ".gamma_2"),
    ];
    let rename = |name: String| names.iter().fold(name, |name, (timm, first)| name.replace(timm, first));
    let mut renamed: Tensors = tensors(&dir).into_iter().map(|(name, t)| (rename(name), t)).collect();
    for (_, shape, _) in renamed.values_mut() {
        if shape.starts_with(&[1, 1]) {
            shape.drain(..2);
        }
    }
    save(&renamed, &scratch.path().join("model.safetensors"));
    assert!(
        convert_ok(&dir, &Options::default()).bytes[..] == convert_ok(scratch.path(), &Options::default()).bytes[..]
    );
}

#[test]
fn one_gamma_stands_for_all_channels() {
    let dir = fixture("timm_deit3");
    let scratch = tempfile::tempdir().expect("a directory");
    let mut models = [Some(vec![]), Some(vec![1]), None].into_iter().map(|scalar| {
        let mut all = tensors(&dir);
        for (name, (dtype, shape, data)) in &mut all {
            if name.ends_with(".gamma") {
                *shape = scalar.clone().unwrap_or(shape.clone());
                *dtype = Dtype::F32;
                *data = floats(&vec![-0.25; shape.iter().product()]);
            }
        }
        fs::copy(dir.join("config.json"), scratch.path().join("config.json")).expect("copied");
        save(&all, &scratch.path().join("model.safetensors"));
        convert_ok(scratch.path(), &Options::default()).bytes.to_vec()
    });
    let first = models.next().expect("a model");
    assert!(models.all(|model| model == first));
}

#[test]
fn a_separate_head_replaces_or_adds_one() {
    let scratch = tempfile::tempdir().expect("a directory");
    let head = scratch.path().join("head.safetensors");
    let weight: Vec<f32> = (0..3 * 72).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
    let bias = [0.5, -1.0, 2.0];
    let mut file = Tensors::new();
    file.insert("linear.weight".into(), (Dtype::F32, vec![3, 72], floats(&weight)));
    file.insert("linear.bias".into(), (Dtype::F32, vec![3], floats(&bias)));
    save(&file, &head);

    // 72 features of a network of width 36: class token and mean of patches.
    for name in ["timm_features", "hf_dinov2_model", "hf_vit"] {
        let labels = scratch.path().join("labels.txt");
        fs::write(&labels, "a\nb\nc\n").expect("written");
        let options = Options { head: Some(head.clone()), labels: Some(labels), ..Options::default() };
        let converted = convert_ok(&fixture(name), &options);
        let model = Model::parse(&converted.bytes).expect("a model");
        assert_eq!((model.config().pooling, model.config().classes), (Pooling::ClsAvg, 3), "{name}");
        assert_eq!(model.labels().collect::<Vec<_>>(), ["a", "b", "c"]);
        let stored = linear(&model, "head");
        assert_eq!(stored.bias[..3], bias);
        // Columns stand in two parts of pad16(36) = 48.
        let row: Vec<i8> = stored.row(1).collect();
        let code = |k: usize| (weight[72 + k] / stored.scale[1]).round_ties_even() as i8;
        assert!((0..36).all(|k| row[k] == code(k) && row[48 + k] == code(36 + k)));
        assert!(row[36..48].iter().chain(&row[84..]).all(|c| *c == 0));
    }

    file.insert("linear.weight".into(), (Dtype::F32, vec![3, 36], floats(&weight[..108])));
    save(&file, &head);
    let converted = convert_ok(&fixture("hf_dinov2_registers"), &Options { head: Some(head), ..Options::default() });
    let model = Model::parse(&converted.bytes).expect("a model");
    assert_eq!((model.config().pooling, model.config().classes), (Pooling::Cls, 3));
    assert_eq!(model.labels().count(), 0, "seven labels do not fit three classes");
    assert!(converted.report.announcements.iter().any(|a| a.contains("head of 7 classes is replaced by one of 3")));
}

#[test]
fn another_picture_size() {
    let options = Options { image_size: Some((48, 40)), precision: Precision::F32, ..Options::default() };
    for name in ["timm_vit", "hf_vit", "hf_dinov2_registers"] {
        let converted = convert_ok(&fixture(name), &options);
        let model = Model::parse(&converted.bytes).expect("a model");
        assert_eq!((model.config().image_height, model.config().image_width, model.config().patches()), (48, 40, 30));
        assert_eq!((model.preprocess().height, model.preprocess().width), (48, 40));
        assert!(
            matches!(model.preprocess().resize, Resize::Cover { .. } | Resize::Exact { height: 48, width: 40 }),
            "{name}"
        );
        assert!(converted.report.announcements.iter().any(|a| a.contains("resampled from 4x4 patches to 6x5")));
    }
}

#[test]
fn a_thousand_classes_without_labels_are_imagenets() {
    let Some(dir) = shared("checkpoints/deit_tiny_patch16_224") else { return };
    let converted = convert_ok(&dir, &Options::default());
    let model = Model::parse(&converted.bytes).expect("a model");
    assert!(model.labels().eq(imagenet_names()));
    assert_eq!(imagenet_synsets().len(), model.config().classes);
    assert!(converted.bytes.len() <= 6_300_000, "{} bytes", converted.bytes.len());
}

#[test]
fn float64_is_rounded_to_float32() {
    let dir = fixture("timm_vit");
    let scratch = tempfile::tempdir().expect("a directory");
    fs::copy(dir.join("config.json"), scratch.path().join("config.json")).expect("copied");
    let widened = |data: Vec<u8>| -> Vec<u8> {
        let singles = data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
        // Nearer to the same f32 than to any other.
        singles.flat_map(|x| (x * (1.0 + 1e-9)).to_le_bytes()).collect()
    };
    let mut all: Tensors = tensors(&dir);
    for (dtype, _, data) in all.values_mut().filter(|(dtype, ..)| *dtype == Dtype::F32) {
        (*dtype, *data) = (Dtype::F64, widened(std::mem::take(data)));
    }
    assert!(all.values().any(|(dtype, ..)| *dtype == Dtype::F64));
    let file = scratch.path().join("model.safetensors");
    save(&all, &file);
    let converted = convert_ok(scratch.path(), &Options::default());
    assert!(convert_ok(&dir, &Options::default()).bytes[..] == converted.bytes[..]);
    for (value, why) in [(1e39, "value 1e39 at element 1 is beyond what f32 holds"), (f64::NAN, "weights are broken")] {
        all.get_mut("norm.bias").expect("there").2[8..16].copy_from_slice(&f64::to_le_bytes(value));
        save(&all, &file);
        let text = convert_err(scratch.path(), &Options::default()).to_string();
        assert!(text.starts_with("tensor norm.bias: value ") && text.contains(why), "{text}");
    }
}
