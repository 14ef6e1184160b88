#!/usr/bin/env bash
# Makes Debian packages of an unpacked tarball of scripts/dist.sh:
#
#     ./scripts/deb.sh TREE OUT        TREE: vitlet-VERSION-aarch64-linux or vitlet-VERSION-x86_64-linux
#
# OUT/vitlet_VERSION_ARCH.deb has the program with its pages and completions, and needs no other package.
# OUT/libvitlet-dev_VERSION_ARCH.deb has the C library, its headers and the examples. Both are for Debian, Raspberry Pi
# OS and Ubuntu (JetPack) alike: the program is static, and the library asks for glibc 2.27. Wants dpkg-deb alone.
set -euo pipefail
[ "$#" = 2 ] && [ -x "$1/bin/vitlet" ] || { echo "usage: deb.sh TREE OUT" >&2; exit 2; }
tree=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
# shellcheck source=scripts/board_builds.sh
. scripts/board_builds.sh

version=$(stated_version)
case "$tree" in
    *-aarch64-linux) architecture=arm64 ;;
    *-x86_64-linux) architecture=amd64 ;;
    *) echo "error: $tree: the name says no architecture" >&2; exit 1 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# package NAME SECTION DESCRIPTION [FIELD]...: packs $work/NAME, whose usr/ is complete but for the licences.
package() {
    local name=$1 section=$2 description=$3 root=$work/$1 doc=$work/$1/usr/share/doc/$1
    shift 3
    mkdir -p "$root/DEBIAN" "$doc"
    cp "$tree"/share/doc/vitlet/{LICENSE-APACHE,LICENSE-MIT,NOTICES.txt} "$doc/"
    cat >"$doc/copyright" <<END
vitlet is licensed under either of LICENSE-MIT and LICENSE-APACHE, at your option. NOTICES.txt has the licences of the
crates that are linked into it. All three are in this folder.
END
    cat >"$root/DEBIAN/control" <<END
Package: $name
Version: $version
Architecture: $architecture
Maintainer: ${DEB_MAINTAINER:-the vitlet developers}
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f 1)
Section: $section
Priority: optional
$(printf '%s\n' "$@")
Description: $description
END
    sed -i '/^$/d' "$root/DEBIAN/control"
    chmod -R u=rwX,go=rX "$root"
    # Older dpkg reads no zstd.
    dpkg-deb --root-owner-group -Zxz --build "$root" "$out/${name}_${version}_$architecture.deb" >/dev/null
    echo "$out/${name}_${version}_$architecture.deb"
}

mkdir -p "$work/vitlet/usr/bin" "$work/vitlet/usr/share/doc/vitlet"
cp "$tree/bin/vitlet" "$work/vitlet/usr/bin/"
cp -r "$tree"/share/{man,bash-completion,zsh,fish} "$work/vitlet/usr/share/"
# Where Debian's zsh looks.
mv "$work/vitlet/usr/share/zsh/site-functions" "$work/vitlet/usr/share/zsh/vendor-completions"
gzip -n9 "$work"/vitlet/usr/share/man/man1/*.1
gzip -n9c "$tree/share/doc/vitlet/CHANGELOG.md" >"$work/vitlet/usr/share/doc/vitlet/changelog.gz"
package vitlet science "runs Vision Transformers in int8 and f16 on small ARM boards
 One static program: converts checkpoints of timm, transformers, PyTorch and ONNX,
 classifies pictures, measures times and accuracies. It contains a small model."

mkdir -p "$work/libvitlet-dev/usr/share/doc/libvitlet-dev"
cp -r "$tree/lib" "$tree/include" "$work/libvitlet-dev/usr/"
cp -r "$tree/share/doc/vitlet/examples" "$work/libvitlet-dev/usr/share/doc/libvitlet-dev/"
mkdir -p "$work/libvitlet-dev/DEBIAN"
# So that the loader finds libvitlet.so without more ado.
echo "activate-noawait ldconfig" >"$work/libvitlet-dev/DEBIAN/triggers"
package libvitlet-dev libdevel "vitlet's engine for C and C++: libraries, headers, examples
 Runs model files of vitlet in memory that the caller gives. vitlet.h opens with a
 program; pkg-config and CMake know the library as vitlet." "Depends: libc6 (>= 2.27)"
