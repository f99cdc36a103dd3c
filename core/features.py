"""A fixed feature space of images: where colours and detail lie. No learning, no weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 4
LUMA = (0.299, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """Rec. 601 luma of images (N, H, W, 3) in [0, 1]: (N, H, W)."""
    return images[..., :3] @ images.new_tensor(LUMA)


def detail(images: Tensor) -> Tensor:
    """Magnitude of the luma's gradient, per pixel: (N, H−1, W−1)."""
    luma = luminance(images)
    return (luma[:, 1:, :-1] - luma[:, :-1, :-1]).abs() + (
        luma[:, :-1, 1:] - luma[:, :-1, :-1]
    ).abs()


def image_features(images: Tensor) -> Tensor:
    """Mean colour and mean detail in each cell of a 4×4 grid: (N, H, W, 3) → (N, 64) float32."""
    if images.ndim != 4 or images.shape[-1] < 3:
        raise ValueError(f"images must be (N, H, W, 3), not {tuple(images.shape)}")
    pixels = images[..., :3].float()
    colour = F.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2), GRID).flatten(1)
    edges = F.adaptive_avg_pool2d(detail(pixels)[:, None], GRID).flatten(1)
    return torch.cat([colour, 4 * edges], dim=1)


def diversity(features: Tensor) -> float:
    """Mean Euclidean distance over all pairs of rows of (N, d), N ≥ 2."""
    if len(features) < 2:
        raise ValueError("diversity needs at least two images")
    return float(torch.pdist(features.double()).mean())
