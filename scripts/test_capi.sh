#!/usr/bin/env bash
# libvitlet from C and C++: installed, built and run as its users would. Called by scripts/test.sh; runs alone, too.
#
#     ./scripts/test_capi.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

packages=(gcc g++ make cmake pkg-config valgrind gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static python3
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev gstreamer1.0-plugins-base)
has() { command -v "$1" >/dev/null; }

need_packages "${packages[@]}"
need_targets aarch64-unknown-linux-gnu aarch64-unknown-none
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

work=$PWD/target/capi
model=models/cifar10-vit-layerscale/model.gguf
rm -rf "$work"
mkdir -p "$work"
read -r width height < <(python3 scripts/make_frames.py "$work/frames")
frames=$work/frames

# The digest in the output of a program.
digest() { grep -oE '[0-9a-f]{16}' || true; }
# What the program computes from the BMP that a format should be read as.
say "The program's digests"
cargo build --release --quiet
declare -A expected
for picture in rgb yuv gray turned part; do
    expected[$picture]=$(target/release/vitlet classify -m "$model" --digest "$frames/$picture.bmp" | digest)
    [ -n "${expected[$picture]}" ] || die "no digest of $picture.bmp"
done

# Runs classify ("$@" is how) on every format, and on a region and a rotation.
classify_all() {
    local count=0
    compare() {
        local want=${expected[$1]} got
        shift
        got=$("$@" 2>/dev/null | digest)
        [ "$got" = "$want" ] || die "digest $got, not $want: $*"
        count=$((count + 1))
    }
    compare rgb "$@" "$model" "$frames/rgb.ppm"
    for format in rgb bgr rgba; do
        compare rgb "$@" "$model" "$frames/frame.$format" "$format" "$width" "$height"
    done
    for format in yuyv nv12 i420; do
        compare yuv "$@" "$model" "$frames/frame.$format" "$format" "$width" "$height"
    done
    compare gray "$@" "$model" "$frames/frame.gray" gray "$width" "$height"
    compare turned "$@" -r 90 "$model" "$frames/rgb.ppm"
    compare part "$@" -c 11,7,60,50 "$model" "$frames/rgb.ppm"
    compare rgb "$@" -t 3 "$model" "$frames/rgb.ppm"
    compare rgb "$@" -k scalar "$model" "$frames/rgb.ppm"
    echo "$count runs equal the program's"
}
# Builds the examples with make against an installed library: PREFIX OUT MAKE-ARGUMENTS...
build() {
    local prefix=$1 out=$2
    shift 2
    mkdir -p "$out"
    PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig make --silent -C examples/c OUT="$out" "$@"
}

say "C and C++ on this machine"
./scripts/install_capi.sh "$work/host"
build "$work/host" "$work/gcc"
build "$work/host" "$work/gcc-static" STATIC=1 "$work/gcc-static/classify"
export LD_LIBRARY_PATH=$work/host/lib
classify_all "$work/gcc/classify"
classify_all "$work/gcc-static/classify"
"$work/gcc/classify" "$model" "$frames/rgb.ppm"
threads=("$model" "$frames/frame.rgb" "$width" "$height")
[ "$("$work/gcc/threads" "${threads[@]}" | digest)" = "${expected[rgb]}" ] || die "threads: another digest"
echo "threads.cpp: four sessions of one model, an executor's callback and a pool give the same"
# The depth of a frame, and of a part of it, as the program sees them.
depth_model=$work/depth.gguf
target/release/vitlet convert -o "$depth_model" tests/fixtures/checkpoints/hf_depth_anything_metric >/dev/null
depth_frame=("$depth_model" "$frames/frame.nv12" "$width" "$height")
depth_line=$(target/release/vitlet depth -m "$depth_model" --raw "nv12:${width}x$height" --digest "$frames/frame.nv12")
depth_words=$(grep -oE 'at [0-9]+,[0-9]+' <<<"$depth_line")
compare_depth() {
    local told
    told=$("$@" "${depth_frame[@]}")
    [ "$(digest <<<"$told")" = "$(digest <<<"$depth_line")" ] || die "depth: another digest than the program's"
    grep -q "nearest .* m $depth_words\$" <<<"$told" || die "depth: $told; the program: $depth_line"
}
compare_depth "$work/gcc/depth"
compare_depth "$work/gcc/depth" -t 2 -s 56x42
"$work/gcc/depth" -c 20,30,40,9 "${depth_frame[@]}" | grep -q "^nearest"
if "$work/gcc/depth" "$model" "$frames/frame.nv12" "$width" "$height" 2>/dev/null; then die "depth of a classifier"; fi
echo "depth.c with 1 and 2 threads gives the program's nearest point and digest"
# The header alone, as old C and as C++.
for language in "c -std=c99" "c++ -std=c++11"; do
    # shellcheck disable=SC2086
    gcc -x $language -pedantic -Wall -Wextra -Wpedantic -Werror -fsyntax-only capi/include/vitlet.h
