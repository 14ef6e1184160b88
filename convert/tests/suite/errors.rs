//! What can not be converted is refused with one line that says what to do.

use std::fs;
use std::path::Path;

use crate::common::{Copy, convert_err, convert_ok, copy, fixture, refused, save};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use vitlet_convert::{Options, write_file};

impl Copy {
    /// Rewrites the weights: each tensor as (name, dtype, shape, bytes), changed by `edit`.
    fn edit_tensors(&self, edit: impl FnOnce(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>)) {
        let bytes = fs::read(self.file("model.safetensors")).expect("read");
        let mut all: Vec<_> = SafeTensors::deserialize(&bytes)
            .expect("safetensors")
            .iter()
            .map(|(name, t)| (name.to_owned(), t.dtype(), t.shape().to_vec(), t.data().to_vec()))
            .collect();
        edit(&mut all);
        let views = all.iter().map(|(name, dtype, shape, data)| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
        });
        self.write("model.safetensors", safetensors::serialize(views, None).expect("serialized"));
    }
}

#[test]
fn git_lfs_pointers() {
    let c = copy("timm_vit");
    c.write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    c.refused(&["model.safetensors: a git-LFS pointer", "git lfs pull"]);
}

#[test]
fn adapters() {
    let c = copy("timm_vit");
    c.write("adapter_config.json", "{}");
    c.refused(&["LoRA or PEFT adapter", "merge_and_unload"]);
}

#[test]
fn missing_files() {
    let c = copy("timm_vit");
    fs::remove_file(c.file("model.safetensors")).expect("removed");
    c.refused(&["no model.safetensors"]);
    c.write("exported.onnx", "");
    c.refused(&["no model.safetensors", "; give the ONNX file, ", "exported.onnx"]);
    let c = copy("timm_vit");
    fs::remove_file(c.file("config.json")).expect("removed");
    c.refused(&["no config.json names the network of these weights", "--arch", "no supported architecture has these"]);
    refused(Path::new("/nonexistent/model"), &Options::default(), &["/nonexistent/model: No such file or directory"]);
    for name in ["google/vit-base-patch16-224", "hf-hub:google/vit-base-patch16-224"] {
        let hint = "No such file or directory; did you mean hf:google/vit-base-patch16-224 ,";
        refused(Path::new(name), &Options::default(), &[hint]);
    }
    for name in ["vit-base", "/google/vit", "a/b/c", "src/missing", "../b"] {
        assert!(!convert_err(Path::new(name), &Options::default()).to_string().contains("hf:"), "{name}");
    }
    let c = copy("timm_vit");
    fs::remove_file(c.file("model.safetensors")).expect("removed");
    c.write(
        "model.safetensors.index.json",
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#,
    );
    c.write("model-1.safetensors", "");
    c.refused(&["model.safetensors.index.json: 1 of its 2 files are missing: model-2.safetensors; download"]);
    fs::remove_file(c.file("model-1.safetensors")).expect("removed");
    c.refused(&["2 of its 2 files are missing"]);
}

#[test]
fn other_architectures() {
    let c = copy("timm_vit");
    c.edit("config.json", |j| {
        j["architecture"] = "resnet50".into();
        j.as_object_mut().expect("an object").remove("model_args");
    });
    c.refused(&["architecture: resnet50 is not supported", "dinov2"]);
    let c = copy("timm_vit");
    c.edit("config.json", |j| j["model_args"]["block_fn"] = "ParallelScalingBlock".into());
    c.refused(&["model_args.block_fn", "ParallelScalingBlock"]);
    let c = copy("timm_vit");
    c.edit("config.json", |j| j["model_args"]["global_pool"] = "map".into());
    c.refused(&["model_args.global_pool", "map"]);
    let c = copy("hf_vit");
    c.edit("config.json", |j| j["model_type"] = "swin".into());
    c.refused(&["model_type: swin is not supported"]);
    let c = copy("hf_vit");
    c.write("config.json", "{}");
    c.refused(&["config.json: neither timm's", "supported are"]);
    c.write("config.json", "{");
    c.refused(&["config.json: not JSON"]);
}

