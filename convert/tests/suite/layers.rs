//! The converter's layers: what may import what. Data goes up through them. ARCHITECTURE.md shows the same table.

#[path = "../../../tests/imports/mod.rs"]
mod imports;

use std::fs;

use crate::common::root;
use imports::{Layer, Only};

const LAYERS: &[Layer] = &[
    // What the user chose, and what stands alone.
    &["error", "options", "license"],
    // Files and what they hold.
    &["config", "pickle"],
    &["tensor"],
    &["json"],
    &["labels"],
    // What every source becomes, and the algebra on it.
    &["network", "preprocess"],
    &["checkpoint", "diagonal"],
    // Import.
    &["head", "position", "branch"],
    &["convnext", "position_bias"],
    &["timm", "vit5", "onnx", "model_file"],
    &["arch", "transformers", "reference"],
    // Fold.
    &["plan", "fold"],
    &["balance"],
    // Quantize.
    &["quantize"],
    &["prune"],
    // Pack.
    &["pack", "report"],
    // Write.
    &["writer", "verify", "output"],
];

/// What follows the import sees the network, never its source.
const ONLY: &[Only] = &[
    ("plan", &["error", "network", "diagonal"]),
    ("fold", &["network", "diagonal"]),
    ("balance", &["error", "network", "diagonal", "plan"]),
    ("quantize", &["error", "options", "network", "diagonal"]),
    ("prune", &["error", "network", "plan", "quantize"]),
    ("pack", &["error", "options", "network", "diagonal", "quantize", "prune"]),
    ("report", &["network", "plan", "balance", "quantize", "prune"]),
    ("writer", &["options", "network"]),
    ("verify", &["error"]),
    ("output", &["error"]),
];

#[test]
fn imports_point_down() {
    let mistakes = imports::mistakes(&root().join("convert/src/lib.rs"), LAYERS, ONLY);
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

#[test]
fn architecture_shows_this_table() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, text) = text.split_once("\nThe converter's modules stand in layers").expect("the converter's table");
    let missing = imports::not_shown(text, LAYERS);
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}
