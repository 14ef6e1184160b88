"""Trains a small ViT on CIFAR-10 on CPU cores; checkpoints every epoch and resumes by itself.

    train_cifar10.py --data DIR --out DIR [--residual layerscale] [--epochs 24]
    torchrun --nproc-per-node 2 train_cifar10.py ...          one thread per process; the batch is per process

DIR holds train.npz and test.npz as prepare_cifar10.py writes them. --residual picks what stabilises depth
(residual.py), --init its start value where it has one. The weights that count are an exponential moving average. Writes
OUT/last.pt (to resume), OUT/log.csv (epoch, loss, test accuracy, learning rate, seconds), and at the end OUT/gammas.csv
(how far the branches' factors moved) and OUT/config.json and OUT/model.safetensors (f16), which `vitlet convert` reads.
"""

import argparse
import csv
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import residual
from prepare_cifar10 import CLASSES

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def model_args(a: argparse.Namespace) -> dict:
    return {
        "img_size": 32, "patch_size": a.patch, "embed_dim": a.dim, "depth": a.depth, "num_heads": a.heads, "mlp_ratio": 4, "num_classes": len(CLASSES),
        "global_pool": "avg", "class_token": True, "qkv_bias": True, "act_layer": "gelu", "init_values": None,
    } | residual.model_args(a.residual, a.init)


def build(a: argparse.Namespace) -> VisionTransformer:
    model = VisionTransformer(**model_args(a))
    residual.apply(model, a.residual, a.init)
    return model


def normalize(x: Tensor) -> Tensor:
    """uint8 or f32 [N, 3, H, W] in 0..255."""
    return (x.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def augment(x: Tensor, g: torch.Generator) -> Tensor:
    """Random 4-pixel crop, horizontal flip and, one time in three, an erased 8 x 8 square, on uint8 [N, 3, 32, 32]."""
    n = x.shape[0]
    padded = F.pad(x.float(), (4, 4, 4, 4), mode="reflect")
    dy, dx = torch.randint(0, 9, (2, n), generator=g)
    flip = torch.rand(n, generator=g) < 0.5
    rows = (dy[:, None] + torch.arange(32)[None])[:, None, :, None]
    columns = dx[:, None] + torch.arange(32)[None]
    columns = torch.where(flip[:, None], columns.flip(1), columns)[:, None, None, :]
    out = normalize(padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns])
    ey, ex = torch.randint(0, 25, (2, n), generator=g)
    inside = lambda e: (torch.arange(32)[None] >= e[:, None]) & (torch.arange(32)[None] < e[:, None] + 8)
    hole = inside(ey)[:, :, None] & inside(ex)[:, None, :]
    hole &= (torch.rand(n, generator=g) < 0.35)[:, None, None]
    return out.masked_fill(hole[:, None], 0.0)


def load_split(folder: Path, split: str, subset: int | None = None) -> tuple[Tensor, Tensor]:
    """All pictures, or always the same `subset` of them."""
    data = np.load(folder / f"{split}.npz")
    picked = torch.randperm(len(data["y"]), generator=torch.Generator().manual_seed(3))[:subset] if subset else slice(None)
    return torch.from_numpy(data["x"])[picked].permute(0, 3, 1, 2).contiguous(), torch.from_numpy(data["y"])[picked]


@torch.inference_mode()
def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    hits = sum((model(normalize(x[i : i + 500])).argmax(1) == y[i : i + 500]).sum().item() for i in range(0, len(x), 500))
    return hits / len(x)


def optimizer(model: torch.nn.Module, a: argparse.Namespace) -> torch.optim.Optimizer:
    decay = [p for p in model.parameters() if p.ndim > 1]
    other = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": a.wd}, {"params": other, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.98))


def learning_rate(step: int, steps: int, total: int, peak: float) -> float:
    """Two epochs of linear warm-up, then a cosine down to 1 %."""
    warm = min(1.0, (step + 1) / (2 * steps))
    return peak * warm * (0.5 * (1 + math.cos(math.pi * step / total)) * 0.99 + 0.01)