done
library=$work/host/lib/libvitlet.so
readelf -d "$library" | grep -q 'SONAME.*\[libvitlet\.so\.1\]' || die "$library: another SONAME than libvitlet.so.1"
readelf -d "$work/gcc/classify" | grep -q 'NEEDED.*\[libvitlet\.so\.1\]' || die "classify: not linked with libvitlet.so.1"
nm -D --defined-only --format=just-symbols "$library" | sort >"$work/exported.txt"
grep -oE '^[a-z].*[ *](vitlet_[a-z0-9_]+)\(' capi/include/vitlet.h | grep -oE 'vitlet_[a-z0-9_]+\($' | tr -d '(' | sort >"$work/declared.txt"
diff "$work/declared.txt" "$work/exported.txt" || die "$library exports other symbols than vitlet.h declares"
echo "SONAME libvitlet.so.1; $(wc -l <"$work/exported.txt") symbols, the functions of vitlet.h"
if has cmake; then
    PKG_CONFIG_PATH=$work/host/lib/pkgconfig cmake -S examples/c -B "$work/cmake" >/dev/null
    cmake --build "$work/cmake" >/dev/null
    classify_all "$work/cmake/classify"
else
    skip "CMake is not installed"
fi

if pkg-config --exists gstreamer-app-1.0 gstreamer-video-1.0; then
    say "Frames of a GStreamer pipeline"
    PKG_CONFIG_PATH=$work/host/lib/pkgconfig make --silent -C examples/c OUT="$work/gcc" gstreamer
    # Classifies frames of GStreamer's format $1, which is ours of name $2, at a width whose rows have gaps, and
    # compares with the same frame without gaps; $3 are the bytes of a row of each plane, with gaps and without, and its
    # rows; $4 the matrix of luma and chroma.
    stream() {
        local pipeline got want matrix=${4:-bt601}
        pipeline="videotestsrc num-buffers=3 pattern=smpte75 ! video/x-raw,format=$1,width=98,height=76"
        [ -z "${4:-}" ] || pipeline+=",colorimetry=$4"
        pipeline+=" ! tee name=t ! queue ! filesink location=$work/stream t. ! queue ! appsink name=vitlet"
        got=$("$work/gcc/gstreamer" "$model" "$pipeline" | digest)
        [ "$(wc -l <<<"$got")" = 3 ] || die "gstreamer: not three frames of $1"
        python3 - "$work/stream" "$work/frame.$2" "$3" <<'END'
import sys
data, at, frame = open(sys.argv[1], "rb").read(), 0, b""
for plane in sys.argv[3].split():
    stride, row, rows = map(int, plane.split(","))
    frame += b"".join(data[at + i * stride : at + i * stride + row] for i in range(rows))
    at += stride * rows
assert 3 * at == len(data), (at, len(data))
open(sys.argv[2], "wb").write(frame)
END
        want=$("$work/gcc/classify" -y "$matrix" "$model" "$work/frame.$2" "$2" 98 76 2>/dev/null | digest)
        [ "$(sort -u <<<"$got")" = "$want" ] || die "gstreamer: $1: digests $got, not $want"
        echo "$1 $matrix: $want"
    }
    stream RGB rgb "296,294,76"
    stream BGR bgr "296,294,76"
    stream RGBx rgba "392,392,76"
    stream GRAY8 gray "100,98,76"
    stream YUY2 yuyv "196,196,76"
    stream NV12 nv12 "100,98,76 100,98,38"
    stream NV12 nv12 "100,98,76 100,98,38" bt709
    stream I420 i420 "100,98,76 52,49,38 52,49,38"
    # A stream without end: a signal stops it.
    endless="videotestsrc ! video/x-raw,width=64,height=48 ! appsink name=vitlet"
    code=0
    timeout --preserve-status -k 5 --signal=INT 2 "$work/gcc/gstreamer" "$model" "$endless" >"$work/endless.txt" || code=$?
    [ "$code" = 0 ] && grep -q digest "$work/endless.txt" || die "gstreamer: exit status $code after SIGINT"
    for pipeline in "videotestsrc ! fakesink" "nosuchsource ! appsink name=vitlet"; do
        if "$work/gcc/gstreamer" "$model" "$pipeline" 2>"$work/refused.txt"; then die "gstreamer: not refused: $pipeline"; fi
        grep '^error: pipeline: ' "$work/refused.txt"
    done
