//! The engine's layers: what may import what. ARCHITECTURE.md and the documentation of the crate show the same table.

mod imports;

use std::fs;
use std::path::Path;

use imports::{Layer, Only};

const LAYERS: &[Layer] = &[
    // Plain data, and what stands alone.
    &["lanes", "fpenv", "digest", "ranking", "tap"],
    // At the side: every layer may use these.
    &["bytes", "error"],
    &["config", "arena", "profile", "scratch"],
    // What a file holds; and beside it, blind to it, the instruction sets.
    &["layout", "gguf", "kernels", "output", "positions", "scores", "parallel"],
    &["parts", "picture", "threads"],
    &["ops"],
    &["heads"],
    &["networks"],
    &["model"],
    &["plan"],
    &["session"],
    &["runner"],
];

/// Three modules are kept apart from more than what lies above them.
const ONLY: &[Only] = &[
    ("error", &["lanes"]),
    ("config", &["lanes", "error"]),
    ("kernels", &["lanes", "bytes", "config", "digest"]),
    ("parts", &["lanes", "bytes", "config", "error", "layout", "profile"]),
];

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let mistakes = imports::mistakes(&root, LAYERS, ONLY);
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

#[test]
fn documents_show_this_table() {
    for document in ["ARCHITECTURE.md", "src/lib.rs"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        let missing = imports::not_shown(&text, LAYERS);
        assert!(missing.is_empty(), "{document}:\n{}", missing.join("\n"));
    }
}

#[test]
fn every_kind_of_mistake_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("low")).unwrap();
    file("lib.rs", "mod low;\nmod beside;\npub mod high;\nmod lost;\npub use low::Thing;\n");
    file("low.rs", "mod part;\nuse crate::low::part;\n");
    file("low/part.rs", "use super::x;\n\nuse super::super::high;\n");
    file("beside.rs", "use crate::low::Thing;\n");
    file("high.rs", "use crate::Thing;\nuse crate::{beside, low};\n");
    file("lost.rs", "");
    let layers: &[Layer] = &[&["low", "beside"], &["high", "gone"]];
    let mut found = imports::mistakes(&folder.path().join("lib.rs"), layers, &[("high", &["low"])]);
    found.iter_mut().for_each(|line| *line = line.replace(&format!("{}/", folder.path().display()), ""));
    found.sort();
    let expected = [
        "beside.rs:1: `beside` (layer 0) imports `low` (layer 0)",
        "high.rs:1: `Thing` is no module of the table",
        "high.rs:2: `high` imports `beside`, which is none of the few that it may import",
        "low/part.rs:3: `low` (layer 0) imports `high` (layer 1)",
        "module `lost` has no place in the table",
        "the table has a module `gone`, the crate has not",
    ];
    assert_eq!(found, expected);
}
