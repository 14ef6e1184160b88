"""How dense networks run in int8, and which scheme suits convolutions: errors on held-out scenes.

    int8_dense.py depth FOLDER [--count 200] [--side 126] [--only NAME ...]
    int8_dense.py segment FOLDER HEAD.pth [--count 200]

FOLDER and HEAD.pth are as train_scenes.py writes them. The network runs in PyTorch with weights and activations rounded
as docs/numerics.md says (dequantized at once: sums of integers differ from the engine's by rounding alone): linear
layers and patches by token, attention, and the convolutions of the head by a scheme:

    f32        as they are                                  f16        weights rounded to f16, arithmetic f32
    map        one scale for the whole input map
    band:N     one scale for the input rows that N rows of the output read, borders included
    row        one scale for each row of the input (three sums for a 3x3, one for each row of its kernel)
    patch      one scale for each 3x3 patch
    pixel      one scale for each pixel: 1x1 and transposed convolutions alone
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, DepthAnythingForDepthEstimation

from eval_dense import depth_metrics, evaluate_segment, held_out, segment_parts, segmenter
from scenes import SIDE
from train_scenes import normalize


def rounded_weights(w: Tensor) -> Tensor:
    """w [outputs, ...] as int8 codes, symmetric, one scale for each output, times their scale."""
    scale = w.flatten(1).abs().amax(1).clamp_min(1e-30).div(127).view(-1, *[1] * (w.dim() - 1))
    return (w / scale).round().clamp(-127, 127) * scale


def rounded(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """x as codes of 8 bits, asymmetric, one scale over `dims`, times their scale."""
    low, high = x.amin(dims, keepdim=True).clamp_max(0), x.amax(dims, keepdim=True).clamp_min(0)
    scale = (high - low).div(255).clamp_min(1e-32)
    zero = (-low / scale).round()
    return ((x / scale + zero).round().clamp(0, 255) - zero) * scale


def symmetric(x: Tensor, dim: int) -> Tensor:
    scale = x.abs().amax(dim, keepdim=True).div(127).clamp_min(1e-32)
    return (x / scale).round().clamp(-127, 127) * scale


def int8_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    """Attention of docs/numerics.md on q, k, v [n, heads, tokens, d]."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = symmetric(query, -1) @ symmetric(key, -1).mT * scaling
    p = (255 * torch.exp(scores - scores.amax(-1, keepdim=True))).round()
    out = p @ symmetric(value, -2) / p.sum(-1, keepdim=True)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("int8", int8_attention)


class Int8Linear(nn.Module):
    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight, self.bias = rounded_weights(layer.weight), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(rounded(x, (-1,)), self.weight, self.bias)


