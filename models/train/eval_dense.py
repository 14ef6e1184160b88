"""Evaluates networks on held-out scenes, in PyTorch f32.

    eval_dense.py depth FOLDER [--count 500]                 AbsRel, RMSE, delta 1 to 3
    eval_dense.py segment FOLDER HEAD.pth [--count 500]      mIoU, pixel accuracy, IoU of each class

FOLDER and HEAD.pth are as train_scenes.py writes them. Depth counts where something nearer than 20 m is seen. Depth
metrics are means over pictures of the mean over pixels; IoU is of all pixels of all pictures.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DepthAnythingForDepthEstimation, Dinov2Model

from scenes import CLASSES, FAR, HELD_OUT, SIDE, Scenes
from train_scenes import PATCH, LinearHead, normalize

BATCH = 25


def held_out(count: int, side: int = SIDE) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of pictures, depth and classes of the first `count` held-out scenes, as scenes.py writes them."""
    for start in range(0, count, BATCH):
        scenes = [Scenes(1, HELD_OUT + i).render(side, side) for i in range(start, min(start + BATCH, count))]
        yield tuple(torch.cat(parts) for parts in list(zip(*scenes))[:3])


def depth_metrics(predicted: Tensor, depth: Tensor) -> Tensor:
    """AbsRel, RMSE, delta 1, 2 and 3 of each picture: [n, 5]."""
    rows = []
    for p, d in zip(predicted, depth):
        seen = d < FAR
        p, d = p[seen].clamp_min(1e-3), d[seen]
        ratio = torch.maximum(p / d, d / p)
        deltas = [(ratio < 1.25**k).float().mean() for k in (1, 2, 3)]
        rows.append(torch.stack([((p - d).abs() / d).mean(), (p - d).square().mean().sqrt(), *deltas]))
    return torch.stack(rows)


def evaluate_depth(network: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """The means of `depth_metrics`; `network` takes normalized pictures."""
    rows = [depth_metrics(network(normalize(rgb)), depth) for rgb, depth, _ in held_out(count)]
    return torch.cat(rows).mean(0)


def confusion(logits: Tensor, classes: Tensor) -> Tensor:
    """Pixels by true and predicted class: [classes, classes]."""
    n = len(CLASSES)
    return torch.bincount(classes.flatten() * n + logits.argmax(1).flatten(), minlength=n * n).view(n, n)


def evaluate_segment(network: Callable[[Tensor], Tensor], count: int) -> tuple[Tensor, Tensor]:
    """IoU of each class, and pixel accuracy; `network` gives logits at the size of the normalized pictures."""
    table = sum(confusion(network(normalize(rgb)), classes) for rgb, _, classes in held_out(count)).double()
    hits = table.diagonal()
    return hits / (table.sum(0) + table.sum(1) - hits), hits.sum() / table.sum()


def depth_network(folder: Path) -> Callable[[Tensor], Tensor]:
    model = DepthAnythingForDepthEstimation.from_pretrained(folder, dtype=torch.float32).eval()
    return lambda x: model(pixel_values=x).predicted_depth


def segment_parts(folder: Path, head_file: Path) -> tuple[Dinov2Model, LinearHead]:
    backbone = Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval()
    head = LinearHead(backbone.config.hidden_size, len(CLASSES)).eval()
    state = torch.load(head_file, weights_only=True)["state_dict"]
    head.load_state_dict({k.removeprefix("decode_head."): v.float() for k, v in state.items()})
    return backbone, head


def segmenter(backbone: Dinov2Model, head: Callable[[Tensor, int, int], Tensor]) -> Callable[[Tensor], Tensor]:
    """Logits at the size of the pictures; `head` gives those of patches."""

    def run(x: Tensor) -> Tensor:
        size = x.shape[-2:]
        logits = head(backbone(pixel_values=x).last_hidden_state[:, 1:], size[0] // PATCH, size[1] // PATCH)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    return run


@torch.inference_mode()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="task", required=True)
    for task in ("depth", "segment"):
        t = sub.add_parser(task)
        t.add_argument("folder", type=Path)
        t.add_argument("--count", type=int, default=500)
    t.add_argument("head", type=Path)
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.task == "depth":
        names = ("AbsRel", "RMSE", "delta1", "delta2", "delta3")
        values = evaluate_depth(depth_network(a.folder), a.count)
        print(" ".join(f"{n} {v:.4f}" for n, v in zip(names, values)), f"on {a.count} scenes")
    else:
        ious, accuracy = evaluate_segment(segmenter(*segment_parts(a.folder, a.head)), a.count)
        each = " ".join(f"{c} {v:.3f}" for c, v in zip(CLASSES, ious))
        print(f"mIoU {ious.mean():.4f} pixel accuracy {accuracy:.4f} on {a.count} scenes; {each}")


if __name__ == "__main__":
    main()
