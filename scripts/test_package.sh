#!/usr/bin/env bash
# The packages as a registry would get them: each builds from its own files and from the other packages alone.
#
# Wants: nothing but cargo. Takes three to five minutes on two cores: every package is compiled once more.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

# A registry takes no package of more than 10 MB.
limit=10000000
target=$PWD/target/packaged
# Cargo believes that a published version never changes: what it unpacked and compiled last time would be used again.
rm -rf "$target" "${CARGO_HOME:-$HOME/.cargo}"/registry/src/-*/vitlet-*

say "Packages: built from their own files"
# Uncommitted work may be tested, too.
cargo package --workspace --quiet --allow-dirty --target-dir "$target"

say "Packages: their contents"
check_package() {
    local package=$1 name files file size
    name=$(basename "$package" .crate)
    size=$(stat -c %s "$package")
    files=$(tar tzf "$package" | sed "s|^$name/||")
    for file in Cargo.toml README.md LICENSE-MIT LICENSE-APACHE; do
        grep -qx "$file" <<<"$files" || die "$name: has no $file"
    done
    # Unit tests may be below src/.
    ! grep -E '^(tests|benches)/|(^|/)fixtures/' <<<"$files" || die "$name: files for tests only are in it"
    ((size <= limit)) || die "$name: $size bytes, more than $limit"
    echo "$name: $(wc -l <<<"$files") files, $size bytes"
}
for package in "$target"/package/*.crate; do check_package "$package"; done

say "Packages: the engine's examples"
# Outside this workspace, as its users have it.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar xzf "$target"/package/vitlet-[0-9]*.crate -C "$work"
cargo test --quiet --doc --manifest-path "$work"/vitlet-*/Cargo.toml --target-dir "$target"
