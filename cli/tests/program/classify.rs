//! `classify`: output, JSON, digests, orientation, where pictures come from.

use crate::common::{Scene, colorful, error, json, partial, run, run_with_input, stdout};
use image::{ExtendedColorType, ImageEncoder};

#[test]
fn json_has_the_documented_shape() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (a, b) = (scene.picture("a.png", 1), scene.picture("b.webp", 2));
    let document = json(&format!("classify -m {model} {a} {b} --json --top-k 3"));
    assert_eq!(document["model"], model.as_str());
    let results = document["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["image"], a.as_str());
    assert!(results[0]["ms"].as_f64().unwrap() > 0.0);
    assert!(results[0].get("digest").is_none());
    let top = results[0]["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    let probability = |i: usize| top[i]["probability"].as_f64().unwrap();
    assert!(probability(0) >= probability(1) && probability(1) >= probability(2) && probability(0) <= 1.0);
    assert!(top[0]["logit"].is_f64() && top[0]["index"].is_u64());
    let labels = ["ant", "bee", "crane", "dove", "emu", "finch", "gull"];
    assert_eq!(top[0]["label"], labels[top[0]["index"].as_u64().unwrap() as usize]);
}

#[test]
fn text_is_plain_in_a_pipe() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let a = scene.picture("a.png", 1);
    let text = stdout(&format!("classify -m {model} {a} --top-k 2 --digest"));
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with(&a) && lines[0].ends_with(" ms"));
    assert!(lines[1].contains(" %  "));
    assert_eq!(lines[3].trim().strip_prefix("digest ").unwrap().len(), 16);
}

#[test]
fn a_class_without_a_label_has_its_number() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let text = stdout(&format!("classify -m {model} {} --top-k 1", scene.picture("a.png", 1)));
    let guess: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(guess[3..], ["class", guess[2]], "{text}");
}

#[test]
fn int8_digests_are_equal_for_every_kernel_and_thread_count() {
    let scene = Scene::new();
    for name in ["hf_vit", "timm_reg4_gap", "timm_deit3"] {
        let model = scene.model(name, "int8");
        let a = scene.picture("a.png", 1);
        let digest = |options: &str| {
            json(&format!("classify -m {model} {a} --json --digest {options}"))["results"][0]["digest"].clone()
        };
        let expected = digest("--threads 1");
        assert_eq!(digest("--threads 2"), expected);
        for kernels in vitlet::Kernels::available() {
            assert_eq!(digest(&format!("--threads 2 --kernel {}", kernels.name())), expected, "{}", kernels.name());
        }
        assert_ne!(
            json(&format!("classify -m {model} {} --json --digest", scene.picture("b.png", 2)))["results"][0]["digest"],
            expected
        );
    }
}

#[test]
fn exif_orientation_is_obeyed() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let upright = colorful(48, 32, 5);
    upright.save(scene.path("upright.png")).unwrap();
    // Stored turned by a quarter, with an EXIF chunk that says so: 6 is "turn clockwise to see it".
    let turned = image::imageops::rotate270(&upright);
    let tiff = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(tiff.to_vec()).unwrap();
    encoder.write_image(&turned, turned.width(), turned.height(), ExtendedColorType::Rgb8).unwrap();
    std::fs::write(scene.path("turned.png"), bytes).unwrap();
    turned.save(scene.path("unmarked.png")).unwrap();

    let digest = |name: &str| {
        json(&format!("classify -m {model} {} --json --digest", scene.path(name)))["results"][0]["digest"].clone()
    };
    assert_eq!(digest("turned.png"), digest("upright.png"));
    assert_ne!(digest("unmarked.png"), digest("upright.png"));
}

#[test]
fn pictures_come_from_directories_and_standard_input() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    for name in ["photos/b.bmp", "photos/a.jpg", "photos/deep/c.png"] {
        scene.picture(name, 1);
    }
    std::fs::write(scene.path("photos/notes.txt"), "no picture").unwrap();
    let document = json(&format!("classify -m {model} {} --json", scene.path("photos")));
    let images: Vec<_> = document["results"].as_array().unwrap().iter().map(|r| r["image"].as_str().unwrap()).collect();
    assert_eq!(images, ["photos/a.jpg", "photos/b.bmp", "photos/deep/c.png"].map(|name| scene.path(name)));

    let bytes = std::fs::read(scene.path("photos/a.jpg")).unwrap();
    let output = run_with_input(&format!("classify -m {model} - --json --digest"), &bytes);
    let from_stdin: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(from_stdin["results"][0]["image"], "standard input");
    let from_file = json(&format!("classify -m {model} {} --json --digest", scene.path("photos/a.jpg")));
    assert_eq!(from_stdin["results"][0]["digest"], from_file["results"][0]["digest"]);
}

#[test]
fn a_broken_picture_is_named_and_the_others_are_classified() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let good = scene.picture("good.jpg", 1);
    let broken = scene.path("broken.jpg");
    let bytes = std::fs::read(&good).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(error(&format!("classify -m {model} {broken}"), 1), format!("{broken}: truncated JPEG"));
    let (text, errors) = partial(&format!("classify -m {model} {broken} {good} --json"));
    assert_eq!(errors, format!("error: {broken}: truncated JPEG\nwarning: 1 of 2 inputs left out\n"));
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schema"], 1);
    let results = document["results"].as_array().unwrap();
    assert_eq!(results[0], serde_json::json!({"image": broken, "error": "truncated JPEG"}));
    assert_eq!(
        (&results[1]["image"], &results[1]["width"], &results[1]["height"]),
        (&good.into(), &53.into(), &41.into())
    );
    let ms = |key: &str| results[1][key].as_f64().unwrap();
    assert!(ms("prepare_ms") > 0.0 && ms("run_ms") > 0.0 && (ms("prepare_ms") + ms("run_ms") - ms("ms")).abs() < 1e-6);
    // All of them: failed, and the document says why.
    let output = run(&format!("classify -m {model} {broken} --json"));
    assert_eq!(output.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["results"], serde_json::json!([{"image": broken, "error": "truncated JPEG"}]));
    std::fs::create_dir(scene.path("empty")).unwrap();
    assert!(error(&format!("classify -m {model} {}", scene.path("empty")), 1).contains("no JPEG, PNG, WebP or BMP"));
}

#[test]
fn a_model_without_head_has_nothing_to_classify() {
    let scene = Scene::new();
    let model = scene.model("timm_features", "int8");
    let why = error(&format!("classify -m {model} {}", scene.picture("a.png", 1)), 1);
    assert!(
        why.ends_with("no classification head: `vitlet embed` writes its features, `vitlet run` all outputs"),
        "{why}"
    );
}

#[test]
fn the_built_in_model_says_what_it_is() {
    let scene = Scene::new();
    let output = run(&format!("classify {}", scene.picture("a.png", 1)));
    assert!(output.status.success());
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("built-in") && note.contains("ten classes") && note.contains("-m model.gguf"), "{note}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 6);
}
