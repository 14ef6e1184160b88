#!/usr/bin/env bash
# Each package compiles with the Rust that its `rust-version` states: here and for 64-bit ARM.
#
#     ./scripts/test_msrv.sh          the engine and the C library
#     ./scripts/test_msrv.sh all      all packages
#
# Wants: rustup, which downloads those toolchains (their smallest profile) once.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

arm=aarch64-unknown-linux-gnu
# The pinned toolchain's results stay valid.
target=target/msrv

# stated MANIFEST: the first release with the `rust-version` that is written there.
stated() { sed -n 's/^rust-version = "\(.*\)"$/\1.0/p' "$1"; }

# check VERSION ARGUMENT...: cargo check with that Rust.
check() {
    local version=$1
    shift
    echo "Rust $version: cargo check $*"
    cargo "+$version" check --quiet --locked --target-dir "$target" "$@"
}

# need_rust VERSION: adds a missing toolchain.
need_rust() {
    rustup toolchain install "$1" --profile minimal --no-self-update --target "$arm" >/dev/null 2>&1 ||
        skip "Rust $1: could not be installed"
}

say "Stated Rust versions"
rust=$(stated Cargo.toml)
need_rust "$rust"
[ "${#skipped[@]}" = 0 ] || exit 0
check "$rust" -p vitlet -p vitlet-capi
check "$rust" -p vitlet --no-default-features
check "$rust" -p vitlet -p vitlet-capi --target "$arm"
[ "${1:-}" = all ] || exit 0

check "$rust" --workspace --features vitlet-cli/tract,vitlet-cli/hub
boards=$(stated boards/common/Cargo.toml)
need_rust "$boards"
[ "${#skipped[@]}" = 0 ] || exit 0
check "$boards" -p vitlet-board -p vitlet-jetson -p vitlet-raspberry-pi
