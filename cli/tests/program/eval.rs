//! `eval` and `bench`: mapping of folders, references, numbers.

use serde_json::Value;

use crate::common::{Scene, checkpoint, error, json, npy, partial, run, stdout, write_npy};

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
fn a_reference_that_prepares_pictures_otherwise_is_told() {
    let scene = Scene::new();
    let (source, model) = (checkpoint("hf_vit").display().to_string(), scene.path("other.gguf"));
    stdout(&format!("convert {source} -o {model} --mean 0.1,0.2,0.3"));
    let (same, csv) = (scene.model("hf_vit", "int8"), scene.path("labels.csv"));
    scene.picture("a.png", 1);
    std::fs::write(&csv, "a.png,0\n").unwrap();
    let said = |model: &str| {
        let output = run(&format!("eval -m {model} {csv} --reference {source}"));
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(said(&same), "");
    let warning = said(&model);
    assert_eq!(warning.lines().count(), 1, "{warning}");
    let words = "warning: model and reference prepare pictures differently: the model ";
    assert!(
        warning.starts_with(words) && warning.contains("mean [0.1, 0.2, 0.3]") && warning.contains(&source),
        "{warning}"
    );
    assert_eq!(warning.matches("mean [").count(), 2, "{warning}");
}

#[test]
fn unreadable_pictures_are_counted_and_named() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let (good, csv) = (scene.picture("good.png", 1), scene.path("labels.csv"));
    std::fs::write(&csv, format!("missing.png,0\ngood.png,{}\n", first(&model, &good))).unwrap();
    let (text, errors) = partial(&format!("eval -m {model} {csv} --json"));
    let (missing, why) = (scene.path("missing.png"), "No such file or directory");
    assert_eq!(errors, format!("error: {missing}: {why}\nwarning: 1 of 2 inputs left out\n"));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["schema"], &report["unreadable"]), (&1.into(), &serde_json::json!([missing])));
    assert_eq!(report["results"][0], serde_json::json!({"index": 0, "image": missing, "error": why}));
    let read = &report["results"][1];
    assert_eq!((&read["image"], &read["width"], &read["index"]), (&good.into(), &53.into(), &1.into()));
    assert!(read["prepare_ms"].as_f64().unwrap() > 0.0 && read["run_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((report["n"].as_u64(), report["top1"].as_f64()), (Some(1), Some(1.0)));
    assert!(partial(&format!("eval -m {model} {csv}")).0.contains("1, 1 left out"));
}

#[test]
fn without_a_picture_left_there_is_a_document() {
    let scene = Scene::new();
    let (model, csv, flips) = (scene.model("timm_vit", "int8"), scene.path("labels.csv"), scene.path("flips.csv"));
    std::fs::write(&csv, "a.png,0\nb.png,1\n").unwrap();
    let reference = checkpoint("timm_vit").display().to_string();
    let eval = format!("eval -m {model} {csv} --reference {reference} --flips {flips} --max-drop 1");
    let output = run(&format!("{eval} --json"));
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [a, b] = ["a.png", "b.png"].map(|name| scene.path(name));
    assert_eq!((&report["n"], &report["unreadable"]), (&0.into(), &serde_json::json!([a, b])));
    for none in ["top1", "top5", "median_ms", "latency", "reference"] {
        assert!(report[none].is_null(), "{none}: {report}");
    }
    assert_eq!(report["results"][1]["image"], b);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, [a, b].map(|path| format!("error: {path}: No such file or directory\n")).concat());
    let text = String::from_utf8(run(&eval).stdout).unwrap();
    assert!(text.trim_end().ends_with("0, 2 left out"), "{text}");
    assert!(!std::path::Path::new(&flips).exists());
}

