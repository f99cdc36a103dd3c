"""What a comparison with each token is worth at an estimate θ̂, relative to θ = 0.

A pick among K informs about a prompt by p(1 − p), p its chance to be picked: (K−1)/K² when nothing
is known, next to nothing for a prompt that surely wins or surely loses. Here p is that of a prompt
through a token against K − 1 prompts drawn from reference policies; the utility of the remaining
slots is taken as Gaussian. Adaptive counterpart of arXiv 2512.19057, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NODES = (-2.0202, -0.9586, 0.0, 0.9586, 2.0202)  # Gauss–Hermite, five points
NODE_WEIGHTS = (0.0113, 0.2221, 0.5333, 0.2221, 0.0113)


def comparison_weights(
    features: Sequence[Tensor], theta: Tensor, arms: int, reference: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """E[p(1 − p)]·K²/(K−1) for a prompt through each token: one (n_h,) in (0, 4/3] a slot.

    reference: token chances (n_h,) of the other prompts, uniform by default. All ones at θ = 0.
    """
    utilities = [rows.double() @ theta.double() for rows in features]
    if reference is None:
        reference = [torch.full_like(u, 1 / len(u)) for u in utilities]
    means = [float(p @ u) for p, u in zip(reference, utilities, strict=True)]
    spreads = [float(p @ (u - m) ** 2) for p, u, m in zip(reference, utilities, means, strict=True)]
    # log of the expected total of e^u over the others, u Gaussian over the prompts
    others = math.log(arms - 1) + sum(means) + sum(spreads) / 2
    neutral = (arms - 1) / arms**2
    nodes = torch.tensor(NODES, dtype=torch.float64) * math.sqrt(2)
    node_weights = torch.tensor(NODE_WEIGHTS, dtype=torch.float64)
    node_weights = node_weights / node_weights.sum()
    weights = []
    for u, mean, spread in zip(utilities, means, spreads, strict=True):
        rest_mean, rest_spread = sum(means) - mean, math.sqrt(max(sum(spreads) - spread, 0.0))
        p = torch.sigmoid(u[:, None] + rest_mean + rest_spread * nodes - others)
        weights.append(((p * (1 - p)) @ node_weights / neutral).clamp(min=1e-6))
    return weights
