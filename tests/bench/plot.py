# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plot of lines on logarithmic scales as a PNG, with the standard library alone. Source: PNG specification, third edition."""

from __future__ import annotations

import itertools
import math
import struct
import typing as t
import zlib
from pathlib import Path

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 1000, 640
LEFT, RIGHT, TOP, BOTTOM = 90, 270, 60, 60
COLOURS = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207), (127, 127, 127), (188, 189, 34),
    (0, 0, 0), (227, 119, 194), (140, 86, 75), (0, 0, 140),
)  # fmt: skip
BLACK, GREY, WHITE = (0, 0, 0), (215, 215, 215), (255, 255, 255)
# Three columns of five dots each, top dot lowest bit.
_GLYPHS = (
    "vhv ivg tln llv 74v nlt vlt 1p7 vlv nlv u5u vla ehh vhe vlh v51 eht v4v hvh 8gf v4r"
    " vgg v6v v1u ehe v52 epm v5q il9 1v1 vgv fgf vcv r4r 3s3 plj 0g0 444 o43 g80 eh0 0he 0a0"
)
_FONT = dict(zip("0123456789abcdefghijklmnopqrstuvwxyz.-/,():", _GLYPHS.split(), strict=True))


class Canvas:
    """Dots in rows, drawn on and written out."""

    def __init__(self) -> None:
        self.rows = [bytearray(bytes(WHITE) * WIDTH) for _row in range(HEIGHT)]

    def dot(self, x: int, y: int, colour: tuple[int, int, int]) -> None:
        if 0 <= x < WIDTH and 0 <= y < HEIGHT:
            self.rows[y][3 * x : 3 * x + 3] = bytes(colour)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: tuple[int, int, int], thick: int = 1) -> None:
        steps = int(max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1))
        for step in range(steps + 1):
            x, y = (start[axis] + (end[axis] - start[axis]) * step / steps for axis in (0, 1))
            for dx in range(thick):
                for dy in range(thick):
                    self.dot(round(x) + dx, round(y) + dy, colour)

    def text(self, x: int, y: int, words: str, colour: tuple[int, int, int] = BLACK, size: int = 2) -> None:
        for place, char in enumerate(words.lower()):
            for column, code in enumerate(_FONT.get(char, "000")):
                dots = int(code, 32)
                for row in range(5):
                    if dots >> row & 1:
                        for dot in range(size * size):
                            self.dot(x + (place * 4 + column) * size + dot % size, y + row * size + dot // size, colour)

    def write(self, path: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in self.rows), 9)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def draw(path: Path, title: str, across: str, up: str, lines: t.Mapping[str, Points]) -> None:
    """Write a plot of *lines* (name → points, all above 0) to *path*; *across* and *up* name the axes."""
    canvas = Canvas()
    xs = [math.log10(x) for points in lines.values() for x, _y in points]
    ys = [math.log10(y) for points in lines.values() for _x, y in points]
    bounds = (math.floor(min(xs)), math.ceil(max(xs)), math.floor(min(ys)), math.ceil(max(ys)))

    def place(x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return (
            LEFT + width * (math.log10(x) - bounds[0]) / max(1, bounds[1] - bounds[0]),
            HEIGHT - BOTTOM - height * (math.log10(y) - bounds[2]) / max(1, bounds[3] - bounds[2]),
        )

    for power in range(bounds[0], bounds[1] + 1):
        x = place(10**power, 10.0 ** bounds[2])[0]
        canvas.line((x, TOP), (x, HEIGHT - BOTTOM), GREY)
        canvas.text(round(x) - 12, HEIGHT - BOTTOM + 10, f"{10**power:g}")
    for power in range(bounds[2], bounds[3] + 1):
        y = place(10.0 ** bounds[0], 10.0**power)[1]
        canvas.line((LEFT, y), (WIDTH - RIGHT, y), GREY)
        canvas.text(15, round(y) - 5, f"{10.0**power:g}")
    canvas.text(LEFT, 20, title, size=3)
    canvas.text(LEFT, HEIGHT - 25, across)
    canvas.text(15, TOP - 18, up)
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        spots = [place(*point) for point in sorted(points)]
        for start, end in itertools.pairwise(spots):
            canvas.line(start, end, colour, 2)
        for x, y in spots:
            canvas.line((x - 3, y), (x + 3, y), colour, 5)
        canvas.line((WIDTH - RIGHT + 15, TOP + 24 * number + 5), (WIDTH - RIGHT + 35, TOP + 24 * number + 5), colour, 3)
        canvas.text(WIDTH - RIGHT + 42, TOP + 24 * number, name)
    canvas.write(path)
