"""Small rendered scenes with the exact depth, class and object of every pixel.

    scenes.py show OUT.png              a sheet of held-out scenes, their depth and their classes
    scenes.py write DIR [--count 24] [--depth png|npy]
                                        held-out scenes as files: pictures/N.png, depth/N.png (16 bits, millimetres) or
                                        .npy (f32, metres), where 0 is nothing seen, and classes/N.png (class numbers,
                                        with a palette; their names in classes.txt)

A scene has a textured ground, a back wall or a sky, and up to seven balls, boxes and columns that stand on the ground.
The camera is a robot's: 1.2 to 1.3 m high, looking down by 13 to 17 degrees, rolled by at most one degree, 63 degrees
wide. Only such a camera makes metres knowable from one picture. There is one sun with shadows, fog, and noise of the
sensor. Everything is drawn with torch, in batches, from one integer seed. Depth is along the optical axis, in metres;
from 20 m on a pixel counts as sky.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FAR = 20.0
SIDE = 126
CLASSES = ["ground", "ball", "box", "column", "wall", "sky"]
PALETTE = [[90, 160, 90], [230, 70, 60], [70, 110, 230], [240, 190, 40], [150, 110, 160], [150, 210, 240]]
BALL, BOX, COLUMN, WALL, SKY = 1, 2, 3, 4, 5
KINDS = torch.tensor([BALL, BOX, COLUMN, BALL, BOX, COLUMN, BOX])
"""What the objects of a scene are, by their place in the list. Each may be absent."""
HELD_OUT = 10_000_000
"""Seeds from here on are never drawn by training."""
NEVER, TINY = torch.tensor(1e5), torch.tensor(1e-6)
UP = torch.tensor([0.0, 1, 0])


def uniform(g: torch.Generator, n: int, low: float, high: float) -> Tensor:
    """`n` numbers between `low` and `high`."""
    return low + (high - low) * torch.rand(n, generator=g)


def away_from_zero(v: Tensor) -> Tensor:
    """`v` as a divisor."""
    return torch.where(v.abs() < 1e-6, TINY, v)


def texture(p: Tensor, kind: Tensor, colors: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    """Colour [..., 3] of surface points p [..., 3]: checks, stripes, blobs or plain, of two `colors` [..., 2, 3]."""
    u = p * scale[..., None] + phase[..., None]
    x, y, z = u.unbind(-1)
    checks = torch.floor(u).sum(-1) % 2
    stripes = (torch.sin(3.1 * x + 1.7 * z) > 0).float()
    blobs = 0.5 + 0.5 * torch.sin(2 * x + torch.sin(1.3 * z)) * torch.sin(2 * z + torch.sin(1.7 * y))
    plain = torch.full_like(checks, 0.3)
    w = torch.where(kind == 0, checks, torch.where(kind == 1, stripes, torch.where(kind == 2, blobs, plain)))[..., None]
    return colors[..., 0, :] * w + colors[..., 1, :] * (1 - w)


def turned(v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Vectors v [..., 3] turned about the vertical."""
    return torch.stack([cos * v[..., 0] + sin * v[..., 2], v[..., 1], cos * v[..., 2] - sin * v[..., 0]], -1)