#[test]
fn damaged_weights() {
    let c = copy("timm_vit");
    let whole = fs::read(c.file("model.safetensors")).expect("read");
    for len in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        c.write("model.safetensors", &whole[..len]);
        c.refused(&["model.safetensors: not a whole safetensors file"]);
    }
}

#[test]
fn variants_of_xcit_that_are_not_run() {
    for (key, value, why) in [
        ("act_layer", Value::from("relu"), "model_args.act_layer: not supported in XCiT"),
        ("reg_tokens", 4.into(), "model_args.reg_tokens: not supported in XCiT"),
        ("tokens_norm", "no".into(), "model_args.tokens_norm"),
        ("patch_size", 32.into(), "patches of 8 x 8 or 16 x 16"),
        ("cls_attn_layers", 3.into(), "cls_attn_blocks.2.attn.q.weight: missing"),
        ("use_pos_embed", false.into(), "pos_embed.token_projection"),
    ] {
        let c = copy("timm_xcit");
        c.edit("config.json", |j| {
            j["model_args"][key] = value;
            j["model_args"]["img_size"] = 64.into();
        });
        c.refused(&[why]);
    }
}

#[test]
fn variants_of_convnext_that_are_not_run() {
    let edited = |key: &str, value: Value| {
        let c = copy("timm_convnext");
        c.edit("config.json", |j| j["model_args"][key] = value);
        c
    };
    for (key, value) in [
        ("use_grn", true.into()),
        ("stem_type", "overlap_tiered".into()),
        ("norm_layer", "rmsnorm2d".into()),
        ("kernel_sizes", vec![7, 5, 5, 3].into()),
        ("head_hidden_size", 64.into()),
        ("output_stride", 16.into()),
        ("patch_size", 2.into()),
        ("img_size", 32.into()),
    ] {
        edited(key, value).refused(&[key, "is not supported in ConvNeXt"]);
    }
    edited("act_layer", "silu".into()).refused(&["act_layer", "silu is not supported", "gelu_tanh"]);
    edited("dims", vec![18, 36, 20].into()).refused(&["dims", "four stages"]);
    edited("dims", vec![18, 36, 20, 44].into()).refused(&["tensor stages.3.downsample.1.weight: shape [40, 20, 2, 2]"]);
    edited("ls_init_value", Value::Null).refused(&["tensor stages.0.blocks.0.gamma: not a part"]);
    for name in ["convnextv2_atto", "convnext_atto_ols", "convnext_large_mlp"] {
        let c = copy("timm_convnext");
        c.edit("config.json", |j| j["architecture"] = name.into());
        c.refused(&[name, "is not supported", "not _ols"]);
    }
    let options = Options { image_size: Some((48, 64)), ..Options::default() };
    refused(&fixture("timm_convnext"), &options, &["picture size 48x64", "not a multiple of the 32x32", "32x64 is"]);
}

#[test]
fn variants_of_transformers_convnext_that_are_not_run() {
    let edited = |key: &str, value: Value| {
        let c = copy("hf_convnext");
        c.edit("config.json", |j| j[key] = value);
        c
    };
    edited("patch_size", 2.into()).refused(&["patch_size", "4 x 4"]);
    edited("layer_norm_eps", 1e-5.into()).refused(&["layer_norm_eps", "1e-6"]);
    edited("depths", vec![1, 2, 1].into()).refused(&["depths", "four stages"]);
    edited("num_channels", 1.into()).refused(&["num_channels", "RGB"]);
    let gamma = "convnext.encoder.stages.0.layers.0.layer_scale_parameter";
    edited("layer_scale_init_value", 0.into()).refused(&[gamma, "not a part"]);
}

