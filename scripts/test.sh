#!/usr/bin/env bash
# Everything that must pass, from a fresh Debian machine with rustup:
#
#     ./scripts/test.sh
#
# It says what it needs, installs what is missing where it may (root on Debian; rustup targets; a Python environment
# under target/), and otherwise names it. With CI=true nothing is skipped: what cannot be installed is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

packages=(gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static python3-venv)
targets=(aarch64-unknown-linux-gnu aarch64-unknown-none aarch64-apple-darwin x86_64-pc-windows-gnu)
# Off by default for a quick build, tested here.
features=vitlet-cli/tract,vitlet-cli/hub
cores=(cortex-a53 cortex-a57 cortex-a72 cortex-a76 max)

echo "vitlet's tests need rustup targets (${targets[*]}),"
echo "Debian packages (${packages[*]}) and the Python package gguf (in target/venv)."
echo "Missing ones are installed now where that is allowed."

say "Tools"
need_targets "${targets[@]}"
need_packages "${packages[@]}"

say "Formatting and lints"
cargo fmt --all --check
cargo clippy --workspace --all-targets --features "$features" --quiet -- -D warnings
cargo clippy -p vitlet --lib --target aarch64-unknown-linux-gnu --quiet -- -D warnings

say "Tests on this machine"
cargo test --workspace --features "$features" --profile checked --quiet

say "Other targets"
cargo check --quiet -p vitlet --no-default-features --target aarch64-unknown-none
cargo check --quiet -p vitlet-raspberry-pi -p vitlet-jetson --target aarch64-unknown-none
for target in aarch64-apple-darwin x86_64-pc-windows-gnu; do
    if rustup target list --installed | grep -qx "$target"; then
        # tract assembles its kernels, for which the target's own C compiler would have to be here.
        cargo check --quiet --workspace --exclude vitlet-cli --exclude vitlet-convert --target "$target"
        cargo check --quiet -p vitlet-cli -p vitlet-convert --target "$target"
    fi
done

say "The program"
cargo build --release --quiet
host=target/release/vitlet
if [ "$(uname -m)" = x86_64 ]; then ./scripts/check_vex.sh "$host"; fi
models=target/test-models
mkdir -p "$models"
# One model of each precision beside the built-in one, and pictures that every machine classifies.
fixture=tests/fixtures/checkpoints/timm_deit3
"$host" convert "$fixture" -o "$models/int8.gguf" >/dev/null
"$host" convert "$fixture" -o "$models/f32.gguf" --precision f32 >/dev/null
# Conversion is deterministic: the committed model, to the byte.
"$host" convert models/cifar10-vit-layerscale -o "$models/built-in.gguf" >/dev/null
cmp "$models/built-in.gguf" models/cifar10-vit-layerscale/model.gguf
pictures=(models/cifar10-vit-layerscale/pictures/*.jpg)

say "LayerScale, folded and unfolded"
scripts/test_layerscale.sh

if python3 -m venv target/venv 2>/dev/null && target/venv/bin/pip install --quiet gguf; then
    say "The model file, read by the gguf package"
    target/venv/bin/python scripts/check_gguf.py "$models/int8.gguf"
else
    skip "Python package gguf: could not be installed"
fi

# All digests of one program: every model, every picture, at 1 and 2 threads.
digests() {
    for threads in 1 2; do
        for model in "" "-m $models/int8.gguf" "-m $models/f32.gguf"; do
            # shellcheck disable=SC2086
            "$@" classify $model --threads "$threads" --digest "${pictures[@]}" 2>/dev/null | grep -oE '[0-9a-f]{16}'
        done
    done
}

say "Logits, bit for bit: this machine"
expected=$(digests "$host")
# Two thread counts, three models, every picture: an empty list would equal any other empty list.
[ "$(wc -l <<<"$expected")" = $((2 * 3 * ${#pictures[@]})) ] || die "digests are missing"
echo "$expected" | sort | uniq -c | sort -rn | head -n 3
if command -v qemu-aarch64-static >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null; then
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    say "Logits, bit for bit: aarch64 under QEMU"
    # Without tract and the hub, which are not what is compared and take most of the time.
    cargo build --release --quiet -p vitlet-cli --target aarch64-unknown-linux-gnu
    for core in "${cores[@]}"; do
        qemu=(qemu-aarch64-static -cpu "$core" -L /usr/aarch64-linux-gnu)
        got=$(digests "${qemu[@]}" target/aarch64-unknown-linux-gnu/release/vitlet)
        [ "$got" = "$expected" ] || die "digests differ on $core"
        echo "$core: $(echo "$got" | wc -l) digests equal"
    done
    say "The engine's own tests under QEMU"
    for core in "${cores[@]}"; do
        echo "$core"
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $core -L /usr/aarch64-linux-gnu" \
            cargo test -p vitlet --profile checked --quiet --lib --target aarch64-unknown-linux-gnu
    done
fi

# Each of these runs alone, too.
./scripts/test_capi.sh
./scripts/test_boards.sh
./scripts/test_bare.sh

say "Done"
if [ "${#skipped[@]}" -gt 0 ]; then
    printf 'skipped: %s\n' "${skipped[@]}"
fi
echo "all passed"
