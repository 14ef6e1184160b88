#!/usr/bin/env bash
# Installs Debian packages into an empty root and uses them as people without Rust do:
#
#     ./scripts/test_deb.sh ARCH DIR        the packages of arm64 or amd64 in DIR, made by scripts/deb.sh
#
# dpkg installs, verifies and removes them. arm64's programs run under QEMU, in a root of Debian's own arm64 packages
# where apt-get has them: nothing of this machine can be seen from there. Wants qemu-user-static and
# gcc-aarch64-linux-gnu for arm64, and root for dpkg's installation: without root, the packages are unpacked only.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
[ "$#" = 2 ] || die "usage: test_deb.sh ARCH DIR"
architecture=$1
packages=("$2"/vitlet_*_"$architecture".deb "$2"/libvitlet-dev_*_"$architecture".deb)
case "$architecture" in
    arm64) emulator=(qemu-aarch64-static -cpu cortex-a72) cc=aarch64-linux-gnu-gcc libc=/usr/aarch64-linux-gnu ;;
    amd64) emulator=() cc=gcc libc=/ ;;
    *) die "$architecture: arm64 or amd64" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/home "$root"/usr/bin "$root"/var/lib/dpkg/{info,updates}
status=$root/var/lib/dpkg/status
touch "$status"

# Debian's base for the architecture, in the root: the C library, what it needs, and base-files, as apt-get resolves
# them with a state of its own. They are unpacked, and noted as installed. False where apt-get has no such packages
# (Ubuntu has those of arm64 elsewhere).
debian_base() {
    local apt=target/apt-$architecture package
    mkdir -p "$apt"/{lists,archives}/partial
    : >"$apt/status"
    local options=(-qq -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o APT::Sandbox::User=root
        -o "Dir::State::lists=$PWD/$apt/lists" -o "Dir::State::status=$PWD/$apt/status" -o "Dir::Cache=$PWD/$apt")
    apt-get "${options[@]}" update && rm -f "$apt"/archives/*.deb || return 1
    apt-get "${options[@]}" install --yes --download-only --no-install-recommends libc6 libgcc-s1 base-files >/dev/null || return 1
    # dpkg's own architecture comes first.
    printf '%s\n' "$(dpkg --print-architecture)" "$architecture" >"$root/var/lib/dpkg/arch"
    for package in "$apt"/archives/*.deb; do
        dpkg-deb -x "$package" "$root"
        dpkg-deb -f "$package" | sed '/^Package:/a Status: install ok installed' >>"$status"
        echo >>"$status"
    done
}

force=(--force-architecture)
if [ "$architecture" = arm64 ] && debian_base 2>"$work/apt.txt"; then
    libc=$root
    echo "the root: $(grep -c '^Package:' "$status") packages of Debian, $(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Version}' libc6:arm64) of libc6"
else
    [ "$architecture" != arm64 ] || echo "no arm64 packages for apt-get ($(tail -n 1 "$work/apt.txt")): the cross compiler's libraries stand for them"
    # The C library is no package of this root.
    force+=(--force-depends)
fi
files_before=$(find "$root/usr" -type f | sort)

say "Debian packages for $architecture: installed"
in_root() { dpkg --root="$root" --log=/dev/null "${force[@]}" "$@"; }
if [ "$(id -u)" = 0 ]; then
    in_root --install "${packages[@]}" >/dev/null 2>"$work/dpkg.txt" || die "$(cat "$work/dpkg.txt")"
    for name in vitlet libvitlet-dev; do
        installed=$name:$architecture
        [ "$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Status}' "$installed")" = "install ok installed" ] || die "$name: not installed"
        changed=$(in_root --verify "$installed")
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

# inside PROGRAM [ARGUMENT]...: runs a program of the root in /home. As root, nothing outside of the root can be seen.
if [ "$(id -u)" = 0 ]; then
    [ "${#emulator[@]}" = 0 ] || cp "$(command -v "${emulator[0]}")" "$root/emulator"
    inside() { env -i HOME=/home "$(command -v chroot)" "$root" ${emulator:+/emulator "${emulator[@]:1}"} "$@"; }
    home=/home
else
    inside() { (cd "$root/home" && env -i ${emulator:+"$(command -v "${emulator[0]}")" "${emulator[@]:1}" -L "$libc"} "$root$1" "${@:2}"); }
    home=.
fi
vitlet() { inside /usr/bin/vitlet "$@"; }

say "Debian packages for $architecture: a folder becomes a model that classifies"
built_in=models/cifar10-vit-layerscale
mkdir "$root/home/checkpoint"
cp "$built_in"/{config.json,model.safetensors} "$built_in/pictures/chelsea.jpg" "$root/home/checkpoint/"
python3 scripts/make_frames.py "$root/home/frames" >/dev/null
# What people do after `apt install ./vitlet.deb`.
vitlet convert "$home/checkpoint" -o "$home/model.gguf" >/dev/null
vitlet inspect --verify "$home/model.gguf" >/dev/null
said=$(vitlet classify -m "$home/model.gguf" --digest "$home/checkpoint/chelsea.jpg")
vitlet embed -m "$home/model.gguf" "$home/checkpoint/chelsea.jpg" -o "$home/features.npy"
vitlet bench -m "$home/model.gguf" --warmup 0 --iters 1 >/dev/null
# Conversion is deterministic: the committed model, to the byte.
cmp "$root/home/model.gguf" "$built_in/model.gguf"
echo "$said"
grep -q ' cat$' <<<"$said" || die "no cat"
digest=$(grep -oE '[0-9a-f]{16}' <<<"$said")

say "Debian packages for $architecture: the library"
expected=$(vitlet classify -m "$home/model.gguf" --digest "$home/frames/rgb.bmp" | grep -oE '[0-9a-f]{16}')
# shellcheck disable=SC2046
"$cc" -O2 "$root/usr/share/doc/libvitlet-dev/examples/c/classify.c" -o "$root/home/classify" \
    $(PKG_CONFIG_LIBDIR=$root/usr/lib/pkgconfig pkg-config --cflags --libs vitlet)
case "$architecture,$libc" in
    *,"$root") got=$(inside /home/classify "$home/model.gguf" "$home/frames/rgb.ppm") ;;
    arm64,*) got=$("${emulator[@]}" -L "$libc" -E "LD_LIBRARY_PATH=$root/usr/lib" "$root/home/classify" "$root/home/model.gguf" "$root/home/frames/rgb.ppm") ;;
    amd64,*) got=$(LD_LIBRARY_PATH=$root/usr/lib "$root/home/classify" "$root/home/model.gguf" "$root/home/frames/rgb.ppm") ;;
esac 2>/dev/null
got=$(grep -oE '[0-9a-f]{16}' <<<"$got")
[ "$got" = "$expected" ] || die "the C program's digest is $got, the program's $expected"
echo "a C program, linked with pkg-config: digest $got; the cat's digest: $digest"

if [ "$(id -u)" = 0 ]; then
    in_root --purge "vitlet:$architecture" "libvitlet-dev:$architecture" >/dev/null 2>"$work/dpkg.txt" || die "$(cat "$work/dpkg.txt")"
    # dpkg takes empty folders away, too.
    left=$({ find "$root/usr" -type f 2>/dev/null || true; } | sort | comm -13 <(echo "$files_before") -)
    [ -z "$left" ] || die "left behind: $left"
    echo "removed without a trace"
fi
