//! `bench layerscale`.

use crate::common::{Scene, checkpoint, error, json, stdout};

#[test]
fn every_mode_stands_beside_fold() {
    let source = checkpoint("timm_deit3").display().to_string();
    let scene = Scene::new();
    for (i, label) in ["0", "1", "2"].iter().enumerate() {
        scene.picture(&format!("pictures/{label}/a.png"), i as u32);
    }
    let (pictures, svg) = (scene.path("pictures"), scene.path("out.svg"));
    let report =
        json(&format!("bench layerscale {source} --rounds 3 --threads 1 --images {pictures} --plot {svg} --json"));
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 12);
    let find =
        |precision: &str, mode: &str| rows.iter().find(|r| r["precision"] == precision && r["mode"] == mode).unwrap();
    for precision in ["int8", "f16"] {
        let [fold, keep, pass] = ["fold", "keep", "keep-pass"].map(|mode| find(precision, mode));
        assert_eq!(fold["ratio"]["median"], 1.0);
        assert!(keep["ratio"]["median"].as_f64().unwrap() > 0.0);
        // Two vectors of gammas a block, padded to 48 floats.
        let bytes = |row: &serde_json::Value| row["model_bytes"].as_u64().unwrap();
        assert_eq!(bytes(pass), bytes(keep));
        assert!(bytes(keep) > bytes(fold));
        assert!(pass["scratch_bytes"].as_u64() > fold["scratch_bytes"].as_u64());
        assert!(fold["accuracy"]["logit_error"].as_f64().unwrap() < 0.25);
        assert!(fold["accuracy"]["top1"].as_f64().is_some());
    }
    assert_eq!(report["pictures"], 3);
    for name in ["machine", "kernel"] {
        assert!(!report[name].as_str().unwrap().is_empty());
    }
    let conclusion = report["conclusion"].as_str().unwrap();
    assert!(conclusion.contains("keep costs ") && conclusion.contains(" of fold"), "{conclusion}");
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("keep-pass"), "{svg}");
}

#[test]
fn the_built_in_checkpoint_and_its_pictures_are_the_default() {
    let text = stdout("bench layerscale --rounds 1 --threads 1");
    assert!(text.contains("built-in") && text.contains("6 pictures, no labels") && text.contains("agrees"), "{text}");
    assert!(text.lines().last().unwrap().contains("keep costs"), "{text}");
}

#[test]
fn what_can_not_be_compared_is_refused() {
    let scene = Scene::new();
    let folded = error(&format!("bench layerscale {}", scene.model("timm_deit3", "int8")), 1);
    assert!(folded.contains("folded already") && folded.contains("checkpoint"), "{folded}");
    let without = checkpoint("timm_vit").display().to_string();
    assert!(error(&format!("bench layerscale {without}"), 1).ends_with("no LayerScale: nothing to fold"));
    assert!(error(&format!("bench layerscale {}", scene.model("timm_vit", "f32")), 1).contains("nothing to fold"));
    assert!(error("bench layerscale --rounds 0", 2).contains("--rounds"));
}
