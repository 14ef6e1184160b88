#!/usr/bin/env bash
# Installs Debian packages into an empty root and uses them as people without Rust do:
#
#     ./scripts/test_deb.sh ARCH DIR        the packages of arm64 or amd64 in DIR, made by scripts/deb.sh
#
# dpkg installs, verifies and removes them; arm64's programs run under QEMU. Wants qemu-user-static and
# gcc-aarch64-linux-gnu for arm64, and root for dpkg's installation: without root, the packages are unpacked only.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
[ "$#" = 2 ] || die "usage: test_deb.sh ARCH DIR"
architecture=$1
packages=("$2"/vitlet_*_"$architecture".deb "$2"/libvitlet-dev_*_"$architecture".deb)
case "$architecture" in
    arm64) run=(qemu-aarch64-static -cpu cortex-a72) cc=aarch64-linux-gnu-gcc libc=/usr/aarch64-linux-gnu ;;
    amd64) run=() cc=gcc libc=/ ;;
    *) die "$architecture: arm64 or amd64" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"

say "Debian packages for $architecture: installed"
in_root() {
    # The C library is no package of this root, and the machine's architecture may be another one.
    dpkg --root="$root" --log=/dev/null --force-architecture --force-depends "$@"
}
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
    touch "$root/var/lib/dpkg/status"
    in_root --install "${packages[@]}" >/dev/null 2>"$work/dpkg.txt" || die "$(cat "$work/dpkg.txt")"
    for name in vitlet libvitlet-dev; do
        [ "$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Status}' "$name")" = "install ok installed" ] || die "$name: not installed"
        changed=$(in_root --verify "$name")
        [ -z "$changed" ] || die "$name: $changed"
    done
else
    skip "dpkg --install needs root: the packages are unpacked only"
    for package in "${packages[@]}"; do dpkg-deb -x "$package" "$root"; done
fi
for file in bin/vitlet share/man/man1/vitlet.1.gz share/man/man1/vitlet-bench-layerscale.1.gz \
    share/bash-completion/completions/vitlet share/zsh/vendor-completions/_vitlet share/fish/vendor_completions.d/vitlet.fish \
    include/vitlet.h lib/libvitlet.a lib/libvitlet.so share/doc/vitlet/{copyright,NOTICES.txt,changelog.gz}; do
    [ -s "$root/usr/$file" ] || die "/usr/$file: missing or empty"
done

say "Debian packages for $architecture: a folder becomes a model that classifies"
vitlet() { env -i "${run[@]}" "$root/usr/bin/vitlet" "$@"; }
built_in=models/cifar10-vit-layerscale
vitlet convert "$built_in" -o "$work/model.gguf" >/dev/null
# Conversion is deterministic: the committed model, to the byte.
cmp "$work/model.gguf" "$built_in/model.gguf"
vitlet inspect --verify "$work/model.gguf" >/dev/null
said=$(vitlet classify -m "$work/model.gguf" --digest "$built_in/pictures/chelsea.jpg")
echo "$said"
grep -q ' cat$' <<<"$said" || die "no cat"
digest=$(grep -oE '[0-9a-f]{16}' <<<"$said")
vitlet bench -m "$work/model.gguf" --warmup 0 --iters 1 >/dev/null

say "Debian packages for $architecture: the library"
python3 scripts/make_frames.py "$work/frames" >/dev/null
expected=$(vitlet classify -m "$work/model.gguf" --digest "$work/frames/rgb.bmp" | grep -oE '[0-9a-f]{16}')
# shellcheck disable=SC2046
"$cc" -O2 "$root/usr/share/doc/libvitlet-dev/examples/c/classify.c" -o "$work/classify" \
    $(PKG_CONFIG_LIBDIR=$root/usr/lib/pkgconfig pkg-config --cflags --libs vitlet)
case "$architecture" in
    arm64) loader=("${run[@]}" -L "$libc" -E "LD_LIBRARY_PATH=$root/usr/lib") ;;
    amd64) loader=(env "LD_LIBRARY_PATH=$root/usr/lib") ;;
esac
got=$("${loader[@]}" "$work/classify" "$work/model.gguf" "$work/frames/rgb.ppm" 2>/dev/null | grep -oE '[0-9a-f]{16}')
[ "$got" = "$expected" ] || die "the C program's digest is $got, the program's $expected"
echo "a C program, linked with pkg-config: digest $got; the cat's digest: $digest"

if [ "$(id -u)" = 0 ]; then
    in_root --purge vitlet libvitlet-dev >/dev/null 2>&1
    left=$(find "$root/usr" -type f 2>/dev/null || true)
    [ -z "$left" ] || die "left behind: $left"
    echo "removed without a trace"
fi
