//! `eval` and `bench`: mapping of folders, references, numbers.

use crate::common::{Scene, checkpoint, error, json, npy, run, stdout, write_npy};

/// The class that a model gives a picture.
fn first(model: &str, picture: &str) -> u64 {
    json(&format!("classify -m {model} {picture} --json"))["results"][0]["top"][0]["index"].as_u64().unwrap()
}

#[test]
fn folders_are_matched_to_labels() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    for picture in ["data/Crane/a.png", "data/dove/a.png", "data/dove/b.jpg"] {
        scene.picture(picture, 3);
    }
    let data = scene.path("data");
    let text = stdout(&format!("eval -m {model} {data}"));
    assert!(
        text.contains("Crane  ->  2 crane, 1 pictures") && text.contains("dove   ->  3 dove, 2 pictures"),
        "{text}"
    );

    let report = json(&format!("eval -m {model} {data} --json"));
    let right = ["data/Crane/a.png", "data/dove/a.png", "data/dove/b.jpg"].iter().zip([2, 3, 3]);
    let right = right.filter(|(p, label)| first(&model, &scene.path(p)) == *label).count();
    assert_eq!(report["top1"].as_f64().unwrap(), right as f64 / 3.0);
    assert_eq!(report["n"], 3);
    assert_eq!(report["folders"][0]["index"], 2);
    assert!(report["top5"].as_f64() >= report["top1"].as_f64());
    assert!(report["median_ms"].as_f64().unwrap() > 0.0);

    std::fs::create_dir(scene.path("data/eagle")).unwrap();
    let why = error(&format!("eval -m {model} {data}"), 1);
    assert!(why.ends_with("eagle: folder matches none of the model's 7 labels (ant, ...)"), "{why}");
}

#[test]
fn accuracy_counts_the_labels_that_classify_gives() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let mut csv = "path,label_index\n".to_string();
    for seed in 0..6 {
        let picture = scene.picture(&format!("{seed}.png"), seed);
        // Every third one is labelled wrong on purpose.
        let label = (first(&model, &picture) + u64::from(seed % 3 == 0)) % 7;
        csv += &format!("{seed}.png,{label}\n");
    }
    let path = scene.path("labels.csv");
    std::fs::write(&path, csv).unwrap();
    let report = json(&format!("eval -m {model} {path} --json --threads 2"));
    assert_eq!(report["top1"].as_f64().unwrap(), 4.0 / 6.0);
    assert_eq!(report["threads"], 2);
    assert!(report["reference"].is_null());
    let report = json(&format!("eval -m {model} {path} --json --limit 4"));
    assert_eq!((report["n"].as_u64(), report["top1"].as_f64()), (Some(4), Some(0.5)));
}

#[test]
fn references_by_checkpoint_model_file_and_logits_agree() {
    let scene = Scene::new();
    let (int8, f32) = (scene.model("hf_vit", "int8"), scene.model("hf_vit", "f32"));
    let (csv, x, y) = (scene.path("labels.csv"), scene.path("x.npy"), scene.path("y.npy"));
    let mut logits = Vec::new();
    for name in ["a.png", "b.jpg", "c.webp"] {
        let picture = scene.picture(name, name.as_bytes()[0].into());
        stdout(&format!("preprocess -m {f32} {picture} -o {x}"));
        stdout(&format!("run -m {f32} --input {x} --output {y}"));
        logits.extend(npy(&y));
    }
    std::fs::write(&csv, "a.png,0\nb.jpg,1\nc.webp,2\n").unwrap();
    write_npy(&y, "(3, 7)", &logits);

    let compare =
        |model: &str, reference: &str| json(&format!("eval -m {model} {csv} --json {reference}"))["reference"].clone();
    let directory = checkpoint("hf_vit");
    let same = compare(&f32, &format!("--reference {}", directory.display()));
    assert_eq!((same["agreement"].as_f64(), same["relative_logit_error"].as_f64()), (Some(1.0), Some(0.0)));
    let by_model = compare(&int8, &format!("--reference {f32}"));
    let error_of = |c: &serde_json::Value| c["relative_logit_error"].as_f64().unwrap();
    assert!(error_of(&by_model) > 0.0 && error_of(&by_model) < 0.2, "{by_model}");
    let by_logits = compare(&int8, &format!("--reference-logits {y}"));
    assert!((error_of(&by_logits) - error_of(&by_model)).abs() < 1e-6, "{by_logits} {by_model}");
    assert!(error(&format!("eval -m {f32} {csv} --reference {int8}"), 1).contains("a reference is f32"));
    write_npy(&y, "(2, 7)", &logits[..14]);
    let why = error(&format!("eval -m {int8} {csv} --reference-logits {y}"), 1);
    assert!(why.ends_with("shape [2, 7], the dataset wants [3, 7]"), "{why}");
}

#[test]
fn unreadable_pictures_are_counted_and_named() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let (good, csv) = (scene.picture("good.png", 1), scene.path("labels.csv"));
    std::fs::write(&csv, format!("missing.png,0\ngood.png,{}\n", first(&model, &good))).unwrap();
    let output = run(&format!("eval -m {model} {csv} --json"));
    assert!(output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.trim_end(), format!("error: {}: No such file or directory", scene.path("missing.png")));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["unreadable"], serde_json::json!([scene.path("missing.png")]));
    assert_eq!((report["n"].as_u64(), report["top1"].as_f64()), (Some(1), Some(1.0)));
    assert!(stdout(&format!("eval -m {model} {csv}")).contains("1, 1 unreadable"));
}

#[test]
fn bench_reports_what_it_measured() {
    let scene = Scene::new();
    let model = scene.model("timm_deit3", "int8");
    let report = json(&format!("bench -m {model} --threads 2 --warmup 0 --iters 5 --kernel scalar --json"));
    let ms = |key: &str| report[key].as_f64().unwrap();
    assert!(0.0 < ms("min_ms") && ms("min_ms") <= ms("median_ms") && ms("median_ms") <= ms("p95_ms"));
    assert_eq!((&report["threads"], &report["iters"], &report["warmup"]), (&2.into(), &5.into(), &0.into()));
    assert_eq!((&report["kernel"], &report["precision"]), (&"scalar".into(), &"int8".into()));
    assert_eq!(report["layerscale"], "fold");
    assert!(ms("gmac_per_s") > 0.0 && ms("scratch_bytes") > 0.0);
    assert_eq!(report["peak_memory_bytes"].is_u64(), cfg!(target_os = "linux"));
    assert!(stdout(&format!("bench -m {model} --iters 2")).contains("median"));
}
