//! `compare`: errors place by place.

use serde_json::Value;

use crate::common::{Scene, checkpoint, error, json, stdout};

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
fn without_pictures_there_are_samples_and_networks_must_match() {
    let scene = Scene::new();
    let (int8, f32) = (scene.model("timm_deit3", "int8"), scene.model("timm_deit3", "f32"));
    let text = stdout(&format!("compare -m {int8} --reference {f32}"));
    assert!(text.contains("on 3 pictures") && text.contains("block 1") && text.contains("largest error"), "{text}");
    let other = checkpoint("timm_vit").display().to_string();
    let why = error(&format!("compare -m {int8} --reference {other} {}", scene.picture("a.png", 1)), 1);
    assert!(why.contains("another network"), "{why}");
}
