#!/usr/bin/env bash
# Writes the program's manual pages and shell completions, generated from its command line (cli/src/manual.rs):
#
#     ./scripts/manual.sh DIR        DIR becomes what /usr/share is
set -euo pipefail
[ "$#" = 1 ] || { echo "usage: manual.sh DIR" >&2; exit 2; }
mkdir -p "$1"
share=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
# As scripts/test.sh builds it, so that nothing is built twice.
VITLET_MANUAL=$share cargo test --quiet --workspace --profile checked --bin vitlet manual >/dev/null
[ -s "$share/man/man1/vitlet.1" ] || { echo "error: $share: no manual pages were written" >&2; exit 1; }
