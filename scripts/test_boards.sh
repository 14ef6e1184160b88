#!/usr/bin/env bash
# Linux on the boards, without one:
#
#     ./scripts/test_boards.sh
#
# Builds with scripts/cross.sh and scripts/dist.sh, and runs the result under QEMU as the boards' cores and with the
# boards' sysfs. Installs and skips as scripts/test.sh does, which calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

packages=(gcc binutils gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static python3-venv cmake pkg-config)
# Core, and the kernels that it must choose: Pi 3; Jetson Nano; Pi 4; Pi 5 and Orin; newer ones.
cores=("cortex-a53 neon" "cortex-a57 neon" "cortex-a72 neon" "cortex-a76 neon-dotprod" "max neon-i8mm")

need_packages "${packages[@]}"
[ "${#skipped[@]}" = 0 ] || exit 0

./scripts/test_cross.sh

say "Boards: one program, one library"
./scripts/cross.sh
program=$PWD/target/boards/vitlet
sizes=$(size -A "$program")
bytes() { awk -v section="$1" '$1 == section { print $2 }' <<<"$sizes"; }
# What is built in and is no program: the model, its checkpoint for `bench layerscale`, sample pictures.
data=$(cat models/cifar10-vit-layerscale/model.{gguf,safetensors} models/cifar10-vit-layerscale/pictures/*.jpg | wc -c)
file=$(stat -c %s "$program")
echo "program: $file bytes, $((file - data)) without model, checkpoint and pictures; text $(bytes .text), rodata $(($(bytes .rodata) - data)) without them"
# All commands, picture formats and kernels; the size of a C program with libvitlet.a is checked further down.
(($(bytes .text) + $(bytes .rodata) - data <= 3950000)) || die "the program has grown"

say "Boards: the same logits as this machine's"
cargo build --release --quiet
host=target/release/vitlet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for precision in int8 f32; do
    "$host" convert tests/fixtures/checkpoints/timm_deit3 -o "$work/$precision.gguf" --precision "$precision" >/dev/null
done
pictures=(models/cifar10-vit-layerscale/pictures/*.jpg)
# 3 frames of 64 x 48 in I420: noise that never changes.
python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(3 * 64 * 48 * 3 // 2))' >"$work/frames"
# The digests that a program ("$@") must give at N threads: of the pictures by three models, and of a stream's frames.
answers() {
    local threads=$1 model
    shift
    for model in "" "-m $work/int8.gguf" "-m $work/f32.gguf"; do
        # shellcheck disable=SC2086
        "$@" classify $model --threads "$threads" --digest "${pictures[@]}" 2>/dev/null | grep -oE '[0-9a-f]{16}'
    done
    "$@" classify -m "$work/int8.gguf" --threads "$threads" --digest --json --raw i420:64x48 - <"$work/frames" |
        grep -o '"digest":"[0-9a-f]*"'
}
expected=$(answers 1 "$host")
# An empty list would equal any other.
count=$((3 * ${#pictures[@]} + 3))
[ "$(wc -l <<<"$expected")" = "$count" ] || die "digests are missing"
[ "$(answers 2 "$host")" = "$expected" ] || die "digests differ at two threads"
for line in "${cores[@]}"; do
    read -r core kernel <<<"$line"
    for threads in 1 2; do
        [ "$(answers "$threads" qemu-aarch64-static -cpu "$core" "$program")" = "$expected" ] ||
            die "digests differ on $core at $threads threads"
    done
    qemu-aarch64-static -cpu "$core" "$program" bench -m "$work/int8.gguf" --warmup 0 --iters 1 --json | grep -q "\"kernel\": \"$kernel\"" || die "$core: other kernels than $kernel"
    echo "$core: $count digests equal at 1 and 2 threads, kernels $kernel"
done

say "Boards: what bench says on each"
# QEMU shows a static program the files below -L as if they were the system's own.
for tree in boards/trees/*.txt; do
    name=$(basename "$tree" .txt)
    cargo run --quiet -p vitlet-board --example unpack -- "$tree" "$work/$name"
    said=$(qemu-aarch64-static -cpu cortex-a72 -L "$work/$name" "$program" bench -m "$work/int8.gguf" --warmup 0 --iters 1)
    model_name=$(tr -d '\0' <"$work/$name/sys/firmware/devicetree/base/model")
    grep -q "^$model_name  " <<<"$said" || die "$name: $said"
    grep -E "^$model_name|before|warning" <<<"$said"
done
grep -q 'not throttled' <<<"$(qemu-aarch64-static -L "$work/raspberry-pi-4" "$program" bench -m "$work/int8.gguf" --warmup 0 --iters 1)" || die "a cool Pi is not throttled"
threads=$(qemu-aarch64-static -L "$work/jetson-nano" "$program" bench -m "$work/int8.gguf" --warmup 0 --iters 1 --json | grep '"threads"')
echo "threads on a Jetson Nano, within this machine's $(nproc):$threads"

say "A tarball for people without cargo"
# The C example out of the unpacked tarball, built in each way that people do, tells the same digest of a frame.
./scripts/dist.sh aarch64-unknown-linux-gnu
tar -xzf target/dist/vitlet-*-aarch64-linux.tar.gz -C "$work"
tree=$(echo "$work"/vitlet-*-aarch64-linux)
source=$tree/share/doc/vitlet/examples/c/classify.c
mkdir -p "$work/cmake"
cat >"$work/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.16)
project(classify C)
find_package(vitlet REQUIRED)
foreach(kind vitlet static)
    add_executable(cmake-\${kind} $source)
    target_link_libraries(cmake-\${kind} vitlet::\${kind})
endforeach()
END
export PKG_CONFIG_PATH=$tree/lib/pkgconfig
cc=aarch64-linux-gnu-gcc
# shellcheck disable=SC2046
$cc -O2 "$source" $(pkg-config --cflags --libs vitlet) -o "$work/pkg-config-shared"
# shellcheck disable=SC2046
$cc -O2 -static "$source" $(pkg-config --static --cflags --libs vitlet) -o "$work/pkg-config-static"
cmake -S "$work/cmake" -B "$work/cmake-build" -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$tree" >/dev/null
cmake --build "$work/cmake-build" >/dev/null
head -c $((64 * 48 * 3 / 2)) "$work/frames" >"$work/frame"
digest=$("$host" classify -m "$work/int8.gguf" --digest --json --raw i420:64x48 "$work/frame" | sed -n 's/.*"digest":"\([0-9a-f]\{16\}\)".*/\1/p')
[ -n "$digest" ] || die "no digest"
for made in "$work"/pkg-config-{shared,static} "$work"/cmake-build/cmake-{vitlet,static}; do
    said=$(qemu-aarch64-static -cpu cortex-a76 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$tree/lib" "$made" "$work/int8.gguf" "$work/frame" i420 64 48)
    grep -q "$digest" <<<"$said" || die "$(basename "$made"): $said"
    echo "$(basename "$made"): digest $digest, $(stat -c %s "$made") bytes"
done
qemu-aarch64-static "$tree/bin/vitlet" --version

./scripts/deb.sh "target/dist/$(basename "$tree")" "$work/packages"
./scripts/test_deb.sh arm64 "$work/packages"

say "A C program that needs nothing"
# musl in it, too: runs on any 64-bit ARM Linux. Zig brings musl and a linker.
# Without the networks and heads that are features: a program pays for what it runs, here a ViT.
FEATURES="--no-default-features --features std" ./scripts/install_capi.sh "$work/musl" aarch64-unknown-linux-musl
target/board-venv/bin/python -m ziglang cc -target aarch64-linux-musl -static -Os -s -Wl,--gc-sections -I"$work/musl/include" "$source" \
    "$work/musl/lib/libvitlet.a" -lunwind -o "$work/musl-static"
./scripts/check_elf.sh "$work/musl-static"
said=$(qemu-aarch64-static -cpu cortex-a53 "$work/musl-static" "$work/int8.gguf" "$work/frame" i420 64 48)
grep -q "$digest" <<<"$said" || die "musl-static: $said"
bytes=$(stat -c %s "$work/musl-static")
echo "musl-static: digest $digest, $bytes bytes"
((bytes <= 800000)) || die "more than 0.8 MB"
echo "boards: all passed"
