# Sourced by the scripts that build for boards and make packages: linkers that need no cross compiler.
#
#     static_program TARGET        the path of the program for a *-linux-musl target, built with Rust's own linker and C library
#     link_for_old_glibc TARGET    from now on, cargo links shared libraries for a *-linux-gnu target against glibc 2.27 (JetPack 4), not this machine's
#     stated_version               the version of all packages of the workspace
#     same_bytes                   an array of tar's options: no dates, no names of users; so the same input gives
#                                  the same bytes
#
# The second takes Zig, which knows the symbols of every glibc, through cargo-zigbuild; both are Python packages and are
# put into target/board-venv.

stated_version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1; }

# 2000-01-01, for dpkg-deb, too.
export SOURCE_DATE_EPOCH=946684800
# shellcheck disable=SC2034
same_bytes=(--sort=name --owner=0 --group=0 --numeric-owner "--mtime=@$SOURCE_DATE_EPOCH")

# The program without what needs a C compiler: importing and comparing ONNX files by tract.
static_program() {
    local target=$1 variable
    variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_LINKER
    rustup target list --installed | grep -qx "$target" || rustup target add "$target" >&2
    env "$variable=rust-lld" cargo build --quiet --profile dist -p vitlet-cli --target "$target" >&2
    echo "target/$target/dist/vitlet"
}

link_for_old_glibc() {
    local target=$1 linker=$PWD/target/board-venv/bin/glibc-2.27-${1%%-*}-cc
    if [ ! -x target/board-venv/bin/cargo-zigbuild ]; then
        python3 -m venv target/board-venv && target/board-venv/bin/pip install --quiet cargo-zigbuild ziglang ||
            { echo "error: the Python packages cargo-zigbuild and ziglang: could not be installed" >&2; return 1; }
    fi
    cat >"$linker" <<END
#!/bin/sh
PATH=$PWD/target/board-venv/bin:\$PATH exec cargo-zigbuild zig cc -- -target ${target%%-*}-linux-gnu.2.27 "\$@"
END
    chmod +x "$linker"
    rustup target list --installed | grep -qx "$target" || rustup target add "$target" >&2
    export "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_LINKER=$linker"
}
