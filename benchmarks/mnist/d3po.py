"""D3PO, arXiv 2311.13231: direct preference optimisation of every denoising step; the baseline.

Per step, loss = −log σ(β·[log clamp(π_θ/π_ref, 1 ± ε) of the winner − the same of the loser]). The
policies are the Gaussians of the ancestral sampler, and log π is, as in the authors' program, a
mean over the pixels. Pairs are made of the same labels as the other arms get: every liked image
of an interaction beats every disliked one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from palate.core.papa import optimizer_tensors, restore_optimizer
from torch import Tensor
from torch.nn import functional as F

from .arms import Arm
from .base import Ddpm

BETA, CLIP = 0.1, 0.1
STEPS_AT_ONCE = 5


def update(
    ddpm: Ddpm,
    adapter: Any,
    path: Tensor,
    labels: Tensor,
    arm: Arm,
    generator: torch.Generator,
    state: dict[str, Tensor],
) -> dict[str, Tensor]:
    """``arm.passes`` passes over the denoising steps, in random order. Returns Adam's state."""
    if bool((labels > 0).all()) or bool((labels < 0).all()):
        return state  # no pair
    optimizer = torch.optim.Adam(adapter.parameters(), lr=arm.config.learning_rate)
    restore_optimizer(optimizer, adapter, state)
    for _ in range(arm.passes):
        steps = torch.randperm(len(ddpm.ladder) - 1, generator=generator)  # the last has σ = 0
        for some in steps.split(STEPS_AT_ONCE):
            optimizer.zero_grad(set_to_none=True)
            loss_of(ddpm, adapter, path, some, labels).backward(inputs=adapter.parameters())
            torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer_tensors(optimizer, adapter)


def loss_of(ddpm: Ddpm, adapter: Any, path: Tensor, steps: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of ``steps`` (s,) of the ladder, over all pairs of a like and a dislike."""
    images = path.shape[1]
    x, following = path[steps].flatten(0, 1), path[steps + 1].flatten(0, 1)
    each = steps.repeat_interleave(images)
    with torch.no_grad(), adapter.scaled(0.0):
        reference, sigma = ddpm.transition(x, each)
    mean, _ = ddpm.transition(x, each)
    squares = (following - reference).square() - (following - mean).square()
    log_ratio = (squares / (2 * sigma**2)).flatten(1).mean(1).view(len(steps), images)
    log_ratio = log_ratio.clamp(math.log(1 - CLIP), math.log(1 + CLIP))
    margins = log_ratio[:, labels > 0, None] - log_ratio[:, None, labels < 0]
    return -F.logsigmoid(BETA * margins).mean()
