"""Batches and lists of batches, as nodes pass them, brought to one entry an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def joined(batches: Sequence[Tensor], what: str, node: str) -> Tensor:
    """All entries of the batches in one; raises ValueError, in the node's name, if sizes differ."""
    shapes = {tuple(batch.shape[1:]) for batch in batches}
    if len(shapes) > 1:
        raise ValueError(
            f"{node} compares {what} of one size; these are {sorted(shapes)}. Use one width and "
            "height for all of them."
        )
    return torch.cat(list(batches))


def check_decoded(images: int, latents: int, node: str) -> None:
    """Raises ValueError, in the node's name, unless there is one latent for each image."""
    if images != latents:
        raise ValueError(
            f"{node} got {images} images and {latents} latents: connect the latents from which "
            "these images were decoded."
        )


def one_each(conditionings: Sequence[list], batches: Sequence[int], node: str) -> list[list]:
    """One conditioning an image, from one for all, one a batch, or one an image.

    batches: the number of images in each batch.
    """
    count = sum(batches)
    if len(conditionings) == 1:
        return [conditionings[0]] * count
    if len(conditionings) == count:
        return list(conditionings)
    if len(conditionings) == len(batches):
        return [c for c, size in zip(conditionings, batches, strict=True) for _ in range(size)]
    raise ValueError(
        f"{node} got {len(conditionings)} conditionings for {count} images: connect one for all, "
        "or one an image."
    )
