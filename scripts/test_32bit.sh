#!/usr/bin/env bash
# The engine on 32-bit machines, where lengths that fit 64 bits overflow: its own tests and those from outside, on x86
# natively and on ARM under QEMU. Called by scripts/test.sh; runs alone, too.
#
#     ./scripts/test_32bit.sh
#
# On x86 the programs are static (musl) and linked by Rust's own linker: Debian's gcc-multilib conflicts with its
# compilers for ARM.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

targets=(i686-unknown-linux-musl armv7-unknown-linux-gnueabihf)
need_packages qemu-user-static gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
need_targets "${targets[@]}"
[ "${#skipped[@]}" = 0 ] || exit 0
export CARGO_TARGET_I686_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
[ "$(uname -m)" = x86_64 ] || export CARGO_TARGET_I686_UNKNOWN_LINUX_MUSL_RUNNER=qemu-i386-static
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER="qemu-arm-static -cpu cortex-a15 -L /usr/arm-linux-gnueabihf"

for target in "${targets[@]}"; do
    rustup target list --installed | grep -qx "$target" || continue
    say "32 bits: $target"
    cargo test --profile checked --quiet -p vitlet --lib --target "$target"
    # Broken files, sizes beyond 32 bits, and the same bits from every thread count. Mutations take minutes, and are the
    # same everywhere.
    cargo test --profile checked --quiet -p vitlet --test engine --target "$target" -- hostile:: bit_exact:: --skip mutations
done
