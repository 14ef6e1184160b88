//! `compare`: errors place by place.

use serde_json::Value;

use crate::common::{Scene, checkpoint, error, json, partial, run, stdout};

/// The errors of one place along the blocks.
fn errors(report: &Value, place: &str) -> Vec<f64> {
    let places = report["places"].as_array().unwrap().iter().filter(|p| p["place"] == place);
    places.map(|p| p["relative_error"].as_f64().unwrap()).collect()
}

#[test]
fn int8_differs_from_f32_at_every_place() {
    let scene = Scene::new();
    let (int8, f32) = (scene.model("timm_deit3", "int8"), scene.model("timm_deit3", "f32"));
    let (picture, svg) = (scene.picture("a.png", 1), scene.path("errors.svg"));
    let compare = |model: &str, rest: &str| json(&format!("compare -m {model} --reference {f32} --json {rest}"));
    let report = compare(&int8, &format!("{picture} --plot {svg}"));
    assert_eq!((&report["pictures"], &report["precision"]), (&1.into(), &"int8".into()));
    assert_eq!(errors(&report, "stream").len(), 3, "the embedding and two blocks");
    for place in ["heads", "attention", "middle", "mlp"] {
        let errors = errors(&report, place);
        assert!(errors.len() == 2 && errors.iter().all(|e| (1e-4..0.3).contains(e)), "{place}: {errors:?}");
    }
    let logits = report["output"]["relative_error"].as_f64().unwrap();
    assert!((1e-4..0.3).contains(&logits), "{logits}");
    assert!(report["output"]["cosine"].as_f64().unwrap() > 0.95);
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.contains("residual stream") && svg.contains("logits") && !svg.contains("NaN"));

    // The logit error is `eval`'s for the same picture.
    std::fs::write(scene.path("one.csv"), "a.png,0\n").unwrap();
    let eval = json(&format!("eval -m {int8} {} --reference {f32} --json", scene.path("one.csv")));
    let expected = eval["reference"]["relative_logit_error"].as_f64().unwrap();
    assert!((logits / expected - 1.0).abs() < 1e-9, "{logits} {expected}");

    // f16 loses less everywhere, and the reference itself nothing anywhere.
    let f16 = compare(&scene.model("timm_deit3", "f16"), &picture);
    assert!(f16["output"]["relative_error"].as_f64().unwrap() < logits / 3.0);
    let same = compare(&f32, &picture);
    assert!(["stream", "heads", "mlp"].iter().all(|p| errors(&same, p).iter().all(|e| *e == 0.0)), "{same}");
    assert_eq!((&same["output"]["sqnr_db"], &same["same_label"]), (&Value::Null, &1.into()));
}

#[test]
fn folded_and_kept_gammas_give_the_same_branches() {
    let scene = Scene::new();
    let (source, kept) = (checkpoint("timm_deit3").display().to_string(), scene.path("kept.gguf"));
    stdout(&format!("convert {source} -o {kept} --precision f32 --layerscale keep"));
    let picture = scene.picture("a.png", 1);
    let report = json(&format!("compare -m {kept} --reference {source} --json {picture}"));
    for place in ["attention", "mlp", "stream"] {
        let errors = errors(&report, place);
        assert!(errors.iter().all(|e| *e < 1e-5), "{place}: {errors:?}");
    }
}

#[test]
fn stages_have_a_branch_a_block() {
    let scene = Scene::new();
    let (source, kept) = (checkpoint("timm_convnext").display().to_string(), scene.path("kept.gguf"));
    stdout(&format!("convert {source} -o {kept} --precision f32 --layerscale keep"));
    let picture = scene.picture("a.png", 1);
    let report = json(&format!("compare -m {kept} --reference {source} --json {picture}"));
    for (place, count) in [("attention", 0), ("mlp", 5), ("downsampled", 3), ("stream", 6)] {
        let errors = errors(&report, place);
        assert!(errors.len() == count && errors.iter().all(|e| *e < 1e-5), "{place}: {errors:?}");
    }
}

