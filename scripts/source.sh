#!/usr/bin/env bash
# Makes a tarball of the sources with all crates that they need, for builds without a network (Yocto, Buildroot):
#
#     ./scripts/source.sh OUT        OUT/vitlet-VERSION-source.tar.xz, of the last commit
#
# In it `cargo build --locked --offline` builds the program: vendor/ has the crates, .cargo/config.toml points there,
# and share/ has the manual pages and completions. Wants git and xz.
set -euo pipefail
[ "$#" = 1 ] || { echo "usage: source.sh OUT" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
# shellcheck source=scripts/board_builds.sh
. scripts/board_builds.sh

name=vitlet-$(stated_version)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive --prefix="$name/" HEAD | tar -x -C "$work"
./scripts/manual.sh "$work/$name/share"
mkdir "$work/$name/.cargo"
(cd "$work/$name" && cargo vendor --quiet --locked vendor >/dev/null)
cat >"$work/$name/.cargo/config.toml" <<END
[source.crates-io]
replace-with = "vendored-sources"

[source.vendored-sources]
directory = "vendor"
END
tar "${same_bytes[@]}" -C "$work" -c "$name" | xz -T2 -6 >"$out/$name-source.tar.xz.tmp"
mv "$out/$name-source.tar.xz.tmp" "$out/$name-source.tar.xz"
echo "$out/$name-source.tar.xz"
