"""Small plots with Pillow: what the pictures that nodes give out are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colour = tuple[int, int, int]

PAPER, INK, DIM, FAINT = (252, 252, 252), (38, 40, 46), (118, 122, 132), (226, 228, 233)
BLUE, GREEN, RED, ORANGE = (38, 96, 190), (30, 140, 88), (204, 70, 56), (226, 140, 40)

FINE = 3  # drawn so many times larger and then reduced, for smooth lines


class Figure:
    """A page to draw on, in pixels of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._page = Image.new("RGB", (width * FINE, height * FINE), PAPER)
        self._pen = ImageDraw.Draw(self._page)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        size: int = 13,
        fill: Colour = INK,
        anchor: str = "lm",
    ) -> None:
        """``anchor`` is Pillow's: l, m or r across, and a, m or s up and down."""
        x, y = at
        font = _font(size * FINE)
        if not isinstance(font, ImageFont.FreeTypeFont):
            anchor = "la"  # the built-in bitmap font knows no other
        self._pen.text((x * FINE, y * FINE), text, fill=fill, font=font, anchor=anchor)

    def width_of(self, text: str, size: int = 13) -> float:
        return float(_font(size * FINE).getlength(text)) / FINE

    def line(self, points: Sequence[tuple[float, float]], fill: Colour, width: float = 1) -> None:
        scaled = [(x * FINE, y * FINE) for x, y in points]
        self._pen.line(scaled, fill=fill, width=max(1, round(width * FINE)), joint="curve")

    def dashed(self, y: float, left: float, right: float, fill: Colour) -> None:
        for start in np.arange(left, right, 9):
            self.line([(float(start), y), (min(float(start) + 5, right), y)], fill, 1.2)

    def dot(self, at: tuple[float, float], fill: Colour, radius: float = 3) -> None:
        x, y = at
        box = [(x - radius) * FINE, (y - radius) * FINE, (x + radius) * FINE, (y + radius) * FINE]
        self._pen.ellipse(box, fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self._pen.rectangle([v * FINE for v in (left, top, right, bottom)], fill=fill)

    def paste(self, picture: Image.Image, left: float, top: float, size: int) -> None:
        """The picture within a square of ``size`` pixels, in the middle of it."""
        scale = size * FINE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        enlarged = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        x, y = left * FINE + (size * FINE - width) // 2, top * FINE + (size * FINE - height) // 2
        self._page.paste(enlarged, (round(x), round(y)))

    def image(self) -> Image.Image:
        return self._page.resize((self.width, self.height), Image.Resampling.BOX)

    def tensor(self) -> Tensor:
        """An IMAGE: (1, H, W, 3) in [0, 1]."""
        return torch.from_numpy(np.asarray(self.image(), np.float32) / 255)[None]


class Axes:
    """A box of a figure in which values run upwards and steps to the right.

    place: (left, top, right, bottom), all told. xs, ys: the ranges of what will be shown.
    """

    def __init__(
        self,
        figure: Figure,
        place: tuple[float, float, float, float],
        title: str,
        xs: tuple[float, float],
        ys: tuple[float, float],
        x_name: str = "",
    ) -> None:
        self.figure = figure
        left, top, right, bottom = place
        figure.text((left, top + 8), title, 14)
        ticks = _ticks(*ys)
        self._ys = (min(ys[0], ticks[0]), max(ys[1], ticks[-1]))
        self._xs = xs if xs[1] > xs[0] else (xs[0] - 0.5, xs[0] + 0.5)
        labels = [_number(tick, ticks) for tick in ticks]
        margin = max(figure.width_of(label, 11) for label in labels) + 8
        self.left, self.right = left + margin, right - 6
        self.top, self.bottom = top + 28, bottom - (36 if x_name else 22)
        for tick, label in zip(ticks, labels, strict=True):
            y = self.at(0, tick)[1]
            figure.line([(self.left, y), (self.right, y)], DIM if tick == 0 else FAINT)
            figure.text((self.left - 6, y), label, 11, DIM, "rm")
        for tick in _ticks(*xs, whole=True):
            figure.text((self.at(tick, 0)[0], self.bottom + 12), f"{tick:g}", 11, DIM, "mm")
        if x_name:
            figure.text(((self.left + self.right) / 2, self.bottom + 28), x_name, 11, DIM, "mm")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a value on the page."""
        across = (x - self._xs[0]) / (self._xs[1] - self._xs[0])
        up = (y - self._ys[0]) / (self._ys[1] - self._ys[0])
        return (
            self.left + across * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )

    def line(
        self, xs: Sequence[float], ys: Sequence[float], fill: Colour, width: float = 2
    ) -> None:
        """Values that are not finite leave a gap."""
        points = [self.at(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        if len(points) > 1:
            self.figure.line(points, fill, width)
        if 0 < len(points) <= 40:
            for point in points:
                self.figure.dot(point, fill, 2.5)

    def bars(self, values: Sequence[float], fill: Colour) -> None:
        """One bar each, side by side over the whole width, from 0 upwards."""
        width = (self.right - self.left) / max(1, len(values))
        for i, value in enumerate(values):
            left, top = self.left + i * width, self.at(0, value)[1]
            right = max(left + 0.5, left + width - min(2.0, width / 4))
            self.figure.box(left, top, right, self.at(0, 0)[1], fill)

    def level(self, y: float, name: str, fill: Colour = RED) -> None:
        """A dashed line all across, with its name at its left end."""
        height = self.at(0, y)[1]
        self.figure.dashed(height, self.left, self.right, fill)
        beside = 8 if height < self.top + 16 else -8
        self.figure.text((self.left + 4, height + beside), name, 11, fill)

    def note(self, text: str) -> None:
        """Says in the middle why there is nothing to see."""
        middle = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        self.figure.text(middle, text, 13, DIM, "mm")

    def legend(self, entries: Sequence[tuple[str, Colour]], top: float) -> None:
        """Names beside each other, ending at the right side."""
        x = self.right
        for name, colour in reversed(entries):
            x -= self.figure.width_of(name, 12)
            self.figure.text((x, top), name, 12, colour)
            x -= 14


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers from below ``low`` to above ``high``; inside, if ``whole``."""
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (factor * step) <= 5)
    if whole:
        step = max(1.0, round(step))
        first, last = math.ceil(low / step), math.floor(high / step)
    else:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(first, last) + 1)]


def _number(value: float, among: Sequence[float]) -> str:
    """``value`` with as many decimals as its neighbours need to be told apart."""
    step = min((b - a for a, b in pairwise(among)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > 4:
        return f"{value:.1e}"
    if not math.isclose(step * 10**decimals, round(step * 10**decimals)):
        decimals += 1  # steps of 2.5
    return f"{value:.{decimals}f}" if value else "0"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1
        return ImageFont.load_default()