/// Without LayerScale: the gammas left out of the checkpoint, too.
#[test]
fn convnext_without_layerscale() {
    let c = copy("timm_convnext");
    c.edit("config.json", |j| j["model_args"]["ls_init_value"] = Value::Null);
    c.edit_tensors(|all| all.retain(|(name, ..)| !name.ends_with(".gamma")));
    let converted = convert_ok(&c.dir, &Options::default());
    assert_eq!((converted.report.layerscale, converted.report.blocks.len()), ("none", 0));
}

#[test]
fn variants_of_resmlp_that_are_not_run() {
    let edited = |key: &str, value: Value| {
        let c = copy("timm_resmlp");
        c.edit("config.json", |j| j["model_args"][key] = value);
        c
    };
    edited("mlp_layer", "GluMlp".into()).refused(&["mlp_layer", "GluMlp", "is not supported for ResMLP"]);
    edited("num_heads", 3.into()).refused(&["num_heads", "is not supported for ResMLP"]);
    edited("act_layer", "silu".into()).refused(&["act_layer", "silu is not supported"]);
    edited("global_pool", "token".into()).refused(&["global_pool", "token"]);
    edited("img_size", vec![32, 32].into()).refused(&["blocks.0.linear_tokens.weight: shape [20, 20]", "[16, 16]"]);
    edited("stem_norm", false.into()).refused(&["tensor stem.norm.alpha: not a part"]);
    for name in ["mixer_b16_224", "gmixer_24_224", "gmlp_s16_224", "resmlp_48_224"] {
        let c = copy("timm_resmlp");
        c.edit("config.json", |j| j["architecture"] = name.into());
        c.refused(&[name, "is not supported", "resmlp_*"]);
    }
    let options = Options { image_size: Some((48, 64)), ..Options::default() };
    refused(&fixture("timm_resmlp"), &options, &["--image-size", "pictures of 32x40 alone"]);
}

#[test]
fn parallel_blocks_have_one_kind_of_mlp() {
    let c = copy("timm_parallel");
    c.edit("config.json", |j| j["model_args"]["swiglu_mlp"] = true.into());
    c.refused(&["swiglu_mlp", "side by side"]);
    let c = copy("timm_parallel");
    c.edit("config.json", |j| j["architecture"] = "vit_dpwee_patch16_reg1_gap_256".into());
    c.edit("config.json", |j| j["model_args"]["block_fn"] = "differential".into());
    c.refused(&["block_fn", "differential", "is not supported"]);
}

#[test]
fn tensors_that_do_not_fit_the_config() {
    let c = copy("timm_vit");
    c.edit_tensors(|all| all.retain(|(name, ..)| name != "blocks.1.mlp.fc1.bias"));
    c.refused(&["tensor blocks.1.mlp.fc1.bias: missing", "shape [108]"]);

    let c = copy("timm_vit");
    c.edit("config.json", |j| j["model_args"]["num_classes"] = 8.into());
    c.refused(&["tensor head.weight: shape [7, 36]", "asks for [8, 36]"]);

    let c = copy("timm_vit");
    c.edit("config.json", |j| j["model_args"]["depth"] = 1.into());
    c.refused(&["tensor blocks.1.", "not a part of this architecture", "11 more", "--ignore"]);
    let ignore = vec!["blocks.1.*".to_owned()];
    let converted = convert_ok(&c.dir, &Options { ignore, ..Options::default() });
    assert!(
        converted.report.announcements.iter().any(|a| a.contains("left out") && a.contains("blocks.1.attn.proj.bias"))
    );

    let c = copy("timm_deit3");
    c.edit("config.json", |j| j["model_args"]["init_values"] = 0.into());
    c.refused(&["tensor blocks.0.ls1.gamma: not a part"]);
}

#[test]
fn broken_values() {
    for (bits, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let c = copy("timm_vit");
        c.edit_tensors(|all| {
            let t = all.iter_mut().find(|(name, ..)| name == "blocks.0.norm2.bias").expect("there");
            t.3[8..12].copy_from_slice(&bits.to_le_bytes());
        });
        c.refused(&["tensor blocks.0.norm2.bias: value ", text, "at element 2"]);
    }
    let c = copy("timm_vit");
    c.edit_tensors(|all| all.iter_mut().find(|(name, ..)| name == "cls_token").expect("there").1 = Dtype::I32);
    c.refused(&["tensor cls_token: I32 values are not supported; f64, f32, f16 and bf16 are"]);
}