else
    skip "GStreamer's headers are not installed"
fi

say "Errors are one line"
refused() {
    local want=$1 got
    shift
    if got=$("$@" 2>&1 >/dev/null); then die "not refused: $*"; fi
    [ "$got" = "error: $want" ] || die "$*: $got"
    echo "$got"
}
cd "$frames"
refused "rgb.ppm: not a model file: no GGUF magic at the start" "$work/gcc/classify" rgb.ppm rgb.ppm
refused "none.gguf: No such file or directory" "$work/gcc/classify" none.gguf rgb.ppm
refused "frame.rgb: the frame ends too early" "$work/gcc/classify" "$OLDPWD/$model" frame.rgb rgb 4000 4000
refused "session: this CPU has no kernels of that name" "$work/gcc/classify" -k mmx "$OLDPWD/$model" rgb.ppm
refused "rgb.ppm: region: 20 x 20 at x 90, y 0 is empty or not inside the picture of 101 x 75" "$work/gcc/classify" -c 90,0,20,20 "$OLDPWD/$model" rgb.ppm
cd "$OLDPWD"

flags=$(PKG_CONFIG_LIBDIR=$work/host/lib/pkgconfig pkg-config --cflags --libs vitlet)
say "Sessions that are moved or stopped, from C++"
# shellcheck disable=SC2086
g++ -std=c++17 -Wall -Wextra -Wno-unused-parameter -Werror -o "$work/sessions" capi/tests/sessions.cpp $flags
"$work/sessions" "$model" || die "sessions.cpp: exit status $?"
echo "each runs in its own memory"

say "An exception out of a callback ends the process"
# Linked as "$@" says; $work/throws.txt is its output.
throws() {
    local code=0
    g++ -std=c++17 -o "$work/throws" capi/tests/throws.cpp "$@"
    (ulimit -c 0; RUST_BACKTRACE=full "$work/throws" "$model") >/dev/null 2>"$work/throws.txt" || code=$?
    [ "$code" = 134 ] || die "throws.cpp: exit status $code, not SIGABRT's 134: $*"
}
# The library as it is handed out cannot unwind.
# shellcheck disable=SC2086
throws $flags
# A build that unwinds ends before it does: the engine's frames are still there.
cargo build --profile checked --quiet -p vitlet-capi
throws -Icapi/include target/checked/libvitlet.a -lpthread -ldl -lm
for words in "cannot unwind" "parallel::for_each"; do
    grep -q "$words" "$work/throws.txt" || die "throws.cpp: no \"$words\" in $work/throws.txt"
done
echo "SIGABRT in a build that aborts, and at the callback in one that unwinds"

say "The host's floating-point environment"
cover=$work/cover.gguf
target/release/vitlet convert tests/fixtures/checkpoints/timm_deit3 -o "$cover" >/dev/null
# shellcheck disable=SC2086
gcc -std=c11 -O2 -Wall -Wextra -Werror -o "$work/environment" capi/tests/environment.c $flags
"$work/environment" "$cover"

