#!/usr/bin/env bash
# LayerScale on real pictures, if they exist (../shared beside the repository): int8 `fold` keeps top-1 within 0.6
# points of f32, and f16 `fold` within 0.2; one scale per tensor does not. The comparison of the built-in checkpoint
# always runs.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet
program=target/release/vitlet

"$program" bench layerscale --rounds 5 --threads 1

shared=../shared
if ! [ -d "$shared/checkpoints/deit_tiny_layerscale" ]; then
    # No part of a clone, so no error under CI, as skip would make it; scripts/test.sh lists it at its end.
    echo "skipped: LayerScale on real pictures: $shared/checkpoints/deit_tiny_layerscale is not there" | tee -a "${SKIPPED:-/dev/null}"
    exit 0
fi
report=target/layerscale.json
"$program" bench layerscale "$shared/checkpoints/deit_tiny_layerscale" --images "$shared/imagenet-sample/labels.csv" --rounds 5 --json >"$report"
python3 - "$report" <<'PY'
import json, sys

report = json.load(open(sys.argv[1]))
top1 = {(row["precision"], row["weight_scale"], row["mode"]): 100 * row["accuracy"]["top1"] for row in report["rows"]}
f32 = 100 * report["f32_top1"]
print(report["conclusion"])
assert abs(top1["int8", "per-channel", "fold"] - f32) <= 0.6, top1
assert abs(top1["f16", None, "fold"] - f32) <= 0.2, top1
assert top1["int8", "per-tensor", "keep"] < f32 - 10, top1
PY
