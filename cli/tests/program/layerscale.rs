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
    assert!(conclusion.contains("keep takes ") && conclusion.contains(" times fold's time ("), "{conclusion}");
    assert!(conclusion.contains("Logit errors: fold 0.") && !conclusion.contains("points"), "{conclusion}");
    assert!(conclusion.contains("folding saves ") && !conclusion.contains("decades"), "{conclusion}");
    assert!(report["rows"][0]["five_decades"].is_null(), "a network of the user's is left as it is");
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("keep-pass"), "{svg}");
}

/// Six pictures say nothing about shares; the logit error and the network's spread twin say what folding saves.
#[test]
fn the_built_in_network_and_its_spread_twin_are_the_default() {
    let scene = Scene::new();
    let svg = scene.path("out.svg");
    let text = stdout(&format!("bench layerscale --rounds 1 --threads 1 --plot {svg}"));
    assert!(text.contains("built-in") && text.contains("6 pictures, top-1 and agreement"), "{text}");
    assert!(!text.contains("agrees") && !text.contains("top-1, %"), "{text}");
    assert!(
        text.contains("middle half: from the lower to the upper quartile. A range that holds 1 is noise."),
        "{text}"
    );
    let columns: Vec<&str> = text.lines().find(|l| l.starts_with("weights")).unwrap().split("  ").collect();
    assert!(columns.iter().any(|c| c.trim() == "five decades"), "{text}");
    let last_cell = |start: [&str; 2]| -> f64 {
        let row = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        let row = row.into_iter().find(|cells| cells.starts_with(&["int8"]) && cells[1..3] == start).unwrap();
        row.last().unwrap().parse().unwrap()
    };
    let [fold, tensor] = [["per-channel", "fold"], ["per-tensor", "keep-pass"]].map(last_cell);
    assert!(fold < 0.05 && tensor > 0.5, "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("On this machine folding saves "), "{last}");
    assert!(last.contains(&format!("logit error is {fold:.4}")) && last.contains(&format!("{tensor:.4}")), "{last}");
    assert!(std::fs::read_to_string(svg).unwrap().contains("five more decades"));
}

#[test]
fn shares_appear_from_a_hundred_pictures_on() {
    let source = checkpoint("timm_deit3").display().to_string();
    let scene = Scene::new();
    let classes = ["0", "1", "2"];
    for i in 0..99 {
        scene.picture(&format!("pictures/{}/{i}.png", classes[i % 3]), i as u32);
    }
    let pictures = scene.path("pictures");
    let run = || stdout(&format!("bench layerscale {source} --rounds 1 --threads 1 --images {pictures}"));
    let few = run();
    assert!(few.contains("99 pictures") && !few.contains("agrees") && !few.contains("f32 top-1"), "{few}");
    scene.picture("pictures/0/99.png", 99);
    let enough = run();
    assert!(enough.contains("100 pictures, f32 top-1") && enough.contains("agrees, %"), "{enough}");
    assert!(enough.lines().any(|l| l.starts_with("fold loses")), "{enough}");
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
