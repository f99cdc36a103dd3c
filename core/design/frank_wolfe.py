"""Maximise a concave criterion of the mean policy, with a duality gap that certifies the result.

The surrogate depends on the K policies through their mean only, so the K blocks of Frank–Wolfe on
the product of visitation polytopes (arXiv 2512.19057, algorithm 1) move one mean policy d. Each
step asks the exact linear oracle, a per-slot arg-max of the rewards s = ∂f/∂d; its value gives the
gap Σ_h max_a s − ⟨s, d⟩ ≥ f* − f. Two directions then compete:

- towards the oracle's vertex, with exact line search: the classical step;
- within the current face, d ← d·s^p/Σ d·s^p (multiplicative, or entropic mirror, ascent), with p
  grown while the objective rises and halved when it does not. All tokens move at once; at 2,500
  tokens it needs some 20 steps where vertices need thousands.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .objective import Objective, Solution, duality_gap

EXPONENT_GROWTH = 1.3
LARGEST_EXPONENT = 16.0
SMALLEST_EXPONENT = 1e-3
LEAST_CHANCE = 1e-14  # of a token before the last step, so that none is lost for ever
LINE_SEARCH_STEPS = 20


def maximise(
    objective: Objective,
    means: Sequence[Tensor],
    steps: int,
    tolerance: float = 1e-4,
    vertices_only: bool = False,
) -> Solution:
    """Ascend from ``means`` until the gap is below tolerance·|objective| or ``steps`` are used.

    The best certificate seen is kept: f* ≤ min over steps of f + gap bounds the optimum.
    """
    means = [_inside(d) for d in means]
    value, rewards = objective(means)
    gap = duality_gap(means, rewards)
    bound, exponent, history = value + gap, 1.0, [value]
    for _ in range(steps):
        if bound - value <= tolerance * abs(value):
            break
        moved = None
        if not vertices_only:
            moved, exponent = _face_step(objective, means, value, rewards, exponent)
        if moved is None:
            moved = _vertex_step(objective, means, value, rewards)
        if moved is None:
            break
        means, value, rewards = moved
        bound = min(bound, value + duality_gap(means, rewards))
        history.append(value)
    return Solution(means, value, max(bound - value, 0.0), history)


Step = tuple[list[Tensor], float, list[Tensor]]


def _inside(chances: Tensor) -> Tensor:
    kept = chances.double().clamp(min=LEAST_CHANCE)
    return kept / kept.sum()


def _face_step(
    objective: Objective,
    means: list[Tensor],
    value: float,
    rewards: list[Tensor],
    exponent: float,
) -> tuple[Step | None, float]:
    """The multiplicative step and the exponent to begin the next one with."""
    while exponent >= SMALLEST_EXPONENT:
        moved = []
        for d, s in zip(means, rewards, strict=True):
            logits = d.log() + exponent * s.clamp(min=1e-300).log()
            moved.append(_inside(torch.softmax(logits, 0)))
        found, slopes = objective(moved)
        if found > value:
            return (moved, found, slopes), min(exponent * EXPONENT_GROWTH, LARGEST_EXPONENT)
        exponent /= 2
    return None, 1.0


def _vertex_step(
    objective: Objective, means: list[Tensor], value: float, rewards: list[Tensor]
) -> Step | None:
    """The classical step: towards the oracle's vertex, exact line search by regula falsi."""
    vertex = [torch.zeros_like(s).index_fill_(0, s.argmax(), 1.0) for s in rewards]
    direction = [v - d for v, d in zip(vertex, means, strict=True)]

    def slope(at: Sequence[Tensor]) -> float:
        return sum(float(delta @ s) for delta, s in zip(direction, at, strict=True))

    low, high, left = 0.0, 1.0, slope(rewards)
    right: float | None = None
    best: Step | None = None
    for _ in range(LINE_SEARCH_STEPS):
        if right is None:
            size = high if low == 0 else (low + high) / 2
        else:
            size = low + (high - low) * min(max(left / (left - right), 0.05), 0.95)
        at = [_inside(d + size * delta) for d, delta in zip(means, direction, strict=True)]
        found, slopes = objective(at)
        if found > (value if best is None else best[1]):
            best = (at, found, slopes)
        here = slope(slopes)
        if here > 0:
            low, left = size, here
            if size == 1.0:
                break
        else:
            high, right = size, here
        if abs(here) <= 1e-3 * abs(slope(rewards)) or high - low < 1e-12:
            break
    return best
