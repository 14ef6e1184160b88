//! Linear heads over the patches, from a file beside the backbone.

use std::path::PathBuf;

use crate::common::{Tensors, announced, convert_err, convert_ok, fixture, floats, refused, root, save};
use safetensors::Dtype;
use vitlet::config::{Answer, LinearHead};
use vitlet::picture::{Resize, Scale, SizeRule};
use vitlet::{Head, Model, Positions, Resampling};
use vitlet_convert::{Converted, Options};

fn with(head: PathBuf) -> Options {
    Options { head: Some(head), ..Options::default() }
}

fn published(name: &str) -> PathBuf {
    fixture("dinov2_own").join("heads").join(format!("{name}.safetensors"))
}

fn linear(converted: &Converted) -> LinearHead {
    *Model::parse(&converted.bytes).expect("a model").config().linear_head().expect("a linear head")
}

/// A head of zeros for classes, over `columns` channels.
fn classes(rows: usize, columns: usize, folder: &tempfile::TempDir) -> PathBuf {
    let zeros = |shape: &[usize]| (Dtype::F32, shape.to_vec(), floats(&vec![0.0; shape.iter().product()]));
    let weight = ("head.conv_seg.weight".to_owned(), zeros(&[rows, columns, 1, 1]));
    let all: Tensors = [weight, ("head.conv_seg.bias".to_owned(), zeros(&[rows]))].into();
    let path = folder.path().join("head.safetensors");
    save(&all, &path);
    path
}

#[test]
fn the_backbone_alone_says_what_it_is() {
    let converted = convert_ok(&fixture("dinov2_own"), &Options::default());
    announced(&converted, "the network is DINOv2, as its tensors say: 5 blocks, 64 wide");
    let model = Model::parse(&converted.bytes).expect("a model");
    let rule = Positions::Resampled { rule: Resampling::BicubicOffset, grid: None };
    assert_eq!((model.config().positions, model.config().head, model.config().classes), (rule, Head::Classifier, 0));
    assert_eq!((model.preprocess().resize, model.name()), (Resize::ShorterEdge(48), Some("dinov2")));
}

#[test]
fn heads_say_their_task_and_files_their_largest_depth() {
    let depth = convert_ok(&fixture("dinov2_own"), &with(published("nyu_linear4_head")));
    announced(&depth, "the head reads the patches after blocks 1, 2, 3, 5");
    announced(&depth, "depth in metres up to 10, as the file's name says");
    announced(&depth, "for the head over patches, pictures are prepared whole: 42x42, bilinear");
    announced(&depth, "pictures keep their aspect ratio");
    let p = *Model::parse(&depth.bytes).expect("a model").preprocess();
    assert_eq!((p.resize, p.size_for((30, 60))), (Resize::Exact { height: 42, width: 42 }, (42, 84)));
    assert_eq!(p.size_rule, Some(SizeRule { scale: Scale::Larger, multiple: 14 }));
    let given = Options { max_depth: Some(80.0), ..with(published("nyu_linear_head")) };
    let given = convert_ok(&fixture("dinov2_own"), &given);
    assert_eq!((linear(&given).answer, linear(&given).taps()), (Answer::Depth { min: 0.001, max: 80.0 }, &[4][..]));
    let classes = convert_ok(&fixture("dinov2_own"), &with(published("classes_ms_head")));
    assert_eq!(
        (linear(&classes).answer, linear(&classes).channels, linear(&classes).taps().len()),
        (Answer::Classes, 5, 4)
    );
}

#[test]
fn a_trainers_file_gives_the_bytes_of_safetensors() {
    let own = convert_ok(&fixture("dinov2_own"), &with(published("classes_linear_head")));
    let pth = root().join("tests/fixtures/torch/classes_linear_head.pth");
    assert!(convert_ok(&fixture("dinov2_own"), &with(pth)).bytes[..] == own.bytes[..]);
}

/// The processor of transformers' folder cuts a square out; a head over patches sees the whole picture, at the size of
/// the positions.
#[test]
fn the_head_takes_the_place_of_the_backbones_classifier() {
    let scratch = tempfile::tempdir().expect("a directory");
    let converted = convert_ok(&fixture("hf_dinov2"), &with(classes(7, 36, &scratch)));
    let model = Model::parse(&converted.bytes).expect("a model");
    assert_eq!((model.config().classes, model.config().image_height), (0, 56));
    let rule = Positions::Resampled { rule: Resampling::Bicubic, grid: None };
    assert_eq!((model.config().positions, model.preprocess().resize), (rule, Resize::Exact { height: 56, width: 56 }));
    // config.json has as many labels.
    assert_eq!(model.labels().next(), Some("ant"));
    let other = convert_ok(&fixture("hf_dinov2"), &with(classes(8, 36, &scratch)));
    assert_eq!(Model::parse(&other.bytes).expect("a model").labels().count(), 0);
}

#[test]
fn as_many_classes_as_the_published_heads_have_their_names() {
    let scratch = tempfile::tempdir().expect("a directory");
    for (rows, first, last, whose) in [(150, "wall", "flag", "ADE20k"), (21, "background", "tv monitor", "VOC2012")] {
        let converted = convert_ok(&fixture("dinov2_own"), &with(classes(rows, 64, &scratch)));
        announced(&converted, &format!("{rows} classes have {whose}'s names"));
        let model = Model::parse(&converted.bytes).expect("a model");
        assert_eq!((model.label(0), model.label(rows - 1)), (Some(first), Some(last)));
    }
    let names = scratch.path().join("names.txt");
    std::fs::write(&names, "a\nb\nc\nd\ne\n").expect("written");
    let options = Options { labels: Some(names), ..with(published("classes_linear_head")) };
    let converted = convert_ok(&fixture("dinov2_own"), &options);
    assert_eq!(Model::parse(&converted.bytes).expect("a model").label(4), Some("e"));
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    refused(&fixture("dinov2_own"), &with(classes(7, 63, &scratch)), &["63 columns", "64 wide", "64 for each"]);
    refused(&fixture("dinov2_own"), &with(classes(7, 5 * 64, &scratch)), &["320 columns"]);
    refused(&fixture("timm_convnext"), &with(classes(7, 40, &scratch)), &["stands on a ViT"]);
    refused(&fixture("timm_gap_norm"), &with(published("nyu_linear_head")), &["128 columns", "36 wide"]);
    let none = convert_err(&fixture("dinov2_own"), &with(fixture("hf_vit").join("config.json"))).to_string();
    assert!(none.contains("config.json"), "{none}");
}
