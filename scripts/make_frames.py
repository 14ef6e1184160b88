#!/usr/bin/env python3
"""Writes one picture in every format that libvitlet reads, and as a BMP with the expected pixels, for
scripts/test_capi.sh.

    make_frames.py DIRECTORY

The size is odd, so that the last pair of pixels that share their chroma is half a pair. Nothing but Python is needed.
"""

import pathlib
import struct
import sys

WIDTH, HEIGHT = 101, 75


def byte(x):
    return max(0, min(255, x))


def bmp(rows):
    """A 24-bit BMP, from rows of (r, g, b)."""
    height, width = len(rows), len(rows[0])
    stride = (3 * width + 3) // 4 * 4
    body = b""
    for row in reversed(rows):
        line = b"".join(bytes((b, g, r)) for r, g, b in row)
        body += line + bytes(stride - len(line))
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + len(body), 0, 0, 54, 40, width, height, 1, 24, 0, len(body), 0, 0, 0, 0)
    return head + body


def bt601(y, u, v):
    """docs/numerics.md, "Input"."""
    y, u, v = 9539 * (y - 16), u - 128, v - 128
    return tuple(byte((x + 4096) >> 13) for x in (y + 13075 * v, y - 3209 * u - 6660 * v, y + 16525 * u))


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    state = 1

    def noise():
        nonlocal state
        state = (state * 1664525 + 1013904223) % 2**32
        return state >> 27

    at = [[(x, y) for x in range(WIDTH)] for y in range(HEIGHT)]
    rgb = [[(byte(2 * x + noise()), byte(3 * y + noise()), byte(x + y + noise())) for x, y in row] for row in at]
    pixels = [pixel for row in rgb for pixel in row]
    write = lambda name, data: (out / name).write_bytes(data)
    write("rgb.bmp", bmp(rgb))
    write("rgb.ppm", b"P6\n# a comment\n%d %d\n255\n" % (WIDTH, HEIGHT) + b"".join(map(bytes, pixels)))
    write("frame.rgb", b"".join(map(bytes, pixels)))
    write("frame.bgr", b"".join(bytes((b, g, r)) for r, g, b in pixels))
    write("frame.rgba", b"".join(bytes((r, g, b, noise())) for r, g, b in pixels))
    write("turned.bmp", bmp([[rgb[HEIGHT - 1 - x][y] for x in range(HEIGHT)] for y in range(WIDTH)]))
    write("part.bmp", bmp([row[11:71] for row in rgb[7:57]]))

    luma = [[byte(20 + 2 * x + noise()) for x, y in row] for row in at]
    half = [[(x, y) for x in range((WIDTH + 1) // 2)] for y in range((HEIGHT + 1) // 2)]
    u = [[byte(60 + 3 * y + noise()) for x, y in row] for row in half]
    v = [[byte(200 - 3 * x + noise()) for x, y in row] for row in half]
    join = lambda rows: b"".join(map(bytes, rows))
    write("yuv.bmp", bmp([[bt601(luma[y][x], u[y // 2][x // 2], v[y // 2][x // 2]) for x, y in row] for row in at]))
    write("frame.i420", join(luma) + join(u) + join(v))
    write("frame.nv12", join(luma) + b"".join(bytes((a, b)) for us, vs in zip(u, v) for a, b in zip(us, vs)))
    pairs = [(row + row[-1:], u[y // 2], v[y // 2]) for y, row in enumerate(luma)]
    write("frame.yuyv", b"".join(bytes((row[2 * i], us[i], row[2 * i + 1], vs[i])) for row, us, vs in pairs for i in range(len(us))))
    write("gray.bmp", bmp([[(y,) * 3 for y in row] for row in luma]))
    write("frame.gray", join(luma))
    print(WIDTH, HEIGHT)


main()
