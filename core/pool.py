"""Fixed features of candidates that exist already: latents, where no text tells them apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .features import GRID, image_features

IMAGE_SCALE = 3.0  # brings the differences among images of one prompt to about unit size
LATENT_SCALE = 0.5


def latent_features(latents: Tensor) -> Tensor:
    """Mean and spread of each channel in each cell of a 4×4 grid: (N, C, …, h, w) → (N, 32·C).

    Latents of video, (N, C, frames, h, w), are averaged over their frames. float32.
    """
    if latents.ndim < 4:
        raise ValueError(f"latents must be (N, C, …, h, w), not {tuple(latents.shape)}")
    values = latents.float()
    if values.ndim > 4:
        values = values.mean(dim=tuple(range(2, values.ndim - 2)))
    mean = F.adaptive_avg_pool2d(values, GRID)
    square = F.adaptive_avg_pool2d(values.square(), GRID)
    spread = (square - mean.square()).clamp(min=0).sqrt()
    return torch.cat([mean.flatten(1), spread.flatten(1)], dim=1)


def pool_features(images: Tensor | None, latents: Tensor | None) -> tuple[str, float, Tensor]:
    """(name of the feature space, scale, features (N, d)) of images, or of latents without them.

    images: (N, H, W, 3) in [0, 1].
    """
    if images is not None:
        return "pixels", IMAGE_SCALE, image_features(images)
    if latents is None:
        raise ValueError("a pool needs images or latents")
    features = latent_features(latents)
    return f"latents-{features.shape[1]}", LATENT_SCALE, features
