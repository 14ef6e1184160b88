"""Trains one small ViT with LayerScale on the scenes of scenes.py, for depth in metres and for classes at once.

    train_scenes.py OUT --minutes M [--resume]

One backbone (transformers' Dinov2 with LayerScale) has two heads: the DPT head of Depth Anything, and DINOv2's linear
head (batch norm and a 1x1 convolution of the last layer's patch tokens). Writes, every few minutes and at the end,

    OUT/depth             DepthAnythingForDepthEstimation, metric, by save_pretrained, with preprocessor_config.json
    OUT/segment           the backbone alone as Dinov2Model
    OUT/segment_head.pth  its linear head, as DINOv2's released heads are stored
    OUT/training.pt       what --resume needs: the weights in f32, the optimizers

The DPT head costs three times the backbone, and a fresh ViT learns where edges and horizons are long before it can use
that head. A third, linear head therefore reads 7 x 7 depths and classes from each patch token from the start, and the
DPT head sees a quarter of each batch until 40 % of the time is spent. The linear head over sub-patches is dropped.
Products are rounded to bf16 (1.6 times faster on a Zen 4 core) until a tenth of the time is left.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, Dinov2Model

from scenes import CLASSES, FAR, PALETTE, SIDE, Scenes, uniform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATCH, DIM, LAYERS, HEADS = 14, 96, 8, 3
CELLS = 7
"""Sub-patches of a patch, each way, that the linear head of training reads."""


def normalize(rgb: Tensor) -> Tensor:
    """RGB [n, 3, h, w] in 0..1 as the network takes it."""
    return (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class LinearHead(nn.Module):
    """DINOv2's BNHead: names and arithmetic of dinov2/eval/segmentation/models/decode_heads/linear_head.py."""

    def __init__(self, dim: int, classes: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(dim)
        self.conv_seg = nn.Conv2d(dim, classes, 1)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Logits [n, classes, height, width] of patches from their tokens [n, height * width, dim]."""
        return self.conv_seg(self.bn(tokens.transpose(1, 2).unflatten(2, (height, width))))


class Network(nn.Module):
    """The depth network, the linear head for classes, and the sub-patch head that only training uses."""

    def __init__(self):
        super().__init__()
        self.depth = DepthAnythingForDepthEstimation(depth_config())
        self.classes = LinearHead(DIM, len(CLASSES))
        self.cells = nn.Linear(DIM, CELLS * CELLS * (1 + len(CLASSES)))
        initialize(self.depth)
        self.depth.backbone.set_attn_implementation("eager")  # PyTorch's flash attention is slow in bf16 on a CPU

    def taps(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Normalized tokens [n, 1 + patches, dim] of the four layers that the DPT head reads."""
        return self.depth.backbone.forward_with_filtered_kwargs(normalize(rgb)).feature_maps

    def depth_of(self, taps: tuple[Tensor, ...], grid: int) -> Tensor:
        return self.depth.head(self.depth.neck(list(taps), grid, grid), grid, grid)

    def cell_maps(self, tokens: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """Logarithms of depth [n, h, w] and class logits [n, classes, h, w], 7 x 7 for each patch."""
        maps = self.cells(tokens).transpose(1, 2).unflatten(2, (grid, grid))
        maps = F.pixel_shuffle(maps, CELLS)
        return maps[:, 0], maps[:, 1:]


def depth_config() -> DepthAnythingConfig:
    backbone = Dinov2Config(
        image_size=SIDE, patch_size=PATCH, hidden_size=DIM, num_attention_heads=HEADS, num_hidden_layers=LAYERS,
        mlp_ratio=4, layerscale_value=0.3, out_indices=[2, 4, 6, 8], apply_layernorm=True, reshape_hidden_states=False,
    )
    return DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=DIM, neck_hidden_sizes=[24, 32, 48, 96], fusion_hidden_size=32,
        head_hidden_size=16, depth_estimation_type="metric", max_depth=int(FAR),
    )


def initialize(model: DepthAnythingForDepthEstimation) -> None:
    """A start from which a narrow network learns at once: transformers' own is made for loading checkpoints."""
    for name, m in model.named_modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and "embeddings" not in name:
            inputs = m.in_channels * (m.kernel_size[0] * m.kernel_size[1] if isinstance(m, nn.Conv2d) else 1)
            nn.init.normal_(m.weight, std=math.sqrt((2 if m.kernel_size[0] == 3 else 1) / inputs))
    with torch.no_grad():
        embeddings = model.backbone.embeddings
        embeddings.patch_embeddings.projection.weight.copy_(wave_filters())
        embeddings.position_embeddings[0, 1:].copy_(sine_positions(SIDE // PATCH))
        model.head.conv3.weight.mul_(0.3)
        model.head.conv3.bias.fill_(-1.4)  # sigmoid(-1.4) * 20 m: about the median depth


def wave_filters() -> Tensor:
    """Patch filters [dim, 3, 14, 14]: cosines over brightness and two colour differences, finer ones stronger."""
    x = (torch.arange(PATCH) + 0.5) / PATCH * math.pi
    waves = torch.stack([torch.cos(k * x) for k in range(PATCH)])
    order = sorted(((u, v) for u in range(PATCH) for v in range(PATCH)), key=lambda uv: uv[0] + uv[1])
    colors = torch.tensor([[1.0, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])
    plan = [(uv, colors[0]) for uv in order[:66]] + [(uv, c) for uv in order[:15] for c in colors[1:]]
    filters = [c.view(3, 1, 1) / c.norm() * waves[u][:, None] * waves[v] * (1 + u + v) for (u, v), c in plan[:DIM]]
    return torch.stack(filters) / (3 * PATCH)


def sine_positions(grid: int) -> Tensor:
    """Positions [grid * grid, dim] as sines of row and column."""
    steps = torch.arange(grid)[:, None] * (math.pi / grid) * 2 ** torch.linspace(-1, 2, DIM // 4)
    waves = torch.cat([torch.sin(steps), torch.cos(steps)], 1)
    rows, columns = waves[:, None].expand(-1, grid, -1), waves[None].expand(grid, -1, -1)
    return 0.5 * torch.cat([rows, columns], -1).flatten(0, 1)


def log_error(prediction: Tensor, depth: Tensor) -> Tensor:
    """Error of the logarithm of depth and of its gradient; where nothing is seen it counts a quarter."""
    e = (prediction - torch.log(depth)) * torch.where(depth < FAR, 1.0, 0.25)
    gx, gy = e[:, :, 1:] - e[:, :, :-1], e[:, 1:] - e[:, :-1]
    return e.abs().mean() + 0.3 * (gx.abs().mean() + gy.abs().mean()) + 0.2 * (e * e).mean()


def losses(net: Network, rgb: Tensor, depth: Tensor, classes: Tensor, dense: int) -> dict[str, Tensor]:
    """The losses of a batch, whose first `dense` pictures go through the DPT head."""
    grid, half = rgb.shape[-1] // PATCH, rgb.shape[-1] // 2
    taps = net.taps(rgb)
    last = taps[-1][:, 1:]
    cell_depth, cell_classes = net.cell_maps(last, grid)
    small = F.interpolate(net.classes(last, grid, grid), size=(half, half), mode="bilinear", align_corners=False)
    truth = classes[:, 1::2, 1::2]
    predicted = net.depth_of(tuple(t[:dense] for t in taps), grid).float()
    return {
        "depth": log_error(torch.log(predicted.clamp_min(0.05)), depth[:dense]),
        "classes": F.cross_entropy(small.float(), truth),
        "cell depth": 0.5 * log_error(cell_depth.float(), depth[:, 1::2, 1::2]),
        "cell classes": 0.5 * F.cross_entropy(cell_classes.float(), truth),
    }


class Pool:
    """Rendered scenes that are drawn again, mirrored and recoloured: rendering costs as much as training."""

    def __init__(self, batch: int, reuse: int, keep: int):
        self.batch, self.reuse, self.keep, self.chunks = batch, reuse, keep, []

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, depth and classes of one step; one picture in `reuse` is new on average."""
        g = torch.Generator().manual_seed(step)
        if step % self.reuse == 0 or not self.chunks:
            rgb, depth, classes, _ = Scenes(self.batch, step).render()
            new = (rgb.mul(255).round().byte(), depth.half(), classes.byte())
            self.chunks = [new, *self.chunks[: self.keep - 1]]
        fresh = 1 if step % self.reuse == 0 else 0
        picks = [(0, i) for i in range(self.batch // 2)] if fresh else []
        while len(picks) < self.batch:
            picks.append(tuple(torch.randint(m, (1,), generator=g).item() for m in (len(self.chunks), self.batch)))
        rgb, depth, classes = (torch.stack([self.chunks[c][k][i] for c, i in picks]) for k in range(3))
        return self.changed(rgb, depth, classes, g)

    def changed(self, rgb: Tensor, depth: Tensor, classes: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Mirrors, exchanges colours, tints."""
        n = len(rgb)
        mirror = torch.rand(n, 1, 1, generator=g) < 0.5
        order = torch.rand(n, 3, generator=g).argsort(1)
        rgb = rgb.float().div(255).gather(1, order[:, :, None, None].expand_as(rgb))
        gain, shift = uniform(g, 3 * n, 0.75, 1.3).view(n, 3, 1, 1), uniform(g, 3 * n, -0.08, 0.08).view(n, 3, 1, 1)
        rgb = (rgb * gain + shift).clamp(0, 1)
        rgb = torch.where(mirror[:, None], rgb.flip(-1), rgb)
        flip = lambda v: torch.where(mirror, v.flip(-1), v)
        return rgb, flip(depth.float()), flip(classes.long())


def save(net: Network, out: Path) -> None:
    """Writes both networks, weights in f16, as the libraries that made them would."""
    depth = copy.deepcopy(net.depth).half()
    depth.save_pretrained(out / "depth")
    segment = Dinov2Model(net.depth.config.backbone_config).half()
    segment.load_state_dict(depth.backbone.state_dict())
    segment.save_pretrained(out / "segment")
    shared = {
        "do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255,
        "image_mean": list(MEAN), "image_std": list(STD), "size": {"height": SIDE, "width": SIDE}, "resample": 3,
    }
    dpt = {"image_processor_type": "DPTImageProcessor", "keep_aspect_ratio": True, "ensure_multiple_of": PATCH}
    bit = {"image_processor_type": "BitImageProcessor", "do_center_crop": False, "do_convert_rgb": True}
    for folder, own in (("depth", dpt | {"do_pad": False}), ("segment", bit)):
        (out / folder / "preprocessor_config.json").write_text(json.dumps(shared | own, indent=1) + "\n")
    head = {f"decode_head.{k}": v.clone() for k, v in net.classes.state_dict().items()}
    torch.save({"meta": {"CLASSES": CLASSES, "PALETTE": PALETTE}, "state_dict": head}, out / "segment_head.pth")


def optimizers(net: Network, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the encoder's matrices (here worth 2.5 times the pictures), AdamW for the rest."""
    matrices = [p for name, p in net.named_parameters() if "encoder.layer" in name and p.dim() == 2]
    known = {id(p) for p in matrices}
    rest = [p for p in net.parameters() if id(p) not in known]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


class Training:
    """The state of a training run; `run` goes on until its time is spent."""

    def __init__(self, out: Path, minutes: float, batch: int = 16, peak: float = 2e-3):
        torch.manual_seed(1)
        self.out, self.seconds, self.batch, self.peak = out, 60 * minutes, batch, peak
        self.net = Network().to(memory_format=torch.channels_last)
        self.optimizers = optimizers(self.net, peak)
        self.step, self.spent, self.means = 0, 0.0, {}
        self.pool = Pool(batch, reuse=6, keep=300)

    def resume(self) -> None:
        s = torch.load(self.out / "training.pt", weights_only=True)
        self.net.load_state_dict(s["net"])
        for optimizer, state in zip(self.optimizers, s["optimizers"]):
            optimizer.load_state_dict(state)
        self.step, self.spent = s["step"], s["spent"]

    def store(self) -> None:
        state = {"net": self.net.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}
        torch.save(state | {"step": self.step, "spent": self.spent}, self.out / "training.pt")
        save(self.net, self.out)

    def one(self, share: float) -> None:
        """One step when `share` of the time is spent."""
        rate = self.peak * min(1, (self.step + 1) / 150) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in (g for o in self.optimizers for g in o.param_groups):
            group["lr"] = rate
        dense = self.batch // 4 if share < 0.4 else self.batch
        batch = self.pool.draw(self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=share < 0.9):
            parts = losses(self.net, *batch, dense)
        self.net.zero_grad()
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = 0.98 if self.step > 50 else 0.8
        for k, v in parts.items():
            self.means[k] = keep * self.means.get(k, v.item()) + (1 - keep) * v.item()

    def run(self) -> None:
        begin, logged, stored = time.time() - self.spent, time.time(), time.time()
        while self.spent < self.seconds:
            self.one(self.spent / self.seconds)
            now = time.time()
            self.spent = now - begin
            if now - logged > 30:
                logged = now
                means = " ".join(f"{k} {v:.4f}" for k, v in self.means.items())
                rate = self.step * self.batch / self.spent
                print(f"step {self.step} {self.spent / 60:.1f} min {rate:.0f} pictures/s {means}", flush=True)
            if now - stored > 180:
                stored = now
                self.store()
        self.store()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--minutes", type=float, default=90)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    a.out.mkdir(parents=True, exist_ok=True)
    training = Training(a.out, a.minutes)
    if a.resume:
        training.resume()
    training.run()


if __name__ == "__main__":
    main()
