//! The shared library's name within programs that use it (SONAME): the first number of the interface's version.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let (_, library) = include_str!("Cargo.toml").split_once("[package.metadata.capi.library]").expect("a section");
    let version = library.split_once("version = \"").expect("the interface's version").1;
    let interface = version.split('.').next().expect("its first number");
    // rustc exports symbols whose names are not mangled, and nothing else: the functions of vitlet.h.
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if matches!(system.as_str(), "linux" | "android" | "freebsd" | "netbsd" | "openbsd") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvitlet.so.{interface}");
    }
}
