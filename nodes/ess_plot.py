"""The effective sample size along a run of particles, as a picture."""

from __future__ import annotations

from torch import Tensor

from ..core.fkc import Particles
from .plots import BLUE, ORANGE, Axes, Figure

WIDTH, HEIGHT, MARGIN = 512, 256, 14


def ess_plot(cloud: Particles, threshold: float) -> Tensor:
    """ESS of N after each step, the share below which is resampled, and the weights at the end.

    Returns an image (1, 256, 512, 3) in [0, 1].
    """
    figure, count = Figure(WIDTH, HEIGHT), len(cloud.log_weights)
    split = WIDTH * 2 // 3
    curve = Axes(
        figure,
        (MARGIN, 8, split - 8, HEIGHT - 4),
        "Effective sample size",
        (1, max(2, cloud.ess.numel())),
        (0, count),
        x_name="step",
    )
    if threshold > 0:
        curve.level(threshold * count, "resampled below")
    curve.line(list(range(1, cloud.ess.numel() + 1)), cloud.ess.tolist(), BLUE)
    bars = Axes(
        figure, (split + 8, 8, WIDTH - MARGIN, HEIGHT - 4), "Weights", (1, count),
        (0, float(cloud.weights.max())), x_name="particle, heaviest first",
    )  # fmt: skip
    bars.bars(cloud.weights.sort(descending=True).values.tolist(), ORANGE)
    return figure.tensor()