#[test]
fn parts_without_a_picture_add_up() {
    let scene = Scene::new();
    let (model, csv) = (scene.model("timm_vit", "int8"), scene.path("labels.csv"));
    let good = scene.picture("good.png", 1);
    std::fs::write(&csv, format!("missing.png,0\ngood.png,{}\n", first(&model, &good))).unwrap();
    // The first part's picture is missing, and the third part has none.
    let [a, b, c] = [(1, 1), (2, 0), (3, 0)].map(|(i, status)| {
        let (output, path) = (run(&format!("eval -m {model} {csv} --json --shard {i}/3")), scene.path(&format!("{i}")));
        assert_eq!(output.status.code(), Some(status), "part {i}");
        std::fs::write(&path, output.stdout).unwrap();
        path
    });
    let merged: Value = serde_json::from_str(&partial(&format!("eval --merge {a} {b} {c} --json")).0).unwrap();
    assert_eq!((merged["n"].as_u64(), merged["top1"].as_f64()), (Some(1), Some(1.0)));
    assert_eq!(merged["results"][0]["image"], scene.path("missing.png"));
}

#[test]
fn a_failed_check_counts_more_than_pictures_left_out() {
    let (scene, eval) = paired_scene();
    std::fs::write(scene.path("4.png"), "no picture").unwrap();
    let rejected = run(&format!("{eval} --max-drop=-100"));
    assert_eq!(rejected.status.code(), Some(3), "{}", String::from_utf8_lossy(&rejected.stderr));
}

#[test]
fn bench_without_a_model_takes_the_built_in_one() {
    let output = run("bench --iters 1 --warmup 0 --threads 1 --json");
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("built-in model: "));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["schema"], &report["model"]), (&1.into(), &"built-in".into()));
}

#[test]
fn bench_reports_what_it_measured() {
    let scene = Scene::new();
    let model = scene.model("timm_deit3", "int8");
    let report = json(&format!("bench -m {model} --threads 2 --warmup 0 --iters 5 --kernel scalar --json"));
    let ms = |key: &str| report[key].as_f64().unwrap();
    let ordered = ["min_ms", "median_ms", "p95_ms", "p99_ms", "max_ms"].map(ms);
    assert!(ordered[0] > 0.0 && ordered.is_sorted(), "{ordered:?}");
    assert!(ms("load_ms") > 0.0 && ms("first_ms") > 0.0, "{report}");
    assert_eq!((&report["threads"], &report["iters"], &report["warmup"]), (&2.into(), &5.into(), &0.into()));
    assert_eq!((&report["kernel"], &report["precision"]), (&"scalar".into(), &"int8".into()));
    assert_eq!(report["layerscale"], "fold");
    assert!(ms("gmac_per_s") > 0.0 && ms("scratch_bytes") > 0.0);
    assert_eq!(report["peak_memory_bytes"].is_u64(), cfg!(target_os = "linux"));
    let frame = &report["frame"];
    let part = |key: &str| frame[key].as_f64().unwrap();
    assert_eq!((&frame["raw"], part("prepare_ms") > 0.0, part("run_ms") > 0.0), (&"i420:640x480".into(), true, true));
    assert!(part("ms") >= part("prepare_ms"));
    let other = stdout(&format!("bench -m {model} --iters 2 --raw nv12:320x240"));
    assert!(other.contains("ms  a frame of nv12:320x240 to its answer, "), "{other}");
    let text = stdout(&format!("bench -m {model} --iters 2"));
    for name in ["median", "p95", "p99", "max", "min", "load", "first"] {
        assert!(text.lines().any(|l| l.trim_start().starts_with(name) && l.contains(" ms")), "{name}: {text}");
    }
    assert!(crate::common::error("bench --plot times.svg", 2).contains("--minutes"));
    let table = stdout(&format!("bench -m {model} --iters 2 --markdown"));
    let columns: Vec<usize> = table.lines().map(|l| l.matches('|').count()).collect();
    assert_eq!(columns, [12; 3], "{table}");
    assert!(report["profile"].is_null() && report["peaks"].is_null(), "only with --profile");

    let report = json(&format!("bench -m {model} --threads 1 --iters 2 --profile --json"));
    let stages = report["profile"].as_array().unwrap();
    let peaks = report["peaks"].as_array().map_or(&[][..], |peaks| peaks);
    let scalar = report["kernel"] == "scalar";
    assert_eq!(peaks.len(), usize::from(!scalar), "int8 is one kind of multiply-add: {peaks:?}");
    for stage in stages {
        let (rate, of_peak) = (stage["gmac_per_s"].as_f64(), stage["of_peak"].as_f64());
        assert_eq!(of_peak.is_some(), rate.is_some() && !scalar, "{stage}");
        if let Some((of_peak, rate)) = of_peak.zip(rate) {
            assert!((of_peak * peaks[0]["gmac_per_s"].as_f64().unwrap() / rate - 1.0).abs() < 1e-9, "{stage}");
        }
    }
    assert!(scalar || stages.iter().any(|stage| stage["of_peak"].is_f64()));
}

