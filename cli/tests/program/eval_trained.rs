//! What int8 leaves of the depth that trained networks see, on scenes that training never drew.

use serde_json::Value;

use crate::common::{Scene, json, stdout};

const SCENES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/scenes");

/// AbsRel, RMSE and delta 1 to 3 of `models/train/eval_dense.py --count 24` on PyTorch in f32.
const TRAINED: [(&str, [f64; 5]); 2] =
    [("depth", [0.0635, 0.6772, 0.9616, 0.9851, 0.9940]), ("depth-outliers", [0.0677, 0.7386, 0.9571, 0.9836, 0.9933])];

fn metrics(depth: &Value) -> [f64; 5] {
    ["abs_rel", "rmse", "delta1", "delta2", "delta3"].map(|name| depth[name].as_f64().unwrap())
}

#[test]
fn int8_keeps_what_trained_depth_networks_see() {
    let scene = Scene::new();
    for (name, torch) in TRAINED {
        let [model, reference] = ["int8", "f32"].map(|precision| {
            let file = scene.path(&format!("{name}-{precision}.gguf"));
            stdout(&format!("convert {SCENES}/{name} -o {file} --precision {precision}"));
            file
        });
        let document = json(&format!("eval -m {model} {SCENES}/held-out --reference {reference} --json"));
        assert_eq!(document["n"], 24);
        let (own, its) = (metrics(&document["depth"]), metrics(&document["reference"]["depth"]));
        for (got, want) in its.iter().zip(torch) {
            assert!((got - want).abs() < 2e-4, "{name}: f32 {its:?}, PyTorch {torch:?}");
        }
        assert!(own[0] < 1.02 * its[0] && own[2] > its[2] - 0.003, "{name}: int8 {own:?}, f32 {its:?}");
    }
}
