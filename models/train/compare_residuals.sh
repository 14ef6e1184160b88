#!/usr/bin/env bash
# The curves of docs/notes/layerscale.md: a deep and narrow ViT (24 layers, 48 wide, 17 tokens) with each kind of
# residual branch, on a fifth of CIFAR-10 for eight epochs. One thread, one network after another; half an hour.
#
#     models/train/compare_residuals.sh DATA OUT
set -euo pipefail
cd "$(dirname "$0")"
for residual in layerscale none rezero fixup skipinit tfixup; do
    python train_cifar10.py --data "$1" --out "$2/$residual" --residual "$residual" --f32 \
        --depth 24 --dim 48 --heads 3 --patch 8 --subset 10240 --epochs 8 --lr 1e-3
done
