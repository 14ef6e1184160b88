//! Hostile files: no panic, no endless work, and no memory beyond the stated bound, counted by the allocator on each
//! test's own thread.

use std::path::{Path, PathBuf};

mod allocator;
mod onnx;
mod pickles;

/// Labels that are not there end a conversion when the network has been read.
const NO_LABELS: &str = "no_labels.txt";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}