#[test]
fn without_pictures_there_are_samples_and_networks_must_match() {
    let scene = Scene::new();
    let (int8, f32) = (scene.model("timm_deit3", "int8"), scene.model("timm_deit3", "f32"));
    let text = stdout(&format!("compare -m {int8} --reference {f32}"));
    assert!(text.contains("on 3 pictures") && text.contains("block 1") && text.contains("largest error"), "{text}");
    let other = checkpoint("timm_vit").display().to_string();
    let why = error(&format!("compare -m {int8} --reference {other} {}", scene.picture("a.png", 1)), 1);
    assert!(why.contains("another network"), "{why}");
}

#[cfg(feature = "tract")]
#[test]
fn an_onnx_file_gives_the_errors_that_our_f32_gives() {
    let scene = Scene::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/onnx");
    let picture = scene.picture("a.png", 1);
    // The class token alone at the end of a network that is not square, patches behind registers, and both.
    for (network, file) in [("deit3", "legacy20"), ("gap", "dynamo18_dynamic"), ("hf_dinov2", "legacy17_dynamic")] {
        let [int8, f32] = ["int8", "f32"].map(|precision| {
            let model = scene.path(&format!("{network}-{precision}.gguf"));
            stdout(&format!("convert {folder}/{network} -o {model} --precision {precision}"));
            model
        });
        let onnx = format!("{folder}/{network}/{file}.onnx");
        let compare = |model: &str, reference: &str| {
            json(&format!("compare -m {model} --reference {reference} --json {picture}"))
        };
        let (same, ours, tract) = (compare(&f32, &onnx), compare(&int8, &f32), compare(&int8, &onnx));
        for place in ["attention", "middle", "mlp", "stream"] {
            let exact = errors(&same, place);
            assert!(exact.len() == 2 && exact.iter().all(|e| *e < 3e-6), "{network} {place}: {exact:?}");
            let (ours, tract) = (errors(&ours, place), errors(&tract, place));
            let ours = &ours[ours.len() - 2..]; // without the embedding, of which the graph has no value
            assert!(
                ours.iter().zip(&tract).all(|(a, b)| (a / b - 1.0).abs() < 0.01),
                "{network} {place}: {ours:?} {tract:?}"
            );
        }
        let output = |report: &Value| report["output"]["relative_error"].as_f64().unwrap();
        assert!(output(&same) < 3e-6 && (output(&tract) / output(&ours) - 1.0).abs() < 0.01, "{network}");
    }
    let int8 = scene.model("timm_vit", "int8");
    let why = error(&format!("compare -m {int8} --reference {folder}/deit3/legacy13.onnx {picture}"), 1);
    assert!(why.contains("another network: 16x12 pixels"), "{why}");
    // As many blocks, pixels and outputs, other tokens.
    let int8 = scene.path("gap-int8.gguf");
    let why = error(&format!("compare -m {int8} --reference {folder}/dinov2/legacy13.onnx {picture}"), 1);
    assert!(why.contains("another network: "), "{why}");
}

#[test]
fn a_broken_picture_is_named_and_the_others_are_compared() {
    let scene = Scene::new();
    let (model, good, broken) = (scene.model("timm_vit", "int8"), scene.picture("a.png", 1), scene.path("b.png"));
    std::fs::write(&broken, "no picture").unwrap();
    let compare = format!("compare -m {model} --reference {} --json", checkpoint("timm_vit").display());
    let (text, errors) = partial(&format!("{compare} {broken} {good}"));
    assert!(errors.starts_with(&format!("error: {broken}: not a picture")), "{errors}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["schema"], &report["pictures"]), (&1.into(), &1.into()));
    assert!(report["results"][0]["error"].as_str().unwrap().starts_with("not a picture"));
    let read = &report["results"][1];
    assert_eq!((&read["image"], &read["height"]), (&good.into(), &41.into()));
    assert!(read["same_label"].is_boolean());
    assert!(read["prepare_ms"].as_f64().unwrap() > 0.0 && read["run_ms"].as_f64().unwrap() > 0.0);

    let plot = scene.path("a.svg");
    let none = run(&format!("{compare} {broken} --plot {plot}"));
    let report: Value = serde_json::from_slice(&none.stdout).unwrap();
    assert_eq!((none.status.code(), &report["pictures"]), (Some(1), &0.into()));
    assert!(report["output"].is_null() && report["places"] == serde_json::json!([]), "{report}");
    assert!(report["results"][0]["error"].as_str().unwrap().starts_with("not a picture"));
    assert!(!std::path::Path::new(&plot).exists());
}
