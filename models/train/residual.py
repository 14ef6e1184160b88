"""What stabilises the residual branches of a deep ViT: LayerScale and the methods that it is compared with.

    layerscale   x + diag(gamma) F(LayerNorm(x))       Touvron et al. 2021, gamma = 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 deeper
    skipinit     x + alpha F(LayerNorm(x))             De and Smith 2020, alpha = 0
    rezero       x + alpha F(x)                        Bachlechner et al. 2020, alpha = 0, no normalization
    fixup        x + scale F(x) + biases               Zhang et al. 2019, scalar biases around each matrix, no normalization
    tfixup       x + F(x)                              Huang et al. 2020, scaled at initialization, no normalization
    none         x + F(LayerNorm(x))

docs/related-methods.md says how the parameters are named in a checkpoint. `apply` changes timm's VisionTransformer in
place.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

NAMES = ["layerscale", "rezero", "skipinit", "fixup", "tfixup", "none"]
WITHOUT_NORM = ["rezero", "fixup", "tfixup"]


def start(name: str, depth: int, given: float | None) -> float | None:
    """The start value of the branch's factors."""
    if given is not None:
        return given
    return {"layerscale": 0.1 if depth <= 18 else 1e-5 if depth <= 24 else 1e-6, "rezero": 0.0, "skipinit": 0.0, "fixup": 1.0}.get(name)


def model_args(name: str, init: float | None) -> dict:
    """Arguments of timm's constructor beside the usual ones."""
    args: dict = {"init_values": init} if name == "layerscale" else {}
    if name in WITHOUT_NORM:
        args["final_norm"] = False
    if name == "fixup":  # the scalars are all the biases that there are
        args |= {"qkv_bias": False, "proj_bias": False}
    return args


class Scalar(nn.Module):
    """One learnable factor: ReZero and SkipInit."""

    def __init__(self, init: float):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([init]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha


class Fixup(nn.Module):
    """Scalars around the two matrices of a branch, named as in the authors' code: a bias before and after the first, a
    bias before the second, a factor and a bias after it."""

    def __init__(self, first: nn.Linear, second: nn.Linear, scale: float):
        super().__init__()
        for name, value in {"bias1a": 0.0, "bias1b": 0.0, "bias2a": 0.0, "scale": scale, "bias2b": 0.0}.items():
            self.register_parameter(name, nn.Parameter(torch.tensor([value])))
        first.register_forward_pre_hook(lambda _, x: (x[0] + self.bias1a,))
        first.register_forward_hook(lambda _, x, y: y + self.bias1b)
        second.register_forward_pre_hook(lambda _, x: (x[0] + self.bias2a,))
        second.register_forward_hook(lambda _, x, y: y * self.scale + self.bias2b)


def apply(model: nn.Module, name: str, init: float | None) -> None:
    """Gives every block of a fresh timm VisionTransformer what `name` stands for."""
    depth = len(model.blocks)
    for block in model.blocks:
        matrices = [block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2]
        if name in ("rezero", "skipinit"):
            block.ls1, block.ls2 = Scalar(init), Scalar(init)
        if name in WITHOUT_NORM:
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
            for matrix in matrices:  # timm's small weights count on the norm
                nn.init.xavier_uniform_(matrix.weight)
        if name == "fixup":
            block.fixup1, block.fixup2 = Fixup(*matrices[:2], init), Fixup(*matrices[2:], init)
            with torch.no_grad():  # L^(-1 / (2m - 2)) with L = 2 depth branches of m = 2 matrices, the last one zero
                for first, second in (matrices[:2], matrices[2:]):
                    first.weight *= (2 * depth) ** -0.5
                    second.weight.zero_()
        if name == "tfixup":
            with torch.no_grad():  # 0.67 N^(-1/4) on v, the projection and the MLP
                value = block.attn.qkv.weight[2 * block.attn.qkv.in_features :]
                for weight in [value] + [matrix.weight for matrix in matrices[1:]]:
                    weight *= 0.67 * depth**-0.25
    if name == "fixup":
        nn.init.zeros_(model.head.weight)


def factors(state: dict[str, Tensor]) -> Iterator[tuple[int, int, Tensor]]:
    """The factors of every branch in a state dict: block, branch (1: attention, 2: MLP), values."""
    for name, value in state.items():
        for branch in (1, 2):
            if name.endswith((f".ls{branch}.gamma", f".ls{branch}.alpha", f".fixup{branch}.scale")):
                yield int(name.split(".")[1]), branch, value.float()