if has valgrind; then
    say "No error and no leak (valgrind)"
    check=(valgrind --quiet --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all --error-exitcode=9)
    for arguments in "$model $frames/rgb.ppm" "-t 2 $model $frames/frame.nv12 nv12 $width $height" "-r 270 $model $frames/frame.i420 i420 $width $height"; do
        # shellcheck disable=SC2086
        "${check[@]}" "$work/gcc/classify" $arguments >/dev/null
    done
    "${check[@]}" "$work/gcc/threads" "${threads[@]}" >/dev/null
    "${check[@]}" "$work/gcc/depth" -t 2 -c 90,70,11,5 "${depth_frame[@]}" >/dev/null
    echo "classify with 1 and 2 threads, depth.c, threads.cpp: none"
else
    skip "valgrind is not installed"
fi
unset LD_LIBRARY_PATH

if has qemu-aarch64-static && has aarch64-linux-gnu-gcc; then
    say "C on aarch64, under QEMU"
    ./scripts/install_capi.sh "$work/aarch64" aarch64-unknown-linux-gnu
    build "$work/aarch64" "$work/aarch64-gcc" CC=aarch64-linux-gnu-gcc "$work/aarch64-gcc/classify"
    build "$work/aarch64" "$work/aarch64-static" CC=aarch64-linux-gnu-gcc STATIC=1 LDFLAGS=-Wl,--gc-sections "$work/aarch64-static/classify"
    qemu=(qemu-aarch64-static -cpu cortex-a76)
    classify_all "${qemu[@]}" -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$work/aarch64/lib" "$work/aarch64-gcc/classify"
    classify_all "${qemu[@]}" "$work/aarch64-static/classify"
    # shellcheck disable=SC2046
    aarch64-linux-gnu-gcc -std=c11 -O2 -Wall -Wextra -Werror -static -o "$work/environment-aarch64" capi/tests/environment.c \
        $(PKG_CONFIG_LIBDIR=$work/aarch64/lib/pkgconfig pkg-config --cflags --static --libs vitlet)
    "${qemu[@]}" "$work/environment-aarch64" "$cover"

    say "Without an operating system: no allocator, no libc"
    cargo build --profile library --quiet -p vitlet-capi --no-default-features --target aarch64-unknown-none
    bare=target/aarch64-unknown-none/library/libvitlet.a
    target/release/vitlet inspect --c-header --max-picture 64x48 "$model" >"$work/model.h"
    # Linked with nothing else: a symbol that the library misses is an error here.
    aarch64-linux-gnu-gcc -std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -Wl,--gc-sections -Wl,--fatal-warnings \
        -Icapi/include -I"$work" -DMODEL="\"$model\"" -o "$work/bare" capi/tests/bare.c "$bare"
    undefined=$(aarch64-linux-gnu-nm --undefined-only "$work/bare")
    [ -z "$undefined" ] || die "undefined symbols: $undefined"
    echo "undefined symbols: none"
    if aarch64-linux-gnu-nm --format=just-symbols "$work/bare" | grep -iE '^(malloc|calloc|realloc|free|__rust_alloc|__rg_alloc|printf|pthread_|__libc)'; then
        die "an allocator or a libc"
    fi
    for core in cortex-a53 cortex-a76; do
        bare_digest=$(qemu-aarch64-static -cpu "$core" "$work/bare" | digest)
        echo "$core: $bare_digest"
        [ -n "$bare_digest" ] || die "the bare program printed no digest"
        [ "$bare_digest" = "${first_digest:=$bare_digest}" ] || die "the bare program's digest differs"
    done
    # The same frame through the std library.
    python3 - "$frames/bare.nv12" <<'END'
import sys
luma = bytes(16 + i % 64 * 3 for i in range(64 * 48))
open(sys.argv[1], "wb").write(luma + bytes((150, 90)) * (64 * 24 // 2))
END
    [ "$("$work/gcc-static/classify" "$model" "$frames/bare.nv12" nv12 64 48 2>/dev/null | digest)" = "$first_digest" ] ||
        die "the bare program's digest differs from this machine's"

    say "Sizes"
    ./scripts/capi_size.sh "$work/aarch64-static/classify"
    # Without the networks that are features: what a firmware with a ViT pays for.
    ./scripts/capi_size.sh "$work/bare" 278000
else
    skip "qemu-user-static and gcc-aarch64-linux-gnu are not installed"
fi