def hit_ball(q: Tensor, d: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Distance along rays q + t d [n, r, 3] to balls about the origin, and the normals there."""
    b, c = (q * d).sum(-1), (q * q).sum(-1) - radius * radius
    disc = b * b - c
    t = torch.where(disc > 0, -b - torch.sqrt(disc.clamp_min(0)), NEVER)
    return t, (q + t[..., None] * d) / radius[..., None]


def hit_box(q: Tensor, d: Tensor, half: Tensor, yaw: Tensor) -> tuple[Tensor, Tensor]:
    """The same for boxes of half sizes `half` [n, 1, 3], turned about the vertical by `yaw`."""
    cos, sin = torch.cos(yaw), torch.sin(yaw)
    q, d = turned(q, cos, sin), turned(d, cos, sin)
    inverse = 1 / away_from_zero(d)
    middle, reach = -q * inverse, (half * inverse).abs()
    near, axis = (middle - reach).max(-1)
    far = (middle + reach).min(-1).values
    normal = torch.nn.functional.one_hot(axis, 3).float() * -torch.sign(d)
    return torch.where((near < far) & (far > 0), near, NEVER), turned(normal, cos, -sin)


def hit_column(q: Tensor, d: Tensor, radius: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """The same for upright cylinders with a lid, `half` high above and below the origin."""
    a = d[..., 0] ** 2 + d[..., 2] ** 2 + 1e-9
    b = (q[..., 0] * d[..., 0] + q[..., 2] * d[..., 2]) / a
    disc = b * b - (q[..., 0] ** 2 + q[..., 2] ** 2 - radius * radius) / a
    t = -b - torch.sqrt(disc.clamp_min(0))
    on_side = (disc > 0) & ((q[..., 1] + t * d[..., 1]).abs() < half) & (t > 1e-3)
    side = torch.where(on_side, t, NEVER)
    t = (half - q[..., 1]) / away_from_zero(d[..., 1])
    on_lid = ((q[..., 0] + t * d[..., 0]) ** 2 + (q[..., 2] + t * d[..., 2]) ** 2 < radius * radius) & (t > 1e-3)
    lid = torch.where(on_lid, t, NEVER)
    t = torch.minimum(side, lid)
    outward = (q + t[..., None] * d) / radius[..., None] * torch.tensor([1.0, 0, 1])
    return t, torch.where((lid < side)[..., None], UP, outward)


class Scenes:
    """`n` scenes of one seed; `render` casts rays from a pinhole camera."""

    def __init__(self, n: int, seed: int, most: int = 7):
        g = torch.Generator().manual_seed(seed)
        self.n, self.m, self.g = n, most, g
        self._draw_objects(g)
        self._draw_camera(g)
        self._draw_looks(g)

    def _draw_objects(self, g: torch.Generator) -> None:
        n, m = self.n, self.m
        self.kind = KINDS[:m].expand(n, m)
        self.alive = torch.rand(n, m, generator=g) < uniform(g, n, 0.25, 1.0)[:, None]
        self.alive[:, 0] |= ~self.alive.any(1)
        z = 1.7 + 5.8 * torch.rand(n, m, generator=g) ** 1.2
        x = (torch.rand(n, m, generator=g) - 0.5) * 1.3 * z
        self.size = 0.25 + 0.4 * torch.rand(n, m, 3, generator=g)
        tall, thin = 0.5 + 0.8 * torch.rand(n, m, generator=g), 0.15 + 0.2 * torch.rand(n, m, generator=g)
        self.size[..., 1] = torch.where(self.kind == COLUMN, tall, self.size[..., 1])
        self.radius = torch.where(self.kind == COLUMN, thin, 0.25 + 0.4 * torch.rand(n, m, generator=g))
        half = torch.where(self.kind == BALL, self.radius, self.size[..., 1])
        self.center = torch.stack([x, half, z], -1)
        self.yaw = 2 * math.pi * torch.rand(n, m, generator=g)
        self.wall = torch.where(torch.rand(n, generator=g) < 0.6, uniform(g, n, 4.5, 13.0), torch.full((n,), 1e3))

    def _draw_camera(self, g: torch.Generator) -> None:
        n = self.n
        self.eye = torch.stack([uniform(g, n, -0.3, 0.3), uniform(g, n, 1.2, 1.3), torch.zeros(n)], -1)
        self.pitch, self.roll = uniform(g, n, 0.23, 0.30), uniform(g, n, -0.02, 0.02)
        self.fov = torch.full((n,), 1.1)

    def _draw_looks(self, g: torch.Generator) -> None:
        n, k = self.n, self.m + 2  # textures: of the objects, the ground, the wall
        sun = torch.stack([uniform(g, n, -0.8, 0.8), uniform(g, n, 0.6, 1.2), uniform(g, n, -0.9, 0.3)], -1)
        self.sun = sun / sun.norm(dim=-1, keepdim=True)
        self.ambient, self.fog = uniform(g, n, 0.25, 0.55), uniform(g, n, 0.0, 0.06)
        self.sky = 0.5 + 0.5 * torch.rand(n, 3, generator=g)
        self.tex = torch.randint(0, 4, (n, k), generator=g)
        self.colors = torch.rand(n, k, 2, 3, generator=g)
        self.scale, self.phase = uniform(g, n * k, 1.0, 6.0).view(n, k), uniform(g, n * k, 0, 6).view(n, k)
        self.noise = uniform(g, n, 0.0, 0.03)

    def _hit_object(self, j: int, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        q, radius, size = o - self.center[:, None, j], self.radius[:, None, j], self.size[:, None, j]
        if KINDS[j] == BALL:
            return hit_ball(q, d, radius)
        if KINDS[j] == BOX:
            return hit_box(q, d, size, self.yaw[:, j, None])
        return hit_column(q, d, radius, size[..., 1])

    def hit(self, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Along rays o + t d [n, r, 3]: t of the nearest surface, which it is (objects, ground, wall), its normal."""
        best = torch.full(o.shape[:2], 1e4)
        who = torch.full(o.shape[:2], -1, dtype=torch.long)
        normal = torch.zeros_like(o)

        def take(t: Tensor, index: int, n: Tensor) -> None:
            nonlocal best, who, normal
            closer = (t > 1e-3) & (t < best)
            best, who = torch.where(closer, t, best), torch.where(closer, index, who)
            normal = torch.where(closer[..., None], n, normal)

        for j in range(self.m):
            t, n = self._hit_object(j, o, d)
            take(torch.where(self.alive[:, j, None], t, NEVER), j, n)
        take(-o[..., 1] / away_from_zero(d[..., 1]), self.m, UP)
        to_wall = (self.wall[:, None] - o[..., 2]) / away_from_zero(d[..., 2])
        take(to_wall, self.m + 1, torch.tensor([0.0, 0, -1]))
        return best, who, normal

    def in_shadow(self, p: Tensor) -> Tensor:
        """Whether an object hides the sun from points p [n, r, 3]."""
        d, hidden = self.sun[:, None].expand_as(p), torch.zeros(p.shape[:2], dtype=torch.bool)
        for j in range(self.m):
            t, _ = self._hit_object(j, p, d)
            hidden |= self.alive[:, j, None] & (t > 1e-3) & (t < 50)
        to_wall = (self.wall[:, None] - p[..., 2]) / away_from_zero(d[..., 2])
        return hidden | ((to_wall > 1e-3) & (to_wall < 50))

    def _rays(self, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Directions [n, h * w, 3] of length one, their length at depth one, and the picture's upward coordinate."""
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        f = (0.5 * width / torch.tan(self.fov / 2))[:, None]
        x, y = (columns.flatten() - width / 2)[None] / f, -(rows.flatten() - height / 2)[None] / f
        cr, sr = torch.cos(self.roll)[:, None], torch.sin(self.roll)[:, None]
        cp, sp = torch.cos(self.pitch)[:, None], torch.sin(self.pitch)[:, None]
        x, y = cr * x - sr * y, sr * x + cr * y
        d = torch.stack([x, cp * y - sp, sp * y + cp], -1)
        length = d.norm(dim=-1)
        return d / length[..., None], length, y

    def _picked(self, v: Tensor, who: Tensor) -> Tensor:
        """The rows of v [n, surfaces, ...] for each pixel."""
        index = who.view(self.n, -1, *[1] * (v.dim() - 2)).expand(self.n, who.shape[1], *v.shape[2:])
        return torch.gather(v, 1, index)

    def _colors(self, p: Tensor, who: Tensor, normal: Tensor) -> Tensor:
        """What the surfaces send out at points p [n, r, 3]."""
        local = p - self._picked(torch.cat([self.center, torch.zeros(self.n, 2, 3)], 1), who)
        color = texture(local, *(self._picked(v, who) for v in (self.tex, self.colors, self.scale, self.phase)))
        facing = (normal * self.sun[:, None]).sum(-1).clamp_min(0) * ~self.in_shadow(p + 2e-3 * normal)
        return color * (self.ambient[:, None] + (1 - self.ambient[:, None]) * facing)[..., None]

    @torch.no_grad()
    def render(self, height: int = SIDE, width: int = SIDE) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """RGB [n, 3, h, w] in 0..1, depth [n, h, w] in metres, class [n, h, w], object [n, h, w] (-1: none)."""
        n = self.n
        d, length, y = self._rays(height, width)
        o = self.eye[:, None].expand_as(d)
        t, who, normal = self.hit(o, d)
        depth = t / length
        seen = (depth < FAR) & (who >= 0)
        surface = who.clamp_min(0)
        haze = torch.exp(-self.fog[:, None] * t)[..., None]
        rgb = self._colors(o + t[..., None] * d, surface, normal) * haze + self.sky[:, None] * (1 - haze)
        rgb = torch.where(seen[..., None], rgb, self.sky[:, None] * (0.8 + 0.2 * y.clamp(0, 1))[..., None])
        rgb = (rgb + self.noise[:, None, None] * torch.randn(rgb.shape, generator=self.g)).clamp(0, 1)
        ground_and_wall = torch.tensor([0, WALL]).expand(n, 2)
        kind = self._picked(torch.cat([self.kind, ground_and_wall], 1), surface)
        shape = lambda v: v.view(n, height, width)
        picture = (rgb * 255).round().div(255).view(n, height, width, 3).permute(0, 3, 1, 2)
        depth = torch.where(seen, depth, torch.full_like(depth, FAR))
        objects = torch.where(seen & (who < self.m), who, torch.full_like(who, -1))
        return picture, shape(depth), shape(torch.where(seen, kind, torch.full_like(who, SKY))), shape(objects)


def show(path: str) -> None:
    """Writes a sheet of eight scenes: pictures, depth (nearer is brighter), classes."""
    rgb, depth, classes, _ = Scenes(8, HELD_OUT - 1).render(126, 168)
    near = (255 * (1 - depth / FAR)).byte()[:, None].expand(-1, 3, -1, -1)
    colors = torch.tensor(PALETTE, dtype=torch.uint8)[classes].permute(0, 3, 1, 2)
    rows = [torch.cat(list(v), 2) for v in ((rgb * 255).round().byte(), near, colors)]
    Image.fromarray(torch.cat(rows, 1).permute(1, 2, 0).numpy()).save(path)


def save_depth(metres: np.ndarray, stem: Path, kind: str) -> None:
    """Writes a depth map as `stem`.npy, or as `stem`.png in millimetres."""
    if kind == "npy":
        np.save(f"{stem}.npy", metres)
    else:
        Image.fromarray((metres * 1000).round().astype(np.uint16)).save(f"{stem}.png", optimize=True)


def write(folder: Path, count: int, kind: str, height: int, width: int) -> None:
    """Writes the first `count` held-out scenes as files that `vitlet eval` reads."""
    for part in ("pictures", "depth", "classes"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{c}\n" for c in CLASSES))
    for i in range(count):
        rgb, depth, classes, _ = Scenes(1, HELD_OUT + i).render(height, width)
        picture = Image.fromarray((rgb[0] * 255).round().byte().permute(1, 2, 0).numpy())
        picture.save(folder / f"pictures/{i:03}.png", optimize=True)
        seen = torch.where(depth[0] < FAR, depth[0], torch.zeros_like(depth[0]))
        save_depth(seen.numpy(), folder / f"depth/{i:03}", kind)
        labels = Image.fromarray(classes[0].byte().numpy())
        labels.putpalette(sum(PALETTE, []))
        labels.save(folder / f"classes/{i:03}.png", optimize=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    sub.add_parser("show").add_argument("out")
    w = sub.add_parser("write")
    w.add_argument("dir", type=Path)
    w.add_argument("--count", type=int, default=24)
    w.add_argument("--depth", choices=["png", "npy"], default="png")
    w.add_argument("--size", type=int, nargs=2, default=[SIDE, SIDE], metavar=("HEIGHT", "WIDTH"))
    a = p.parse_args()
    if a.command == "show":
        show(a.out)
    else:
        write(a.dir, a.count, a.depth, *a.size)


if __name__ == "__main__":
    main()
