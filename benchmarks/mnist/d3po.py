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


@torch.no_grad()
def trajectory(ddpm: Ddpm, count: int, generator: torch.Generator) -> Tensor:
    """x along the sampler's ladder, the noise first: (steps + 1, count, 1, H, W)."""
    path = [torch.randn((count, *ddpm.shape), generator=generator).to(ddpm.device)]
    for i in range(len(ddpm.ladder)):
        mean, _, sigma = ddpm.transition(path[-1], i)
        path.append(mean + sigma * torch.randn(mean.shape, generator=generator).to(mean))
    return torch.stack(path)


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
            for i in some.tolist():
                loss = step_loss(ddpm, adapter, path, i, labels) / len(some)
                loss.backward(inputs=adapter.parameters())
            torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer_tensors(optimizer, adapter)


def step_loss(ddpm: Ddpm, adapter: Any, path: Tensor, i: int, labels: Tensor) -> Tensor:
    """The loss at step i of the ladder, over all pairs of a liked and a disliked image."""
    x, following = path[i], path[i + 1]
    with torch.no_grad(), adapter.scaled(0.0):
        reference, _, sigma = ddpm.transition(x, i)
    mean, _, _ = ddpm.transition(x, i)
    squares = (following - reference).square() - (following - mean).square()
    log_ratio = (squares / (2 * sigma**2)).flatten(1).mean(1)
    log_ratio = log_ratio.clamp(math.log(1 - CLIP), math.log(1 + CLIP))
    margins = log_ratio[labels > 0][:, None] - log_ratio[labels < 0][None]
    return -F.logsigmoid(BETA * margins).mean()