#[test]
fn picture_sizes() {
    let options = Options { image_size: Some((50, 32)), ..Options::default() };
    refused(
        &fixture("timm_vit"),
        &options,
        &["picture size 50x32: not a multiple of the 8x8 patch", "--image-size 48x32"],
    );
}

#[test]
fn model_files() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("model.gguf");
    let default = Options::default();
    write_file(&convert_ok(&fixture("timm_deit3"), &default).bytes, &file).expect("written");
    refused(&file, &default, &["int8 weights; convert the checkpoint"]);

    let f32 = Options { precision: vitlet::Precision::F32, ..default.clone() };
    let bytes = convert_ok(&fixture("timm_deit3"), &f32).bytes;
    let find = |needle: &[u8]| bytes.windows(needle.len()).position(|w| w == needle).expect("there") + needle.len();
    let patched = |at: usize, with: &[u8]| {
        let mut copy = bytes.to_vec();
        copy[at..at + with.len()].copy_from_slice(with);
        write_file(&copy, &file).expect("written");
    };
    // A string's kind (8) and length follow its key, then the text; a count's kind (4), then the number.
    patched(find(b"vitlet.format_version") + 4, &2u32.to_le_bytes());
    refused(&file, &default, &["model format version 2", "newer"]);
    patched(find(b"general.architecture") + 12, b"bit");
    refused(&file, &default, &["a GGUF file, but of another architecture", "language model"]);
    write_file(&bytes[..bytes.len() - 64], &file).expect("written");
    refused(&file, &default, &["truncated"]);

    write_file(&bytes, &file).expect("written");
    let keep = Options { layerscale: vitlet_convert::Mode::Keep, ..default.clone() };
    refused(&file, &keep, &["folded already", "--layerscale keep"]);
    let larger = Options { image_size: Some((96, 64)), ..default };
    refused(&file, &larger, &["--image-size needs the checkpoint"]);
}

/// A file of a few bytes that claims classes without features.
#[test]
fn a_head_without_features_is_refused_before_its_bias_is_made() {
    let c = copy("timm_vit");
    let head = c.file("head");
    let no_features = (safetensors::Dtype::F32, vec![1 << 60, 0], Vec::new());
    save(&[("weight".to_owned(), no_features)].into(), &head);
    let options = Options { head: Some(head), ..Options::default() };
    refused(&c.dir, &options, &["a head over 0 features, but the network has 36"]);
}

#[test]
fn labels_and_heads_that_do_not_fit() {
    let scratch = tempfile::tempdir().expect("a directory");
    let labels = scratch.path().join("labels.txt");
    fs::write(&labels, "a\nb\n").expect("written");
    let options = Options { labels: Some(labels), ..Options::default() };
    refused(&fixture("timm_vit"), &options, &["labels.txt: 2 labels for 7 classes"]);

    let options = Options { head: Some(fixture("timm_vit").join("model.safetensors")), ..Options::default() };
    refused(&fixture("timm_features"), &options, &["not a linear head"]);
}

#[test]
fn what_can_not_be_pruned() {
    let by = |threshold: f64| Options { prune_dead: Some(threshold), ..Options::default() };
    for threshold in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        refused(&fixture("timm_deit3"), &by(threshold), &["--prune-dead: must be a positive number"]);
    }
    for name in ["timm_convnext", "hf_convnext", "timm_resmlp"] {
        refused(&fixture(name), &by(0.01), &["--prune-dead", "not for ConvNeXt and ResMLP"]);
    }
    for mode in [vitlet_convert::Mode::Keep, vitlet_convert::Mode::KeepPass] {
        let keep = Options { layerscale: mode, ..by(0.01) };
        refused(&fixture("timm_deit3"), &keep, &["--prune-dead", "needs the gammas folded"]);
    }
}
