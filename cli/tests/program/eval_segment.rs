//! `eval` of segmentation models: counts of pixels against label PNGs, and the comparison with f32.

use image::GrayImage;
use serde_json::json;

use crate::common::{Scene, checkpoint, colorful, error, json, partial, run, stdout};

const LABELS: &str = "floor\nwall\nball\ncolumn\nbox\n";

fn model(scene: &Scene, precision: &str) -> String {
    let (model, labels) = (scene.path(&format!("{precision}.gguf")), scene.path("labels.txt"));
    std::fs::write(&labels, LABELS).unwrap();
    let backbone = checkpoint("dinov2_own").display().to_string();
    let options = format!("--head {backbone}/heads/classes_ms_head.safetensors --labels {labels}");
    stdout(&format!("convert {backbone} -o {model} --precision {precision} {options}"));
    model
}

/// Pictures with the classes that the f32 network finds, of which some are changed; and what that makes.
fn pictures(scene: &Scene, model: &str) -> (f64, f64) {
    let (mut hits, mut pixels, mut counts) = (0.0, 0.0, [[0.0_f64; 3]; 5]);
    for i in 0..4 {
        let (picture, labels) =
            (scene.path(&format!("set/pictures/{i}.png")), scene.path(&format!("set/classes/{i}.png")));
        for file in [&picture, &labels] {
            std::fs::create_dir_all(std::path::Path::new(file).parent().unwrap()).unwrap();
        }
        colorful(64, 48, i).save(&picture).unwrap();
        stdout(&format!("segment -m {model} {picture} -o {labels} --format ids"));
        let mut truth = image::open(&labels).unwrap().into_luma8();
        for (at, pixel) in truth.pixels_mut().enumerate() {
            let found = usize::from(pixel.0[0]);
            match at % 7 {
                0 => pixel.0[0] = 255,
                3 => pixel.0[0] = (pixel.0[0] + 1) % 5,
                _ => {}
            }
            let Some(counts_of_truth) = counts.get_mut(usize::from(pixel.0[0])) else { continue };
            counts_of_truth[0] += 1.0;
            counts[found][1] += 1.0;
            counts[found][2] += f64::from(u8::from(usize::from(pixel.0[0]) == found));
            pixels += 1.0;
            hits += f64::from(u8::from(usize::from(pixel.0[0]) == found));
        }
        truth.save(&labels).unwrap();
    }
    let ious: Vec<f64> =
        counts.iter().filter(|[a, b, _]| a + b > 0.0).map(|[a, b, both]| both / (a + b - both)).collect();
    (ious.iter().sum::<f64>() / ious.len() as f64, hits / pixels)
}

#[test]
fn pixels_are_counted_over_all_pictures_and_compared_with_f32() {
    let scene = Scene::new();
    let (single, eight) = (model(&scene, "f32"), model(&scene, "int8"));
    let (miou, accuracy) = pictures(&scene, &single);
    let set = scene.path("set");
    let found = json(&format!("eval -m {single} {set} --json"));
    let near = |got: &serde_json::Value, want: f64| (got.as_f64().unwrap() - want).abs() < 1e-12;
    assert!(near(&found["miou"], miou) && near(&found["pixel_accuracy"], accuracy), "{found}, {miou}, {accuracy}");
    assert_eq!((&found["n"], &found["results"][0]["pixels"]), (&json!(4), &json!(64 * 48 - (64_u32 * 48).div_ceil(7))));
    let class = &found["classes"][0];
    assert_eq!(class["label"], LABELS.lines().nth(class["index"].as_u64().unwrap() as usize).unwrap());
    let both = json(&format!("eval -m {eight} {set} --reference {single} --json"));
    let reference = &both["reference"];
    assert!(near(&reference["miou"], miou) && near(&reference["pixel_accuracy"], accuracy));
    let difference = both["miou"].as_f64().unwrap() - miou;
    assert!(near(&reference["miou_difference"]["difference"], difference));
    let interval = &reference["miou_difference"]["interval"];
    assert!(interval[0].as_f64().unwrap() <= difference && difference <= interval[1].as_f64().unwrap());
    let text = stdout(&format!("eval -m {eight} {set} --reference {single}"));
    assert!(text.contains("mIoU") && text.contains("verdict") && text.contains("IoU"), "{text}");
    let same = json(&format!("eval -m {single} {set} --reference {single} --json"));
    assert_eq!(same["reference"]["miou_difference"]["interval"], json!([0.0, 0.0]));
    // A loss can be a failed check: labels that f32 alone meets.
    if difference < -1e-3 {
        let output = run(&format!("eval -m {eight} {set} --reference {single} --max-drop 0.01"));
        assert_eq!(output.status.code(), Some(3));
    }
}

#[test]
fn what_cannot_be_measured_is_named() {
    let scene = Scene::new();
    let model = model(&scene, "int8");
    for i in 0..2 {
        scene.picture(&format!("set/{i}.jpg"), i);
    }
    let set = scene.path("set");
    assert!(error(&format!("eval -m {model} {set}"), 1).contains("no classes: NAME.png"));
    GrayImage::from_pixel(53, 41, image::Luma([1])).save(scene.path("set/0.png")).unwrap();
    let (text, errors) = partial(&format!("eval -m {model} {set}"));
    assert!(text.contains("1 pictures") && errors.contains("no classes"), "{text}{errors}");
    GrayImage::from_pixel(53, 41, image::Luma([7])).save(scene.path("set/1.png")).unwrap();
    let (_, errors) = partial(&format!("eval -m {model} {set}"));
    assert!(errors.contains("label 7, but the model has 5 classes, counted from 0"), "{errors}");
    GrayImage::from_pixel(41, 53, image::Luma([1])).save(scene.path("set/1.png")).unwrap();
    let (_, errors) = partial(&format!("eval -m {model} {set}"));
    assert!(errors.contains("another shape"), "{errors}");
    let csv = scene.path("pairs.csv");
    std::fs::write(&csv, "path,classes\nset/0.jpg,set/0.png\n").unwrap();
    let counted = json(&format!("eval -m {model} {csv} --json --reduce-zero-label"));
    assert!(counted["classes"][0]["index"].is_u64());
    for (option, why) in
        [("--flips x.csv", "classes of pictures"), ("--depth-scale 2", "depth models"), ("--max-drop 1", "reference")]
    {
        assert!(error(&format!("eval -m {model} {csv} {option}"), 2).contains(why), "{option}");
    }
}

/// The network of models/scenes on held-out scenes. PyTorch in f32 finds the same class for every pixel.
#[test]
fn a_trained_network_keeps_its_classes_in_int8() {
    let scene = Scene::new();
    let scenes = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/scenes");
    let [single, eight] = ["f32", "int8"].map(|precision| {
        let model = scene.path(&format!("{precision}.gguf"));
        let options = format!("--head {scenes}/segment_head.pth --labels {scenes}/held-out/classes.txt");
        stdout(&format!("convert {scenes}/segment -o {model} --precision {precision} {options}"));
        model
    });
    let found = json(&format!("eval -m {eight} {scenes}/held-out --reference {single} --json"));
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let reference = &found["reference"];
    assert!((number(&reference["miou"]) - 0.796_370_726).abs() < 2e-4, "{reference}");
    assert!((number(&reference["pixel_accuracy"]) - 0.935_374_150).abs() < 2e-4, "{reference}");
    assert!(number(&reference["miou_difference"]["difference"]) > -0.005, "{reference}");
}
