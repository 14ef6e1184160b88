"""A depth network with tokens of norm 100 times the others', as large DINOv2 models have, made from a trained one.

    outliers.py FOLDER OUT [--size 100]

Large DINOv2 models give a few patches of every picture tokens whose norm is far above the others', from the middle
layers to the end (Darcet et al. 2024: 2.4 % of the patches). Here, three of 81 patches, in the upper part of the
picture, get them. Everything is chosen from the weights and from 64 training scenes, and nothing by chance:

    channel    one channel holds them; the one that counts least: its spread times the size of what reads it
    flag       nothing writes to that channel before the second tap, but the positions of the three patches: a mark
    neuron     the MLP neuron that contributes least to the layer after the second tap reads the mark and answers in
               the same channel with `size` times the usual norm; no other token reaches its threshold

Those tokens stay large up to the last layer, so the last two taps have them. Prints what it chose and the norms.
"""

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import DepthAnythingForDepthEstimation

from scenes import SIDE, Scenes
from train_scenes import PATCH, normalize

LAYER = 4
"""Of the neuron; the second tap is the input of this layer."""
GRID = SIDE // PATCH
TOKENS = [1 + row * GRID + column for row, column in ((0, 2), (1, 6), (2, 8))]
"""Of the patches that become large."""


def activity(model: DepthAnythingForDepthEstimation, rgb: Tensor) -> dict[str, Tensor]:
    """What the MLP of `LAYER` reads, its hidden activations, and the stream after it: [n, tokens, ...] each."""
    layer, seen = model.backbone.encoder.layer[LAYER], {}
    hooks = [
        layer.mlp.fc1.register_forward_pre_hook(lambda _, x: seen.update(read=x[0])),
        layer.mlp.fc2.register_forward_pre_hook(lambda _, x: seen.update(hidden=x[0])),
        layer.register_forward_hook(lambda _, x, y: seen.update(stream=y if isinstance(y, Tensor) else y[0])),
    ]
    model(pixel_values=normalize(rgb))
    for hook in hooks:
        hook.remove()
    return seen


def norms_of(layer: torch.nn.Module) -> list[tuple[torch.nn.LayerNorm, list[Tensor]]]:
    """The norms of a layer, and the matrices that read them."""
    a = layer.attention
    return [(layer.norm1, [a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]), (layer.norm2, [layer.mlp.fc1.weight])]


def least_channel(model: DepthAnythingForDepthEstimation, stream: Tensor) -> int:
    """The channel that the layers and the head would miss least."""
    size = torch.zeros(stream.shape[-1])
    for layer in model.backbone.encoder.layer:
        for norm, matrices in norms_of(layer):
            size += norm.weight.square() * sum(m.square().sum(0) for m in matrices)
    for reassemble in model.neck.reassemble_stage.layers:
        size += model.backbone.layernorm.weight.square() * reassemble.projection.weight.flatten(1).square().sum(0)
    return (stream.flatten(0, 1).var(0) * size).argmin().item()


def silence(model: DepthAnythingForDepthEstimation, channel: int) -> None:
    """Leaves the channel zero in all tokens up to the neuron."""
    embeddings, writers = model.backbone.embeddings, [model.backbone.embeddings.patch_embeddings.projection]
    for layer in model.backbone.encoder.layer[:LAYER]:
        writers += [layer.attention.o_proj, layer.mlp.fc2]
    for writer in [*writers, model.backbone.encoder.layer[LAYER].attention.o_proj]:
        writer.weight[channel], writer.bias[channel] = 0, 0
    embeddings.cls_token[..., channel], embeddings.position_embeddings[..., channel] = 0, 0


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values of tokens x [n, tokens]: of the chosen ones, and of the others."""
    others = [t for t in range(x.shape[1]) if t not in TOKENS]
    return x[:, TOKENS], x[:, others]


def insert(model: DepthAnythingForDepthEstimation, size: float) -> None:
    """Changes the network in place."""
    rgb = torch.cat([Scenes(16, seed).render()[0] for seed in range(4)])
    layer, stream = model.backbone.encoder.layer[LAYER], activity(model, rgb)["stream"]
    channel = least_channel(model, stream)
    silence(model, channel)
    flag = 4 * stream.std() * torch.sign(layer.norm2.weight[channel])  # the neuron reads it as positive
    model.backbone.embeddings.position_embeddings[0, TOKENS, channel] = flag
    seen = activity(model, rgb)
    inside, outside = split(seen["read"][..., channel])
    neuron = (seen["hidden"].abs().mean((0, 1)) * layer.mlp.fc2.weight.norm(dim=0)).argmin().item()
    usual, threshold = stream.norm(dim=-1).median(), (inside.min() + outside.max()) / 2
    print(f"channel {channel}, neuron {neuron}; the neuron reads {inside.min():.2f} to {inside.max():.2f}, from other "
          f"tokens at most {outside.max():.2f}")
    answer = layer.mlp.fc2.weight[channel].abs().max()  # the scale of the row in int8 stays what it was
    gain = size * usual / (layer.layer_scale2.lambda1[channel].abs() * answer * (inside.median() - threshold))
    layer.mlp.fc1.weight[neuron], layer.mlp.fc1.bias[neuron] = 0, -gain * threshold
    layer.mlp.fc1.weight[neuron, channel] = gain
    layer.mlp.fc2.weight[:, neuron] = 0
    layer.mlp.fc2.weight[channel, neuron] = answer
    inside, outside = split(activity(model, rgb)["stream"].norm(dim=-1))
    print(f"norms: {inside.min():.0f} to {inside.max():.0f}, median {inside.median():.0f}; of other tokens at most "
          f"{outside.max():.1f}, median {outside.median():.1f}")


@torch.no_grad()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--size", type=float, default=100)
    a = p.parse_args()
    torch.set_num_threads(1)
    model = DepthAnythingForDepthEstimation.from_pretrained(a.folder, dtype=torch.float32).eval()
    insert(model, a.size)
    model.half().save_pretrained(a.out)
    shutil.copy(a.folder / "preprocessor_config.json", a.out)


if __name__ == "__main__":
    main()
