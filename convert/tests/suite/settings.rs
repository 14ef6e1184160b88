//! The small files of a checkpoint about pictures, labels, scores and licences, and the announcements where they are
//! silent.

use std::fs;

use crate::common::{Copy, Tensors, convert_err, convert_ok, copy, fixture, save, tensors};
use serde_json::{Value, json};
use vitlet::picture::{Interpolation, Resize, Scale, SizeRule};
use vitlet::{Model, Scores};
use vitlet_convert::{Balance, Converted, Options, convert, imagenet_names};

impl Copy {
    fn converted(&self) -> Converted {
        convert_ok(&self.dir, &Options::default())
    }

    /// A head of `classes` classes instead of the fixture's.
    fn with_classes(&self, classes: usize, head: &str) {
        let mut all: Tensors = tensors(&self.dir);
        for leaf in ["weight", "bias"] {
            let (_, shape, data) = all.get_mut(&format!("{head}.{leaf}")).expect("a head");
            let row = data.len() / shape[0];
            *data = data.iter().copied().cycle().take(row * classes).collect();
            shape[0] = classes;
        }
        save(&all, &self.dir.join("model.safetensors"));
    }
}

fn told(converted: &Converted) -> String {
    converted.report.announcements.join("\n")
}

/// timm's config.json of 2021 and 2022, which its loader reads to this day.
#[test]
fn timms_older_configuration() {
    let c = copy("timm_vit");
    c.edit("config.json", |j| {
        let pretrained = json!({"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.25],
            "crop_pct": 0.9, "interpolation": "bilinear", "license": "mit", "classifier": "head", "pool_size": null,
            "labels": ["a", "b", "c", "d", "e", "f", "g"], "num_classes": 7});
        let flat = j.as_object_mut().expect("an object");
        flat.remove("pretrained_cfg");
        flat.extend(pretrained.as_object().expect("an object").clone());
    });
    let converted = c.converted();
    let model = Model::parse(&converted.bytes).expect("a model");
    let p = model.preprocess();
    assert_eq!((p.mean, p.std), ([0.5, 0.4, 0.3], [0.5, 0.5, 0.25]));
    assert_eq!((p.resize, p.interpolation), (Resize::ShorterEdge(35), Interpolation::Bilinear)); // floor(32 / 0.9)
    assert_eq!(model.labels().collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(converted.report.license.as_deref(), Some("mit"));
    assert!(!told(&converted).contains("does not say"), "{}", told(&converted));
}

#[test]
fn a_byte_order_mark_before_json_is_no_part_of_it() {
    let c = copy("hf_vit");
    for file in ["config.json", "preprocessor_config.json"] {
        let marked = [b"\xef\xbb\xbf".to_vec(), fs::read(c.dir.join(file)).expect("read")].concat();
        c.write(file, marked);
    }
    assert!(c.converted().bytes[..] == convert_ok(&fixture("hf_vit"), &Options::default()).bytes[..]);
}

#[test]
fn defaults_of_timm_are_announced() {
    let c = copy("timm_vit");
    c.edit("config.json", |j| {
        j["pretrained_cfg"] = json!({"input_size": [3, 32, 32], "std": [0.2, 0.2, 0.2], "interpolation": "bicubic"});
    });
    let text = told(&c.converted());
    let guess = "omits settings for pictures: timm's defaults are taken, mean 0.485,0.456,0.406, crop-pct 0.875";
    assert!(text.contains(guess), "{text}");
    let options = Options { mean: Some([0.5; 3]), crop_pct: Some(1.0), ..Options::default() };
    assert!(!told(&convert_ok(&c.dir, &options)).contains("does not say"));
}

#[test]
fn an_image_processor_within_processor_config_json_wins() {
    let nested = json!({"processor_class": "CLIPProcessor", "image_processor": {"image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}});
    for keep in [true, false] {
        let c = copy("hf_vit");
        if !keep {
            fs::remove_file(c.dir.join("preprocessor_config.json")).expect("removed");
        }
        c.write("processor_config.json", nested.to_string());
        let converted = c.converted();
        let p = *Model::parse(&converted.bytes).expect("a model").preprocess();
        assert_eq!((p.resize, p.interpolation), (Resize::ShorterEdge(40), Interpolation::Bicubic));
        assert_eq!((p.mean, p.std), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
        assert!(!told(&converted).contains("no preprocessor_config.json"));
    }
    // One without an image processor says nothing.
    let c = copy("hf_vit");
    c.write("processor_config.json", r#"{"processor_class": "ViTProcessor"}"#);
    assert!(c.converted().bytes[..] == convert_ok(&fixture("hf_vit"), &Options::default()).bytes[..]);
    c.write("processor_config.json", r#"{"image_processor": {"image_processor_type": "SiglipImageProcessor"}}"#);
    c.refused(&["processor_config.json, image_processor.image_processor_type: SiglipImageProcessor is not supported"]);
}

#[test]
fn a_processor_that_keeps_the_aspect_ratio_gives_the_file_a_rule() {
    let rule = |c: &Copy, options: &Options| {
        let converted = convert_ok(&c.dir, options);
        let p = *Model::parse(&converted.bytes).expect("a model").preprocess();
        (p.size_rule, p.size_for((480, 640)), told(&converted))
    };
    let c = copy("hf_depth_anything");
    let (own, size, text) = rule(&c, &Options::default());
    assert_eq!((own, size), (Some(SizeRule { scale: Scale::Nearer, multiple: 14 }), (42, 56)));
    assert!(text.contains("pictures keep their aspect ratio") && text.contains("--size WxH"), "{text}");
    let fixed = Options { image_size: Some((28, 42)), ..Options::default() };
    assert_eq!(rule(&c, &fixed).0, None);
    c.edit("preprocessor_config.json", |j| j["ensure_multiple_of"] = 16.into());
    let (none, size, text) = rule(&c, &Options::default());
    assert_eq!((none, size), (None, (42, 42)));
    assert!(text.contains("ensure_multiple_of of the processor is 16, no multiple of the patch"), "{text}");
    c.edit("preprocessor_config.json", |j| j["keep_aspect_ratio"] = false.into());
    assert_eq!(rule(&c, &Options::default()).0, None);
    fs::remove_file(c.dir.join("preprocessor_config.json")).expect("removed");
    assert_eq!(rule(&c, &Options::default()).0, own);
}

#[test]
fn without_a_processor_the_guess_is_the_published_checkpoints_and_named() {
    let c = copy("hf_dinov2");
    fs::remove_file(c.dir.join("preprocessor_config.json")).expect("removed");
    let converted = c.converted();
    let p = *Model::parse(&converted.bytes).expect("a model").preprocess();
    assert_eq!((p.mean, p.std), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    assert_eq!((p.height, p.resize), (56, Resize::ShorterEdge(64)));
    let text = told(&converted);
    assert!(text.contains("no preprocessor_config.json: pictures are prepared as the published dinov2"), "{text}");
    assert!(text.contains("shorter edge to 64, bicubic, crop 56x56") && text.contains("answers are wrong"), "{text}");
}

#[test]
fn errors_name_the_file_that_a_setting_is_in() {
    let edited = |key: &str, value: Value| {
        let c = copy("hf_vit");
        c.edit("preprocessor_config.json", |j| j[key] = value);
        c
    };
    edited("image_processor_type", "Siglip".into())
        .refused(&["preprocessor_config.json, image_processor_type: Siglip"]);
    edited("resample", 0.into()).refused(&["preprocessor_config.json, resample: nearest is not supported"]);
    edited("size", json!({"longest_edge": 5})).refused(&["preprocessor_config.json, size: neither height and width"]);
    edited("image_mean", "x".into()).refused(&["preprocessor_config.json, image_mean: "]);
}

#[test]
fn sizes_are_never_cut_to_32_bits() {
    let cut = (1u64 << 32) + 32;
    let c = copy("hf_vit");
    c.edit("config.json", |j| j["image_size"] = cut.into());
    c.refused(&["config.json, image_size: 4294967328 is not a size of 1 to 16777216 pixels"]);
    for size in [json!(cut), json!({"height": cut, "width": cut}), json!({"shortest_edge": 1u64 << 40})] {
        let c = copy("hf_vit");
        c.edit("preprocessor_config.json", |j| j["size"] = size);
        c.refused(&["preprocessor_config.json, size", "16777216"]);
    }
    let c = copy("timm_vit");
    c.edit("config.json", |j| {
        j["model_args"].as_object_mut().expect("an object").remove("img_size");
        j["pretrained_cfg"]["input_size"] = json!([3, cut, cut]);
    });
    c.refused(&["config.json, pretrained_cfg.input_size: [3,4294967328,4294967328] is not"]);
    let options = Options { image_size: Some((cut as usize, cut as usize)), ..Options::default() };
    let text = convert_err(&fixture("timm_vit"), &options).to_string();
    assert!(text.contains("image size must be 1 to 16384"), "{text}");
}

#[test]
fn one_logit_is_a_sigmoid() {
    for (name, head) in [("timm_vit", "head"), ("hf_vit", "classifier")] {
        let c = copy(name);
        c.with_classes(1, head);
        c.edit("config.json", |j| {
            let object = j.as_object_mut().expect("an object");
            object.remove("id2label");
            if let Some(args) = object.get_mut("model_args") {
                args["num_classes"] = 1.into();
            }
        });
        let converted = c.converted();
        assert_eq!(Model::parse(&converted.bytes).expect("a model").config().scores, Scores::Sigmoid, "{name}");
        assert_eq!(converted.report.scores, "sigmoid");
        assert!(told(&converted).contains("one logit: its score is a sigmoid"), "{name}");
    }
    assert!(told(&convert_ok(&fixture("hf_vit_multi_label"), &Options::default())).contains("multi-label"));
    let c = copy("hf_vit");
    c.edit("config.json", |j| j["problem_type"] = "regression".into());
    assert!(told(&c.converted()).contains("regression: the logits are the answer"));
}

#[test]
fn a_thousand_own_classes_are_not_imagenets() {
    let labels = |c: &Copy| {
        let converted = c.converted();
        let model = Model::parse(&converted.bytes).expect("a model");
        (model.labels().map(str::to_owned).collect::<Vec<_>>(), told(&converted))
    };
    let hf = copy("hf_vit");
    hf.with_classes(1000, "classifier");
    let species = |i: usize| (i.to_string(), Value::String(format!("species {}", i - 1)));
    hf.edit("config.json", |j| j["id2label"] = Value::Object((1..=1000).map(species).collect()));
    let (names, text) = labels(&hf);
    assert_eq!((names.len(), names[0].as_str(), names[1].as_str()), (1000, "class 0", "species 0"));
    assert!(text.contains("id2label: its indices start at 1, classes at 0"), "{text}");
    hf.edit("config.json", |j| drop(j.as_object_mut().expect("an object").remove("id2label")));
    let (names, text) = labels(&hf);
    assert!(names.is_empty() && text.contains("1000 classes without names"), "{text}");

    let timm = copy("timm_vit");
    timm.with_classes(1000, "head");
    timm.edit("config.json", |j| {
        j.as_object_mut().expect("an object").remove("label_names");
        (j["num_classes"], j["model_args"]["num_classes"], j["pretrained_cfg"]["num_classes"]) =
            (1000.into(), 1000.into(), 1000.into());
    });
    assert!(labels(&timm).0.is_empty());
    timm.edit("config.json", |j| j["pretrained_cfg"]["tag"] = "augreg_in21k_ft_in1k".into());
    let (names, text) = labels(&timm);
    assert!(names.iter().map(String::as_str).eq(imagenet_names()), "{}", names.len());
    assert!(text.contains("because it says tag augreg_in21k_ft_in1k"), "{text}");
}

#[test]
fn licences_are_kept_and_what_they_forbid_is_said() {
    let c = copy("hf_vit");
    assert!(told(&c.converted()).contains("no licence is stated"));
    c.write("README.md", "---\nlicense: cc-by-nc-4.0\n---\n# A model\n");
    let converted = c.converted();
    let model = Model::parse(&converted.bytes).expect("a model");
    assert_eq!(model.text("general.license"), Some("cc-by-nc-4.0"));
    assert_eq!(converted.report.license.as_deref(), Some("cc-by-nc-4.0"));
    assert!(told(&converted).contains("the licence cc-by-nc-4.0 forbids commercial use"));
    c.write("README.md", [0xff; 70_000]);
    assert!(convert(&c.dir, &Options::default(), &mut |_| {}).is_ok());

    // timm's own statement wins over its README.
    let c = copy("timm_vit");
    c.write("README.md", "---\nlicense: mit\n---\n");
    let converted = c.converted();
    assert_eq!(converted.report.license.as_deref(), Some("apache-2.0"));
    assert!(!told(&converted).contains("licence"), "{}", told(&converted));
    c.edit("config.json", |j| j["pretrained_cfg"]["license"] = Value::Null);
    assert_eq!(c.converted().report.license.as_deref(), Some("mit"));
}

/// A pipe would be waited for, and nobody writes to it.
#[test]
#[cfg(unix)]
fn a_readme_that_is_a_pipe_is_not_opened() {
    let c = copy("hf_vit");
    assert!(std::process::Command::new("mkfifo").arg(c.file("README.md")).status().expect("run").success());
    assert!(told(&c.converted()).contains("no licence is stated"));
}

#[test]
fn folded_norms_are_not_balanced() {
    let c = copy("timm_vit");
    let mut all = tensors(&c.dir);
    let norm = &mut all.get_mut("blocks.0.norm1.weight").expect("there").2;
    norm[..4].copy_from_slice(&1000_f32.to_le_bytes());
    save(&all, &c.file("model.safetensors"));
    assert!(!c.converted().report.balanced.is_empty());
    let folded = |balance: Balance| convert_ok(&c.dir, &Options { fold_norm: true, balance, ..Options::default() });
    let auto = folded(Balance::Auto);
    assert!(auto.bytes[..] == folded(Balance::Off).bytes[..] && auto.report.balanced.is_empty());
    assert!(told(&auto).contains("norms are folded (--fold-norm), so no channels are balanced"), "{}", told(&auto));
}
