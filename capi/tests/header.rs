//! include/vitlet.h is what cbindgen (the version that Cargo.toml pins) makes of the sources.
//! `VITLET_UPDATE=1 cargo test -p vitlet-capi --test header` writes it.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).expect("cbindgen.toml is valid");
    let mut made = Vec::new();
    cbindgen::Builder::new()
        .with_src(package.join("src/lib.rs"))
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut made);
    // What Rust's documentation has under a heading of its own.
    let made = String::from_utf8(made).unwrap().replace("//\n// # Safety\n// ", "//\n// Requires: ");
    let path = package.join("include/vitlet.h");
    if std::env::var_os("VITLET_UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == committed, "include/vitlet.h is out of date: run this test with VITLET_UPDATE=1");
}