/// Six pictures and a reference, such that by hand: both right, better, worse, worse, both wrong alike, both wrong
/// differently.
fn paired_scene() -> (Scene, String) {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (mut csv, mut logits) = (String::new(), Vec::new());
    // By how much the label, and the reference's answer, differ from the model's answer.
    for (seed, (label, reference)) in [(0, 0), (0, 1), (1, 1), (2, 2), (1, 0), (1, 2)].into_iter().enumerate() {
        let answer = first(&model, &scene.picture(&format!("{seed}.png"), seed as u32));
        csv += &format!("{seed}.png,{}\n", (answer + label) % 7);
        logits.extend((0..7).map(|class| f32::from(u8::from(class == (answer + reference) % 7))));
    }
    std::fs::write(scene.path("labels.csv"), csv).unwrap();
    write_npy(&scene.path("y.npy"), "(6, 7)", &logits);
    let arguments = format!("eval -m {model} {} --reference-logits {}", scene.path("labels.csv"), scene.path("y.npy"));
    (scene, arguments)
}

#[test]
fn the_verdict_is_the_one_computed_by_hand() {
    let (scene, eval) = paired_scene();
    let report = json(&format!("{eval} --json --flips {}", scene.path("flips.csv")));
    let (reference, verdict) = (&report["reference"], &report["reference"]["verdict"]);
    assert_eq!((report["top1"].as_f64(), reference["top1"].as_f64()), (Some(2.0 / 6.0), Some(3.0 / 6.0)));
    assert_eq!(reference["agreement"].as_f64(), Some(2.0 / 6.0));
    assert_eq!((&verdict["n"], &verdict["worse"], &verdict["better"]), (&6.into(), &2.into(), &1.into()));
    // N = 8, d' = -1/8, variance = 4 - 1/8, se = sqrt(3.875) / 8 = 0.2460627
    let near = |key: &str, want: f64| assert!((verdict[key].as_f64().unwrap() - want).abs() < 1e-3, "{verdict}");
    near("points", -100.0 / 6.0);
    near("low", -12.5 - 1.959964 * 24.60627);
    near("high", -12.5 + 1.959964 * 24.60627);
    let text = stdout(&eval);
    assert!(text.contains("n=6: 2 worse, 1 better, -16.7 points, 95 % interval [-60.7, +35.7]"), "{text}");
    assert!(text.contains("classes that lose most"), "{text}");

    let flips = std::fs::read_to_string(scene.path("flips.csv")).unwrap();
    let changes: Vec<_> = flips.lines().skip(1).map(|l| l.split(',').nth(1).unwrap()).collect();
    assert_eq!(changes, ["better", "worse", "worse", "both wrong"], "{flips}");
    assert!(flips.starts_with("path,change,label_index,reference_index,model_index,"));

    assert!(stdout(&format!("{eval} --max-drop 17")).contains("verdict"));
    let rejected = run(&format!("{eval} --max-drop 16"));
    assert_eq!(rejected.status.code(), Some(3));
    let line = String::from_utf8(rejected.stderr).unwrap();
    assert!(line.contains("top-1 is 16.67 points below the reference, more than 16"), "{line}");
    let csv = scene.path("labels.csv");
    let plain = eval.split(" --reference-logits").next().unwrap();
    assert!(error(&format!("{plain} --max-drop 1"), 2).contains("needs labels and a reference"));
    assert!(error(&format!("{plain} --flips {csv}x"), 2).contains("--flips needs --reference"));
}

/// A report without what no two runs have in common: times.
fn timeless(mut report: Value) -> Value {
    let fields = report.as_object_mut().unwrap();
    for key in ["median_ms", "latency", "pictures_per_s", "seconds"] {
        assert!(fields.remove(key).is_some(), "{key}");
    }
    for picture in report["results"].as_array_mut().unwrap().iter_mut().filter(|p| p["error"].is_null()) {
        for key in ["prepare_ms", "run_ms", "ms"] {
            assert!(picture.as_object_mut().unwrap().remove(key).is_some());
        }
    }
    report
}

