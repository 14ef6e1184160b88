//! Depth Anything under its authors' names: the shapes say the encoder, options and names of files the rest.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{announced, convert_ok, copy, fixture, refused, save, tensors};
use vitlet::config::{Dpt, Enlarging};
use vitlet::picture::{Interpolation, Resize, Scale, SizeRule};
use vitlet::{Model, Positions, Resampling};
use vitlet_convert::{Converted, Options};

const NAME: &str = "depth_anything_own";

fn arch(name: &str) -> Options {
    Options { arch: Some(name.to_owned()), ..Options::default() }
}

fn head(converted: &Converted) -> Dpt {
    *Model::parse(&converted.bytes).expect("a model").config().depth_head().expect("a depth head")
}

/// The fixture's weights alone, under another name.
fn named(folder: &Path, file: &str) -> PathBuf {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    fs::copy(fixture(NAME).join("model.safetensors"), &path).expect("copied");
    path
}

#[test]
fn the_tensors_say_the_encoder_and_defaults_are_announced() {
    let converted = convert_ok(&fixture(NAME), &Options::default());
    announced(&converted, "5 blocks, 64 wide, as its tensors say; the head reads blocks 1, 2, 3, 5");
    announced(&converted, "the network is depth_anything_v2, since nothing says another; --arch depth_anything_v1");
    announced(&converted, "depth is relative (an inverse), since nothing says another; --max-depth METRES");
    announced(&converted, "resizes pictures in floating point, vitlet in bytes");
    announced(&converted, "pictures keep their aspect ratio");
    let model = Model::parse(&converted.bytes).expect("a model");
    let c = model.config();
    assert_eq!((c.dim, c.depth, c.heads(), c.hidden, c.patch_height), (64, 5, 1, 64, 14));
    assert_eq!(c.positions, Positions::Resampled { rule: Resampling::BicubicOffset, grid: None });
    let (p, dpt) = (model.preprocess(), head(&converted));
    assert_eq!((p.resize, p.interpolation), (Resize::Exact { height: 42, width: 42 }, Interpolation::BicubicOpencv));
    assert_eq!((p.mean, p.std), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    assert_eq!(p.size_rule, Some(SizeRule { scale: Scale::Larger, multiple: 14 }));
    assert_eq!((dpt.taps, dpt.reassembled, dpt.fused, dpt.hidden), ([0, 1, 2, 4], [8, 20, 24, 40], 20, 12));
    assert_eq!((dpt.metric, dpt.max_depth, dpt.enlarging), (false, 1.0, Enlarging::BilinearAligned));
    assert_eq!(model.name(), Some("depth_anything_v2"));
}

#[test]
fn version_and_largest_depth_are_options() {
    let first = convert_ok(&fixture(NAME), &arch("depth_anything_v1"));
    assert_eq!(head(&first).taps, [1, 2, 3, 4]);
    let metric = convert_ok(&fixture(NAME), &Options { max_depth: Some(20.0), ..Options::default() });
    assert_eq!((head(&metric).metric, head(&metric).max_depth), (true, 20.0));
    let fixed = convert_ok(&fixture(NAME), &Options { image_size: Some((28, 42)), ..Options::default() });
    assert_eq!(Model::parse(&fixed.bytes).expect("a model").preprocess().size_rule, None);
    refused(&fixture(NAME), &arch("depth_anything"), &["depth_anything_v1 and depth_anything_v2"]);
    refused(&fixture(NAME), &arch("vit_small_patch14_dinov2"), &["the weights are those of Depth Anything"]);
    let classes = Options { num_classes: Some(3), ..arch("depth_anything_v2") };
    refused(&fixture(NAME), &classes, &["Depth Anything has a head of its own"]);
}

#[test]
fn the_names_of_the_published_files_say_version_and_largest_depth() {
    let scratch = tempfile::tempdir().expect("a directory");
    let of = |file: &str| {
        let path = scratch.path().join(file);
        let source = if path.is_dir() { path } else { named(scratch.path(), file) };
        convert_ok(&source, &Options::default())
    };
    let is = |file: &str, taps, metric, max_depth| {
        let dpt = head(&of(file));
        assert_eq!((dpt.taps, dpt.metric, dpt.max_depth), (taps, metric, max_depth), "{file}");
    };
    let spread = [0, 1, 2, 4];
    is("depth_anything_v2_vits.safetensors", spread, false, 1.0);
    is("depth_anything_vits14.safetensors", [1, 2, 3, 4], false, 1.0);
    is("LiheYoung/depth_anything_vitl14/weights.safetensors", [1, 2, 3, 4], false, 1.0);
    is("depth_anything_v2_metric_hypersim_vits.safetensors", spread, true, 20.0);
    is("Depth_Anything_V2_metric_VKITTI_vits.safetensors", spread, true, 80.0);
    // A folder, as the Hub serves it.
    named(scratch.path(), "folder/depth_anything_v2_metric_hypersim_vits.safetensors");
    is("folder", spread, true, 20.0);
    announced(&of("depth_anything_v2_metric_vkitti_vits.safetensors"), "up to 80, as the file's name says");
    is("metric/vkitti/weights.safetensors", spread, false, 1.0);
    let unknown = named(scratch.path(), "my_metric.safetensors");
    refused(&unknown, &Options::default(), &["--max-depth", "20 (indoor, Hypersim) and 80 (outdoor, VKITTI)"]);
    let given = Options { max_depth: Some(5.0), ..Options::default() };
    assert_eq!(head(&convert_ok(&unknown, &given)).max_depth, 5.0);
}

/// As a training checkpoint has it, beside a config.json of something else, with a tensor too many, and without one.
#[test]
fn prefixes_are_left_out_and_other_tensors_refused() {
    let scratch = copy(NAME);
    let whole = convert_ok(&scratch.dir, &Options::default());
    let own = tensors(&scratch.dir);
    let prefixed = own.iter().map(|(name, tensor)| (format!("module.{name}"), tensor.clone())).collect();
    save(&prefixed, &scratch.file("model.safetensors"));
    scratch.write("config.json", r#"{"encoder": "vits", "features": 64}"#);
    assert!(convert_ok(&scratch.dir, &Options::default()).bytes[..] == whole.bytes[..]);

    let mut more = own.clone();
    more.insert("depth_head.readout_projects.0.0.bias".to_owned(), own["pretrained.norm.bias"].clone());
    save(&more, &scratch.file("model.safetensors"));
    scratch.refused(&["depth_head.readout_projects.0.0.bias", "Depth Anything"]);
    for gone in ["pretrained.blocks.4.mlp.fc2.bias", "depth_head.scratch.layer2_rn.weight", "pretrained.pos_embed"] {
        let mut fewer = own.clone();
        fewer.remove(gone);
        save(&fewer, &scratch.file("model.safetensors"));
        scratch.refused(&[gone, "missing"]);
    }
    let mut wide = own.clone();
    wide.get_mut("pretrained.pos_embed").expect("there").1 = vec![1, 1 << 62, 0];
    wide.get_mut("pretrained.pos_embed").expect("there").2.clear();
    save(&wide, &scratch.file("model.safetensors"));
    scratch.refused(&["pretrained.pos_embed", "of another shape than DINOv2's"]);
}

#[test]
fn a_largest_depth_has_a_network_that_needs_it() {
    let given = Options { max_depth: Some(5.0), ..Options::default() };
    refused(&fixture("timm_vit"), &given, &["--max-depth", "no depth head"]);
    refused(&fixture("hf_depth_anything"), &given, &["--max-depth", "config.json says"]);
}
