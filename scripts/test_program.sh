#!/usr/bin/env bash
# The program as it is built for this machine, and the engine's own tests under QEMU:
#
#     ./scripts/test_program.sh
#
# The committed model comes out of the converter again, and f16 arithmetic and NEON meet PyTorch's numbers. Installs and
# skips as scripts/test.sh does, which calls it. That logits are the same bits everywhere is scripts/test_boards.sh's
# part.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

packages=(gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static python3-venv)
cores=(cortex-a53 cortex-a57 cortex-a72 cortex-a76 max)
# One core for each kind of arithmetic meets the networks: baseline NEON; f16 and dot products; int8 matrix products.
network_cores=" cortex-a72 cortex-a76 max "
need_packages "${packages[@]}"
need_targets aarch64-unknown-linux-gnu

say "The program"
cargo build --release --quiet
host=target/release/vitlet
if [ "$(uname -m)" = x86_64 ]; then ./scripts/check_vex.sh "$host"; fi
models=target/test-models
mkdir -p "$models"
"$host" convert tests/fixtures/checkpoints/timm_deit3 -o "$models/int8.gguf" >/dev/null
# Conversion is deterministic: the committed model, to the byte.
"$host" convert models/cifar10-vit-layerscale -o "$models/built-in.gguf" >/dev/null
cmp "$models/built-in.gguf" models/cifar10-vit-layerscale/model.gguf

say "LayerScale, folded and unfolded"
./scripts/test_layerscale.sh

if python3 -m venv target/venv 2>/dev/null && target/venv/bin/pip install --quiet gguf; then
    say "The model file, read by the gguf package"
    target/venv/bin/python scripts/check_gguf.py "$models/int8.gguf"
else
    skip "Python package gguf: could not be installed"
fi

command -v qemu-aarch64-static >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null || exit 0
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
say "The engine's own tests under QEMU"
export VITLET_EXPECTED_KERNELS CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER
for core in "${cores[@]}"; do
    VITLET_EXPECTED_KERNELS=$(kernels_of_core "$core")
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $core -L /usr/aarch64-linux-gnu"
    say "$core: $VITLET_EXPECTED_KERNELS"
    engine=(cargo test -p vitlet --profile checked --quiet --target aarch64-unknown-linux-gnu)
    "${engine[@]}" --lib
    case "$network_cores" in
        # What depends on the instruction set: PyTorch's numbers, the simulation's, NaN, the same bits from all
        # kernels and in every floating-point environment.
        *" $core "*) "${engine[@]}" --test engine -- bit_exact:: environment:: finite:: pytorch:: simulation:: ;;
    esac
done