#[test]
fn parts_add_up_to_the_whole() {
    let (scene, eval) = paired_scene();
    // An unreadable picture belongs to one part too; real-valued logits have sums that depend on their order.
    std::fs::write(scene.path("4.png"), "no picture").unwrap();
    let eval = eval.split(" --reference-logits").next().unwrap().to_string();
    let eval = format!("{eval} --reference {}", checkpoint("hf_vit").display());
    let part = |i: usize| {
        let path = scene.path(&format!("{i}.json"));
        std::fs::write(&path, run(&format!("{eval} --json --shard {i}/3")).stdout).unwrap();
        path
    };
    let whole: Value = serde_json::from_slice(&run(&format!("{eval} --json")).stdout).unwrap();
    let [a, b, c] = [1, 2, 3].map(part);
    let merged = serde_json::from_str(&partial(&format!("eval --merge {c} {a} {b} --json")).0).unwrap();
    assert!(whole["reference"]["relative_logit_error"].as_f64().unwrap() > 0.0);
    assert_eq!(whole["unreadable"].as_array().unwrap().len(), 1);
    assert_eq!(timeless(merged), timeless(whole));
    let text = partial(&format!("eval --merge {a} {b} {c}")).0;
    assert!(text.contains("verdict") && text.contains("n=5"), "{text}");

    assert!(error(&format!("eval --merge {a} {b}"), 1).contains("part 3/3 is missing"));
    assert!(error(&format!("eval --merge {a} {b} {b} {c}"), 1).contains("part 2/3 a second time"));
    assert!(error(&format!("eval --merge {a} {}", scene.path("0.png")), 1).contains("0.png"));
    let (other, other_path) = (stdout(&format!("{eval} --json --limit 4 --shard 2/3")), scene.path("other.json"));
    std::fs::write(&other_path, other).unwrap();
    assert!(error(&format!("eval --merge {a} {other_path} {c}"), 1).contains("another data set"));
    assert_eq!(run(&format!("{eval} --shard 4/3")).status.code(), Some(2));
}

#[test]
fn folders_without_labels_give_agreement_alone() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    for seed in 0..3 {
        scene.picture(&format!("photos/{seed}.png"), seed);
    }
    let photos = scene.path("photos");
    let why = error(&format!("eval -m {model} {photos}"), 1);
    assert!(why.contains("pictures without labels") && why.contains("--reference"), "{why}");
    let eval = format!("eval -m {model} {photos} --reference {}", checkpoint("hf_vit").display());
    let report = json(&format!("{eval} --json"));
    assert_eq!(
        (&report["n"], &report["top1"], &report["reference"]["verdict"]),
        (&3.into(), &Value::Null, &Value::Null)
    );
    assert!(report["reference"]["agreement"].as_f64().is_some());
    let text = stdout(&eval);
    assert!(text.contains("without labels") && text.contains("agreement") && !text.contains("top-1"), "{text}");
    assert!(error(&format!("{eval} --max-drop 1"), 2).contains("needs labels"));
    std::fs::create_dir(scene.path("empty")).unwrap();
    assert!(error(&format!("eval -m {model} {}", scene.path("empty")), 1).contains("no folders and no pictures"));
}

#[test]
fn missing_classes_loose_and_corrupt_pictures_are_said() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let good = scene.picture("data/dove/a.jpg", 1);
    scene.picture("data/loose.png", 2);
    let bytes = std::fs::read(&good).unwrap();
    std::fs::write(scene.path("data/dove/b.jpg"), &bytes[..bytes.len() / 2]).unwrap();
    let (text, errors) = partial(&format!("eval -m {model} {}", scene.path("data")));
    assert!(text.contains("6 of 7 classes have no folder"), "{text}");
    assert!(text.contains("1 pictures beside the folders are left out"), "{text}");
    assert!(text.contains("1, 1 left out"), "{text}");
    assert!(errors.contains("b.jpg: truncated JPEG"), "{errors}");
}
