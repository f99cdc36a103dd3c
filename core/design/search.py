"""The prompts of greatest utility: beam search over the slots."""

from __future__ import annotations

import torch
from torch import Tensor

from .space import PromptSpace


def best_prompts(space: PromptSpace, theta: Tensor, n: int = 8, beam: int = 16) -> list[list[int]]:
    """The n prompts with the highest θᵀφ(prompt), best first, as token-index lists.

    Beam search over the slots, exact where no token stands in two slots; no two of the prompts read
    the same, and none uses a token twice. Fewer than n come back only if there are no more.
    Raises ValueError on a θ of another width.
    """
    theta = torch.as_tensor(theta).double().flatten()
    if len(theta) != space.dim or not torch.isfinite(theta).all():
        raise ValueError(f"theta must be {space.dim} finite numbers, as wide as the features")
    if n < 1 or beam < 1:
        raise ValueError(f"n and beam must be at least 1, not {n} and {beam}")
    width = max(beam, 2 * n)
    states: list[tuple[float, list[int]]] = [(0.0, [])]
    for rows in space.features:
        gains = rows @ theta
        grown = []
        for value, prefix in states:
            worth = torch.where(space.allowed(prefix), value + gains, -torch.inf)
            top = worth.topk(min(width, len(worth)))
            grown += [
                (value, [*prefix, token])
                for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                if value > -torch.inf
            ]
        states = _distinct(space, sorted(grown, key=lambda state: -state[0]))[:width]
    return [prompt for _, prompt in states[:n]]


def _distinct(
    space: PromptSpace, states: list[tuple[float, list[int]]]
) -> list[tuple[float, list[int]]]:
    """The states, best first, without those that read like a better one."""
    seen: set[str] = set()
    kept = []
    for value, prompt in states:
        text = space.text(prompt, "\n")
        if text not in seen:
            seen.add(text)
            kept.append((value, prompt))
    return kept


def best_utility(space: PromptSpace, thetas: Tensor) -> Tensor:
    """max over prompts of θᵀφ for each θ (S, d): (S,). An upper bound where tokens are shared."""
    return torch.stack([(thetas @ rows.T).amax(1) for rows in space.features]).sum(0)
