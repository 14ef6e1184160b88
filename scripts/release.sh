#!/usr/bin/env bash
# Makes everything that is handed out, in target/handout, of the last commit:
#
#     ./scripts/release.sh [TAG]        TAG: the version with a v before it; another one is an error
#
#     vitlet-VERSION-{aarch64,x86_64}-linux.tar.gz    program, library, headers, pages, completions (scripts/dist.sh)
#     vitlet_VERSION_{arm64,amd64}.deb                program, pages, completions (scripts/deb.sh)
#     libvitlet-dev_VERSION_{arm64,amd64}.deb         library, headers, examples
#     vitlet-VERSION-source.tar.xz                    sources with all crates (scripts/source.sh)
#     SHA256SUMS                                      sha256sum --check SHA256SUMS
#
# scripts/test_release.sh tests them. Wants rustup, gcc, Python 3 with venv, git, xz and dpkg-deb. Takes 15 to 30
# minutes on two cores.
set -euo pipefail
[ "$#" -le 1 ] || { echo "usage: release.sh [TAG]" >&2; exit 2; }
cd "$(dirname "$0")/.."
. scripts/tools.sh
# shellcheck source=scripts/board_builds.sh
. scripts/board_builds.sh

version=$(stated_version)
[ "${1:-v$version}" = "v$version" ] || die "$1: Cargo.toml states version $version, so the tag is v$version"
# The programs would be of other sources than the source tarball.
[ -z "$(git status --porcelain --untracked-files=no)" ] || die "uncommitted changes: commit them first"

out=target/handout
rm -rf "$out"
mkdir -p "$out"
for target in aarch64-unknown-linux-gnu x86_64-unknown-linux-gnu; do
    tree=vitlet-$version-${target%%-*}-linux
    say "$tree"
    # Each in a shell of its own: it sets a linker for its target.
    ./scripts/dist.sh "$target"
    mv "target/dist/$tree.tar.gz" "$out/"
    ./scripts/deb.sh "target/dist/$tree" "$out"
done
say "vitlet-$version-source"
./scripts/source.sh "$out"

say "Sums"
(cd "$out" && sha256sum -- * >../SHA256SUMS && mv ../SHA256SUMS .)
(cd "$out" && ls -l | awk 'NR > 1 { printf "%8.2f MB  %s\n", $5 / 1e6, $NF }')
