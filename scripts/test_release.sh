#!/usr/bin/env bash
# Makes everything that is handed out and uses it as people without Rust do:
#
#     ./scripts/test_release.sh [TAG]
#
# Sums, Debian packages for both architectures, and a build of the source tarball without a network. Takes half an hour
# on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

need_packages gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static python3-venv binutils pkg-config git \
    xz-utils dpkg
[ "${#skipped[@]}" = 0 ] || exit 0
./scripts/release.sh "$@"
out=$PWD/target/handout
(cd "$out" && sha256sum --quiet --check SHA256SUMS)

for architecture in arm64 amd64; do ./scripts/test_deb.sh "$architecture" "$out"; done

say "The source tarball, without a network and without cargo's downloads"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xJf "$out"/vitlet-*-source.tar.xz -C "$work"
# rustup finds its toolchain, cargo finds nothing of this machine.
(cd "$work"/vitlet-* && RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} CARGO_HOME=$work/cargo cargo build --locked --offline --quiet)
"$work"/vitlet-*/target/debug/vitlet classify "$work"/vitlet-*/models/cifar10-vit-layerscale/pictures/chelsea.jpg
echo "release: all passed"
