#!/usr/bin/env bash
# Installs a qemu-system-aarch64 that has the machine `raspi4b` (QEMU 9 and later):
#
#     ./scripts/install_qemu_raspi4b.sh
#
# Does nothing where it is there already. On Debian 12, whose own QEMU is 7.2, it takes qemu-system-arm from
# bookworm-backports, on the mirror that this machine's apt sources already name; the sources themselves stay as they
# are. Needs root. qemu-user(-static) is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."

has_raspi4b() { qemu-system-aarch64 -M help 2>/dev/null | grep -q '^raspi4b '; }

has_raspi4b && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: qemu-system-aarch64 with the machine raspi4b is missing: install QEMU 9 or later" >&2
    exit 1
fi

codename=$(. /etc/os-release && echo "${VERSION_CODENAME:?this is not Debian}")
# The mirror of the release itself, not that of its security updates.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Identifier: Packages' |
    grep -vE '(security|updates|backports)' | head -n 1 | cut -d ' ' -f 1)
[ -n "$mirror" ] || { echo "error: this machine's apt sources name no mirror" >&2; exit 1; }

mkdir -p target
sources=$PWD/target/backports.list
cat /etc/apt/sources.list >"$sources" 2>/dev/null || true
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $codename-backports main" >>"$sources"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$sources")
"${apt[@]}" update
DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends -t "$codename-backports" qemu-system-arm >/dev/null

has_raspi4b || { echo "error: $codename-backports has no QEMU with the machine raspi4b" >&2; exit 1; }
