#!/usr/bin/env bash
# The tests, from a fresh Debian machine with rustup:
#
#     ./scripts/test.sh          everything that must pass: fast, then full; under 30 minutes on two cores
#     ./scripts/test.sh fast     formatting, lints, tests on this machine; under 6 minutes
#     ./scripts/test.sh deep     by hand: long mutation runs, real pictures, packages, the files of a release
#
# Each part says what it needs, installs what is missing where it may (root on Debian; rustup targets; Python
# environments under target/), and otherwise names it. With CI=true nothing is skipped: what cannot be installed is an
# error. All parts share one target folder, and each runs alone, too.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
share_skipped

# ONNX files as f32 reference, and downloads: off by default for a quick build, tested in `full`.
features=vitlet-cli/tract,vitlet-cli/hub

fast() {
    say "Formatting and lints"
    ./scripts/check_columns.sh
    ./scripts/check_links.sh
    # The kernel takes all words behind the interpreter for one name.
    ! git grep -nE '^#!/usr/bin/env [a-z0-9]+ ' || die "more than an interpreter in a first line"
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --quiet -- -D warnings

    say "Tests on this machine"
    VITLET_EXPECTED_KERNELS=$(kernels_of_this_machine) cargo test --workspace --profile checked --quiet
}

full() {
    ./scripts/test_program.sh
    ./scripts/test_capi.sh
    ./scripts/test_boards.sh
    ./scripts/test_bare.sh
    ./scripts/test_32bit.sh
    ./scripts/test_msrv.sh

    say "With tract and the Hub"
    cargo clippy -p vitlet-convert -p vitlet-cli --all-targets --features "$features" --quiet -- -D warnings
    # What these features add; everything else has been tested without them.
    cargo test -p vitlet-convert --features vitlet-convert/tract --profile checked --quiet --test suite onnx::
    cargo test -p vitlet-cli --features "$features" --profile checked --quiet --test program -- onnx:: compare:: hub::

    say "Other targets"
    need_targets aarch64-unknown-linux-gnu aarch64-unknown-none aarch64-apple-darwin x86_64-pc-windows-gnu
    cargo clippy -p vitlet --lib --target aarch64-unknown-linux-gnu --quiet -- -D warnings
    cargo check --quiet -p vitlet --no-default-features --target aarch64-unknown-none
    cargo check --quiet -p vitlet-raspberry-pi -p vitlet-jetson --target aarch64-unknown-none
    for target in aarch64-apple-darwin x86_64-pc-windows-gnu; do
        if rustup target list --installed | grep -qx "$target"; then
            cargo check --quiet --workspace --target "$target"
        fi
    done
}

deep() {
    say "Long mutation runs"
    cargo test --workspace --profile checked -- --ignored
    say "LayerScale on real pictures"
    ./scripts/test_layerscale.sh
    ./scripts/test_package.sh
    ./scripts/test_release.sh
    ./scripts/test_msrv.sh all
}

case "${1:-}" in
    '')
        fast
        full
        ;;
    fast | deep) "$1" ;;
    *) die "usage: test.sh [fast|deep]" ;;
esac

say "Done"
sort -u "$SKIPPED"
echo "all passed in $(elapsed) minutes"