def export(ema: dict[str, Tensor], a: argparse.Namespace) -> None:
    save_file({name: value.half().contiguous() for name, value in ema.items()}, a.out / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "vit_cifar10", "num_classes": len(CLASSES), "num_features": a.dim, "global_pool": "avg", "label_names": CLASSES,
        "model_args": model_args(a) | {"residual": a.residual},
        "pretrained_cfg": {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "mean": MEAN, "std": STD,
                           "num_classes": len(CLASSES), "license": "MIT OR Apache-2.0"},
    }
    (a.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with open(a.out / "gammas.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["block", "branch", "init", "min", "median", "mean", "max"])  # of the factors' magnitudes
        for block, branch, factors in residual.factors(ema):
            size = factors.abs()
            numbers = [size.min(), size.median(), size.mean(), size.max()]
            writer.writerow([block, branch, a.init] + [f"{n.item():.4g}" for n in numbers])


def train(a: argparse.Namespace, rank: int, world: int) -> None:
    model = build(a)
    opt = optimizer(model, a)
    x, y = load_split(a.data, "train", a.subset)
    x_test, y_test = load_split(a.data, "test")
    steps = min(len(x) // (a.batch * world), a.steps or len(x))
    ema = {name: value.clone() for name, value in model.state_dict().items()}
    start = 0
    if (a.out / "last.pt").exists():
        saved = torch.load(a.out / "last.pt")
        model.load_state_dict(saved["m"])
        opt.load_state_dict(saved["o"])
        ema, start = saved["ema"], saved["epoch"]
    net = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
    step = start * steps
    for epoch in range(start, a.epochs):
        began, loss_sum = time.time(), 0.0
        net.train()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 + epoch))
        g = torch.Generator().manual_seed(5000 + epoch * world + rank)
        for i in range(steps):
            picked = order[(i * world + rank) * a.batch : (i * world + rank + 1) * a.batch]
            lr = learning_rate(step, steps, steps * a.epochs, a.lr)
            for group in opt.param_groups:
                group["lr"] = lr
            with torch.autocast("cpu", torch.bfloat16, enabled=not a.f32):
                loss = F.cross_entropy(net(augment(x[picked], g)), y[picked], label_smoothing=0.1)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
            step, loss_sum = step + 1, loss_sum + loss.item()
            keep = min(0.998, (1 + step) / (10 + step))
            for name, value in model.state_dict().items():
                ema[name].lerp_(value, 1 - keep)
        if rank == 0:
            torch.save({"m": model.state_dict(), "o": opt.state_dict(), "ema": ema, "epoch": epoch + 1}, a.out / "tmp.pt")
            os.replace(a.out / "tmp.pt", a.out / "last.pt")
            tested = float("nan")
            if epoch % 3 == 2 or epoch == a.epochs - 1:
                averaged = build(a)
                averaged.load_state_dict(ema)
                tested = accuracy(averaged, x_test, y_test)
            seconds = time.time() - began
            with open(a.out / "log.csv", "a", newline="") as f:
                csv.writer(f).writerow([epoch + 1, f"{loss_sum / steps:.4f}", f"{tested:.4f}", f"{lr:.6f}", f"{seconds:.0f}"])
            print(f"epoch {epoch + 1} loss {loss_sum / steps:.4f} test {tested:.4f} {seconds:.0f}s", flush=True)
    if rank == 0:
        export(ema, a)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--epochs", type=int, default=24)
    p.add_argument("--steps", type=int, help="steps per epoch, to try the script; default: all pictures once")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--wd", type=float, default=0.05)
    p.add_argument("--dim", type=int, default=96)
    p.add_argument("--depth", type=int, default=12)
    p.add_argument("--heads", type=int, default=3)
    p.add_argument("--f32", action="store_true", help="no bf16: eight times as fast on CPUs without its instructions")
    p.add_argument("--patch", type=int, default=4)
    p.add_argument("--subset", type=int, help="train on that many pictures; default: all")
    p.add_argument("--residual", default="layerscale", choices=residual.NAMES)
    p.add_argument("--init", type=float, help="start value of the branch's factors; default: the papers'")
    a = p.parse_args()
    a.init = residual.start(a.residual, a.depth, a.init)
    a.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(7)
    distributed = "RANK" in os.environ
    if distributed:
        dist.init_process_group("gloo")
    train(a, dist.get_rank() if distributed else 0, dist.get_world_size() if distributed else 1)
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
