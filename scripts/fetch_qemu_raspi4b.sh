#!/usr/bin/env bash
# Prints the path of a qemu-system-aarch64 that has the machine `raspi4b` (QEMU 9 and later):
#
#     qemu=$(./scripts/fetch_qemu_raspi4b.sh)
#
# The installed one, if it has. Otherwise (Debian 12 has QEMU 7.2) the one of the release's backports, unpacked under
# target/, from the mirror that this machine's apt sources already name. Nothing is installed, and no root is needed:
# the libraries come from the installed qemu-system-arm.
set -euo pipefail
cd "$(dirname "$0")/.."

has_raspi4b() { "$1" -M help 2>/dev/null | grep -q '^raspi4b '; }

work=$PWD/target/qemu
for qemu in qemu-system-aarch64 "$work/usr/bin/qemu-system-aarch64"; do
    if has_raspi4b "$qemu"; then
        command -v "$qemu"
        exit 0
    fi
done
command -v apt-get >/dev/null || { echo "error: no QEMU with the machine raspi4b: install QEMU 9 or later" >&2; exit 1; }

codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
# The mirror of the release itself, not the mirror of its security updates.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Identifier: Packages' |
    awk -v release="$codename" '$2 == release { print $1; exit }')
[ -n "$mirror" ] || { echo "error: this machine's apt sources name no mirror of $codename" >&2; exit 1; }

rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $codename-backports main" >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
"${apt[@]}" update >&2
(cd "$work" && "${apt[@]}" download -t "$codename-backports" qemu-system-arm >&2)
dpkg-deb -x "$work"/qemu-system-arm_*.deb "$work"
rm -rf "$work"/*.deb "$work/lists" "$work/cache"

has_raspi4b "$work/usr/bin/qemu-system-aarch64" ||
    { echo "error: the QEMU of $codename-backports does not run here, or has no raspi4b" >&2; exit 1; }
echo "$work/usr/bin/qemu-system-aarch64"
