"""The effective sample size along a run of particles, as a picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..core.fkc import Particles

WIDTH, HEIGHT, MARGIN = 512, 256, 36
PAPER, INK, FAINT, CURVE, WEIGHT = (250, 250, 250), (60, 60, 66), (205, 205, 210), (38, 96, 190), (226, 140, 40)  # fmt: skip  # noqa: E501


def ess_plot(cloud: Particles, threshold: float) -> Tensor:
    """ESS of N after each step, the share below which is resampled, and the weights at the end.

    Returns an image (1, 256, 512, 3) in [0, 1].
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    count = len(cloud.log_weights)
    curve = _Axes(pen, MARGIN, WIDTH * 2 // 3 - 12, "effective sample size by step", str(count))
    if threshold > 0:
        curve.level(threshold)
    if cloud.ess.numel():
        curve.line((cloud.ess / count).tolist())
    bars = _Axes(pen, WIDTH * 2 // 3 + 24, WIDTH - 12, "weights", "")
    bars.bars((cloud.weights / cloud.weights.max()).sort(descending=True).values.tolist())
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)[None]


class _Axes:
    """A box of the picture in which 0 … 1 runs upwards."""

    def __init__(self, pen: ImageDraw.ImageDraw, left: int, right: int, title: str, top: str):
        self.pen, self.left, self.right = pen, left, right
        self.low, self.high = HEIGHT - 28, 36
        pen.text((left, 12), title, fill=INK)
        pen.line([(left, self.high), (left, self.low), (right, self.low)], fill=INK)
        pen.text((left - 8 - 6 * len(top), self.high - 6), top, fill=INK)
        pen.text((left - 14, self.low - 6), "0", fill=INK)

    def _y(self, value: float) -> float:
        return self.low - (self.low - self.high) * value

    def level(self, value: float) -> None:
        self.pen.line([(self.left, self._y(value)), (self.right, self._y(value))], fill=FAINT)

    def line(self, values: list[float]) -> None:
        step = (self.right - self.left) / max(1, len(values) - 1)
        points = [(self.left + i * step, self._y(v)) for i, v in enumerate(values)]
        self.pen.line(points if len(points) > 1 else points * 2, fill=CURVE, width=2)

    def bars(self, values: list[float]) -> None:
        width = (self.right - self.left) / len(values)
        for i, value in enumerate(values):
            left = self.left + 1 + i * width
            box = [left, self._y(value), max(left, left + width - 2), self.low]
            self.pen.rectangle(box, fill=WEIGHT)
