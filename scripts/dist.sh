#!/usr/bin/env bash
# Makes a tarball for people without cargo:
#
#     ./scripts/dist.sh [TARGET]        aarch64-unknown-linux-gnu (default) or x86_64-unknown-linux-gnu
#
# In it: bin/vitlet (static), its manual pages and completions (share/), lib/ (libvitlet.a, libvitlet.so for glibc 2.27
# and later, vitlet.pc, CMake's find_package(vitlet)), include/, examples/c and the licences. Everything finds
# everything else relative to itself, so it works wherever it is unpacked.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/board_builds.sh
. scripts/board_builds.sh
target=${1:-aarch64-unknown-linux-gnu}
case "$target" in
    aarch64-unknown-linux-gnu | x86_64-unknown-linux-gnu) ;;
    *) echo "usage: dist.sh [aarch64-unknown-linux-gnu|x86_64-unknown-linux-gnu]" >&2; exit 2 ;;
esac

version=$(stated_version)
name=vitlet-$version-${target%%-*}-linux
stage=target/dist/$name
rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/share/doc/vitlet"
cp "$(static_program "${target/-gnu/-musl}")" "$stage/bin/vitlet"
./scripts/manual.sh "$stage/share"
link_for_old_glibc "$target"
CARGO_PROFILE_LIBRARY_STRIP=true ./scripts/install_capi.sh "$stage" "$target"
cp -r examples "$stage/share/doc/vitlet/"
cp LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md "$stage/share/doc/vitlet/"
python3 scripts/notices.py "${target/-gnu/-musl}" >"$stage/share/doc/vitlet/NOTICES.txt"
./scripts/check_elf.sh "$stage/bin/vitlet" "$stage/lib/libvitlet.so"

# The same input gives the same bytes: no dates, no names of users.
tar "${same_bytes[@]}" -C target/dist -c "$name" | gzip -n >"target/dist/$name.tar.gz.tmp"
mv "target/dist/$name.tar.gz.tmp" "target/dist/$name.tar.gz"
echo "target/dist/$name.tar.gz"