class Int8Patches(nn.Module):
    """The patch embedding: a linear layer of each patch's pixels."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.weight, self.bias, self.k = rounded_weights(layer.weight.flatten(1)), layer.bias, layer.kernel_size[0]

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.k, stride=self.k)
        y = F.linear(rounded(patches, (1,)).transpose(1, 2), self.weight, self.bias)
        return y.transpose(1, 2).unflatten(2, (x.shape[2] // self.k, -1))


class Convolution(nn.Module):
    """A 3x3 or 1x1 convolution of the head by `scheme`."""

    def __init__(self, layer: nn.Conv2d, scheme: str):
        super().__init__()
        self.scheme, self.bias, self.stride, self.k = scheme, layer.bias, layer.stride[0], layer.kernel_size[0]
        self.weight = layer.weight.half().float() if scheme == "f16" else rounded_weights(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        p = self.k // 2
        if self.scheme == "f16":
            return F.conv2d(x, self.weight, self.bias, self.stride, p)
        if self.scheme == "patch" and self.k > 1:
            return self.by_patch(x, p)
        if self.scheme.startswith("band:"):
            return self.by_band(x, p, int(self.scheme[5:]))
        dims = {"map": (1, 2, 3), "row": (1, 3), "patch": (1,), "pixel": (1,)}[self.scheme]
        return F.conv2d(rounded(x, dims), self.weight, self.bias, self.stride, p)

    def by_patch(self, x: Tensor, p: int) -> Tensor:
        rows = rounded(F.unfold(x, self.k, padding=p, stride=self.stride), (1,))
        y = self.weight.flatten(1) @ rows
        y = y if self.bias is None else y + self.bias[:, None]
        return y.unflatten(2, ((x.shape[2] - 1) // self.stride + 1, -1))

    def by_band(self, x: Tensor, p: int, n: int) -> Tensor:
        height, bands = (x.shape[2] - 1) // self.stride + 1, []
        for top in range(0, height, n):
            first, end = top * self.stride - p, (min(top + n, height) - 1) * self.stride + p + 1
            rows = rounded(x[:, :, max(first, 0) : min(end, x.shape[2])], (1, 2, 3))
            rows = F.pad(rows, (p, p, max(-first, 0), max(end - x.shape[2], 0)))
            bands.append(F.conv2d(rows, self.weight, self.bias, self.stride))
        return torch.cat(bands, 2)


class Transposed(nn.Module):
    """A transposed convolution with stride = kernel: a linear layer of each pixel, a scale for each output and tap."""

    def __init__(self, layer: nn.ConvTranspose2d, scheme: str):
        super().__init__()
        self.scheme, self.bias, self.stride = scheme, layer.bias, layer.stride
        inputs = layer.weight.shape[0]
        columns = layer.weight.reshape(inputs, -1).T
        columns = columns.half().float() if scheme == "f16" else rounded_weights(columns)
        self.weight = columns.T.reshape(layer.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x if self.scheme == "f16" else self.rounded(x), self.weight, self.bias, self.stride)

    def rounded(self, x: Tensor) -> Tensor:
        if self.scheme.startswith("band:"):
            n = int(self.scheme[5:])
            return torch.cat([rounded(rows, (1, 2, 3)) for rows in x.split(n, 2)], 2)
        return rounded(x, {"map": (1, 2, 3), "row": (1, 3), "patch": (1,), "pixel": (1,)}[self.scheme])


def stage(name: str) -> str:
    """Which part of the network a layer belongs to."""
    parts = {"backbone": "encoder", "reassemble_stage": "reassemble", "neck.convs": "rn", "fusion_stage": "fusion"}
    return next((of for part, of in parts.items() if part in name), name)  # head.conv1 to head.conv3


def replacement(name: str, layer: nn.Module, schemes: dict[str, str]) -> nn.Module | None:
    """The layer in the arithmetic that `schemes` gives for its stage; None: as it is. 1x1 has entries of its own."""
    scheme = schemes.get(stage(name), "f32")
    if scheme == "f32":
        return None
    if isinstance(layer, nn.Linear):
        return Int8Linear(layer)
    if isinstance(layer, nn.ConvTranspose2d):
        return Transposed(layer, schemes.get("1x1", scheme))
    if isinstance(layer, nn.Conv2d) and layer.stride[0] > 2:
        return Int8Patches(layer)
    if isinstance(layer, nn.Conv2d):
        return Convolution(layer, schemes.get("1x1", scheme) if layer.kernel_size[0] == 1 else scheme)
    return None


def quantized(folder: Path, schemes: dict[str, str]) -> Callable[[Tensor], Tensor]:
    """The network with each stage in the arithmetic that `schemes` names."""
    model = DepthAnythingForDepthEstimation.from_pretrained(folder, dtype=torch.float32).eval()
    if schemes.get("encoder", "f32") != "f32":
        model.backbone.set_attn_implementation("int8")
    replace_layers(model, schemes)
    return lambda x: model(pixel_values=x).predicted_depth


def replace_layers(model: nn.Module, schemes: dict[str, str], prefix: str = "") -> None:
    for name, layer in list(model.named_modules()):
        new = replacement(prefix + name, layer, schemes)
        if new is not None:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, new)


def quantized_segment(folder: Path, head_file: Path, int8_head: bool) -> Callable[[Tensor], Tensor]:
    """The segmentation network with its encoder in int8 and its head, batch norm folded, in int8 by pixel or in f32."""
    backbone, head = segment_parts(folder, head_file)
    backbone.set_attn_implementation("int8")
    replace_layers(backbone, INT8, "backbone.")
    factor = head.bn.weight / torch.sqrt(head.bn.running_var + head.bn.eps)
    weight = head.conv_seg.weight.flatten(1)
    layer = nn.Linear(*weight.shape[::-1])
    layer.weight = nn.Parameter(weight * factor)
    layer.bias = nn.Parameter(head.conv_seg.bias + weight @ (head.bn.bias - head.bn.running_mean * factor))
    layer = Int8Linear(layer) if int8_head else layer
    return segmenter(backbone, lambda tokens, h, w: layer(tokens).transpose(1, 2).unflatten(2, (h, w)))


HEAD = ("reassemble", "rn", "fusion", "head.conv1", "head.conv2", "head.conv3")


def head(scheme: str, **other: str) -> dict[str, str]:
    """Every convolution of the head by `scheme`, 1x1 ones by pixel, except `other`."""
    own = {k.replace("_", "."): v for k, v in other.items()}
    return {part: scheme for part in HEAD} | {"1x1": "pixel"} | own


INT8 = {"encoder": "int8"}
LAST = {"head.conv3": "f32"}
STUDIES = {
    "encoder int8, head f32": INT8,
    "encoder f32, head map": head("map", **{"1x1": "map"}),
    "encoder f32, head band:8": head("band:8"),
    "encoder int8, head f16": INT8 | head("f16", **{"1x1": "f16"}),
    "encoder int8, head map": INT8 | head("map", **{"1x1": "map"}),
    "encoder int8, head map, 1x1 by pixel": INT8 | head("map"),
    "encoder int8, head band:16": INT8 | head("band:16"),
    "encoder int8, head band:8": INT8 | head("band:8"),
    "encoder int8, head band:4": INT8 | head("band:4"),
    "encoder int8, head band:1": INT8 | head("band:1"),
    "encoder int8, head row": INT8 | head("row"),
    "encoder int8, head patch": INT8 | head("patch"),
    "encoder int8, head band:8, conv3 f32": INT8 | head("band:8") | LAST,
    "encoder int8, head band:8, conv2 and conv3 f32": INT8 | head("band:8", head_conv2="f32") | LAST,
    "encoder int8, head band:8, conv1 to conv3 f32": INT8 | head("band:8", head_conv1="f32", head_conv2="f32") | LAST,
    "encoder int8, only reassemble band:8": INT8 | {"reassemble": "band:8", "1x1": "pixel"},
    "encoder int8, only rn band:8": INT8 | {"rn": "band:8"},
    "encoder int8, only fusion band:8": INT8 | {"fusion": "band:8", "1x1": "pixel"},
    "encoder int8, only conv1 band:8": INT8 | {"head.conv1": "band:8"},
    "encoder int8, only conv2 band:8": INT8 | {"head.conv2": "band:8"},
    "encoder int8, only conv3 pixel": INT8 | {"head.conv3": "pixel"},
}


def study_depth(folder: Path, count: int, side: int, only: list[str] | None) -> None:
    scenes = list(held_out(count, side))
    run = quantized(folder, {})
    reference = [run(normalize(rgb)) for rgb, _, _ in scenes]
    base = torch.cat([depth_metrics(p, d) for p, (_, d, _) in zip(reference, scenes)]).mean(0)
    print("| arithmetic | AbsRel | against f32, % | delta 1, % | against f32, points | mean change of depth, % |")
    print("|---|---|---|---|---|---|")
    print(f"| f32 | {base[0]:.5f} | | {100 * base[2]:.2f} | | |", flush=True)
    for name, schemes in STUDIES.items():
        if only and not any(o in name for o in only):
            continue
        run = quantized(folder, schemes)
        outputs = [run(normalize(rgb)) for rgb, _, _ in scenes]
        m = torch.cat([depth_metrics(p, d) for p, (_, d, _) in zip(outputs, scenes)]).mean(0)
        change = torch.cat([((p - q).abs() / q).flatten(1).mean(1) for p, q in zip(outputs, reference)]).mean()
        print(
            f"| {name} | {m[0]:.5f} | {100 * (m[0] / base[0] - 1):+.2f} | {100 * m[2]:.2f} | "
            f"{100 * (m[2] - base[2]):+.2f} | {100 * change:.2f} |",
            flush=True,
        )


def study_segment(folder: Path, head_file: Path, count: int) -> None:
    print("| arithmetic | mIoU, % | pixel accuracy, % |")
    print("|---|---|---|")
    networks = {
        "f32": segmenter(*segment_parts(folder, head_file)),
        "encoder int8, head f32": quantized_segment(folder, head_file, False),
        "encoder int8, head int8 by pixel": quantized_segment(folder, head_file, True),
    }
    for name, network in networks.items():
        ious, accuracy = evaluate_segment(network, count)
        print(f"| {name} | {100 * ious.mean():.2f} | {100 * accuracy:.2f} |", flush=True)


@torch.inference_mode()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="task", required=True)
    for task in ("depth", "segment"):
        t = sub.add_parser(task)
        t.add_argument("folder", type=Path)
        t.add_argument("--count", type=int, default=200)
    t.add_argument("head", type=Path)
    sub.choices["depth"].add_argument("--side", type=int, default=SIDE)
    sub.choices["depth"].add_argument("--only", nargs="*")
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.task == "depth":
        study_depth(a.folder, a.count, a.side, a.only)
    else:
        study_segment(a.folder, a.head, a.count)


if __name__ == "__main__":
    main()
