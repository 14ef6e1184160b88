#!/usr/bin/env bash
# What cross.sh does with a board, without one and without building:
#
#     ./scripts/test_cross.sh
#
# Scripts stand for ssh, scp and cargo; a folder is the board's home.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BOARD=$work/home MACHINE=aarch64 WORK=$work
mkdir -p "$work"/{bin,board,home}
script() { printf '#!/bin/sh\n%s\n' "$2" >"$work/$1" && chmod +x "$work/$1"; }
script bin/ssh '[ "$1" != nobody@nowhere ] || exit 255; shift; cd "$BOARD" && PATH=$WORK/board:$PATH exec sh -c "$*"'
script bin/scp '[ "$1" != -q ] || shift; exec cp "$1" "$BOARD/${2#*:}"'
script bin/cargo 'echo built >>"$WORK/built"; exit 1'
script board/uname 'echo "$MACHINE"'
export PATH=$work/bin:$PATH

say "cross.sh asks the board before it builds"
refused() {
    local expected=$1 said
    shift
    said=$("$@" 2>&1) && die "accepted: $*"
    grep -qF "$expected" <<<"$said" || die "$said"
    [ ! -e "$work/built" ] || die "built first"
    grep -F "$expected" <<<"$said"
}
refused "ssh does not get there" ./scripts/cross.sh raspberry-pi --to nobody@nowhere
MACHINE=armv7l refused "its kernel is armv7l" ./scripts/cross.sh raspberry-pi --to pi@board
# The build fails here, as cargo is none.
said=$(./scripts/cross.sh --to pi@board 2>&1 || true)
grep -F "the board: pi@board, aarch64" <<<"$said" || die "$said"
[ -e "$work/built" ] || die "a good board is not built for"

say "cross.sh replaces a program that runs"
. scripts/board_copy.sh
cp "$(command -v sleep)" "$BOARD/vitlet/vitlet"
"$BOARD/vitlet/vitlet" 60 &
running=$!
printf '#!/bin/sh\necho new\n' >"$work/vitlet"
chmod +x "$work/vitlet"
echo weights >"$work/my model.gguf"
copy_to_board pi@board "$work/vitlet" "$work/my model.gguf"
kill -0 "$running" || die "the program that ran has ended"
kill "$running"
[ "$("$BOARD/vitlet/vitlet")" = new ] && [ "$(cat "$BOARD/vitlet/my model.gguf")" = weights ] || die "not copied"
[ -z "$(find "$BOARD" -name '*.new')" ] || die "left behind: $(find "$BOARD" -name '*.new')"
echo "cross: all passed"
