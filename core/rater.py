"""Raters: programs that answer queries in tests, demos and benchmarks. They see pixels only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .features import detail, luminance


def warm(images: Tensor) -> Tensor:
    """Red over blue, mean over the image."""
    return (images[..., 0] - images[..., 2]).mean((1, 2))


def dark(images: Tensor) -> Tensor:
    """Low mean luma."""
    return -luminance(images).mean((1, 2))


def dense_detail(images: Tensor) -> Tensor:
    """Mean gradient magnitude of the luma."""
    return detail(images).mean((1, 2))


def symmetric(images: Tensor) -> Tensor:
    """Correlation of the luma with its own mirror image, in [−1, 1]; flat images score 0."""
    luma = luminance(images).flatten(1)
    mirror = luminance(images.flip(2)).flatten(1)
    luma, mirror = luma - luma.mean(1, keepdim=True), mirror - mirror.mean(1, keepdim=True)
    return (luma * mirror).sum(1) / (luma.norm(dim=1) * mirror.norm(dim=1)).clamp(min=1e-6)


TASTES: dict[str, Callable[[Tensor], Tensor]] = {
    "warm colours": warm,
    "dark": dark,
    "dense detail": dense_detail,
    "symmetric": symmetric,
}


class Rater:
    """Answers by one of `TASTES`: ``score`` of (N, H, W, 3) in [0, 1] is (N,), more is better.

    Raises ValueError for an unknown taste.
    """

    def __init__(self, taste: str) -> None:
        if taste not in TASTES:
            raise ValueError(f"unknown taste {taste!r}; choose one of {', '.join(TASTES)}")
        self.taste = taste

    def score(self, images: Tensor) -> Tensor:
        return TASTES[self.taste](images[..., :3].float())

    def answer(self, images: Tensor, kinds: Sequence[str] = ("rate",)) -> dict[str, object]:
        """Likes the better half and dislikes the rest, or ranks or picks if only that is asked.

        Skips a lone image: there is nothing to compare it with.
        """
        scores = self.score(images)
        order = torch.argsort(scores, descending=True, stable=True).tolist()
        if len(order) < 2:
            return {"kind": "skip"}
        if "rate" in kinds:
            liked = set(order[: len(order) // 2])
            return {"kind": "rate", "ratings": [1 if i in liked else -1 for i in range(len(order))]}
        if "rank" in kinds:
            return {"kind": "rank", "order": order}
        return {"kind": "pick", "winner": order[0]}
