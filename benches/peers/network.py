"""The network that every contestant runs: a timm model, as a checkpoint for `vitlet convert` and as ONNX for the
others."""

import csv
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf

SEED = 1


def load(name: str, checkpoint: Path | None) -> torch.nn.Module:
    """The timm model with the weights of a checkpoint directory, else with random ones."""
    if checkpoint:
        return timm.create_model(f"local-dir:{checkpoint}", pretrained=True, exportable=True).eval()
    torch.manual_seed(SEED)
    model = timm.create_model(name, pretrained=False, exportable=True).eval()
    randomize(model)
    return model


@torch.no_grad()
def randomize(model: torch.nn.Module) -> None:
    """Fresh networks have LayerScale 1e-6 and weights of 0.02, with which the blocks would not matter for the
    logits."""
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.copy_(torch.exp(torch.empty_like(parameter).uniform_(np.log(0.05), np.log(1.0))))
        elif parameter.ndim >= 2 and name.endswith("weight"):
            parameter.normal_(0.0, parameter[0].numel() ** -0.5)


def save_checkpoint(model: torch.nn.Module, folder: Path) -> None:
    """What `vitlet convert` reads: config.json and model.safetensors."""
    save_for_hf(model, folder, safe_serialization=True)


def save_onnx(model: torch.nn.Module, path: Path) -> None:
    """Batch 1, fixed shape: the form that runtimes optimise best."""
    x = torch.zeros(1, *input_size(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter needs no further package, and says that it is the old one
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=18, input_names=["x"], output_names=["logits"])


def input_size(model: torch.nn.Module) -> tuple[int, int, int]:
    return model.pretrained_cfg["input_size"]


def noise(model: torch.nn.Module, count: int) -> np.ndarray:
    """Inputs to compare logits on where there are no pictures, [count, 3, height, width]."""
    return np.random.default_rng(SEED).normal(0.0, 1.0, (count, *input_size(model))).astype(np.float32)


def pictures(model: torch.nn.Module, table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [count, 3, height, width] and label indices from lines `path,label_index`, paths relative to the table."""
    transform = create_transform(**resolve_data_config({}, model=model))
    with open(table, newline="") as lines:
        rows = [row for row in csv.reader(lines) if row[1].strip().isdigit()]
    x = [transform(Image.open(table.parent / path).convert("RGB")).numpy() for path, _ in rows]
    return np.stack(x), np.array([int(label) for _, label in rows])


@torch.no_grad()
def logits(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    return np.concatenate([model(torch.from_numpy(x[i : i + 16])).numpy() for i in range(0, len(x), 16)])
