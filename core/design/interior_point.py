"""Finish a small design to high precision: Newton's method on a logarithmic barrier.

Frank–Wolfe's steps slow down when the optimum rests on few tokens. With n tokens in all the Hessian
of the criterion in the token chances is n×n and has a closed form, so a few Newton steps finish
the work; at some hundred tokens they cost milliseconds. Standard primal barrier (Boyd and
Vandenberghe, Convex Optimization, section 11.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .information import mean_information, score
from .objective import Objective, Solution, duality_gap

MAX_TOKENS = 600
MAX_STEPS = 60
BARRIER_CUT = 0.1
CENTRED = 1.0  # squared Newton decrement, in units of the barrier, that lets the barrier fall
TO_THE_EDGE = 0.95  # share of the way to the first chance that would vanish


def curvature(objective: Objective, means: Sequence[Tensor]) -> Tensor:
    """Hessian of the objective in all token chances, slot after slot: (n, n), negative definite.

    With c = φ − μ of the token's slot, P = c_iᵀ·total⁻¹·c_j and G = c_iᵀ·∂f·c_j it is −P∘P for D
    and −2P∘G for V and A, less 2G/Σm within a slot, where the centre moves too.
    """
    masses = [d * w for d, w in zip(means, objective.weights, strict=True)]
    total = objective.base + mean_information(masses, objective.features)
    _, slope = score(total, objective.target)
    rows = [f - m @ f / m.sum() for f, m in zip(objective.features, masses, strict=True)]
    centred = torch.cat(rows)
    inverse = centred @ torch.cholesky_solve(centred.T, torch.linalg.cholesky(total))
    sloped = centred @ slope @ centred.T
    hessian = -(inverse**2) if objective.target is None else -2 * inverse * sloped
    first = 0
    for mass in masses:
        here = slice(first, first + len(mass))
        hessian[here, here] -= 2 * sloped[here, here] / mass.sum()
        first += len(mass)
    weights = torch.cat(list(objective.weights))
    return hessian * weights * weights[:, None]


def finish(objective: Objective, solution: Solution, tolerance: float) -> Solution:
    """The solution, brought to a gap below tolerance·|objective| where rounding allows it."""
    sizes = [len(d) for d in solution.means]
    slots = torch.block_diag(*[torch.ones(1, n, dtype=torch.float64) for n in sizes])
    at = torch.cat([0.99 * d + 0.01 / len(d) for d in solution.means])
    barrier = max(solution.gap, 1e-9 * abs(solution.objective)) / sum(sizes)
    best, bound = solution, solution.objective + solution.gap
    history = list(solution.history)
    for _ in range(MAX_STEPS):
        if best.gap <= tolerance * abs(best.objective):
            break
        means = list(at.split(sizes))
        value, rewards = objective(means)
        bound = min(bound, value + duality_gap(means, rewards))
        if value > best.objective:
            history.append(value)
            best = Solution(means, value, max(bound - value, 0.0), history)
        best.gap = max(min(best.gap, bound - best.objective), 0.0)
        slope = torch.cat(rewards) + barrier / at
        step = _newton_step(torch.diag(barrier / at**2) - curvature(objective, means), slope, slots)
        if step is None:
            break
        at = _damped(objective, at, step, float(slope @ step), barrier, sizes)
        if float(slope @ step) <= CENTRED * barrier:
            barrier *= BARRIER_CUT
    return best


def _newton_step(curved: Tensor, slope: Tensor, slots: Tensor) -> Tensor | None:
    """Step (n,) that keeps the sum of every slot; None where rounding spoils ``curved``."""
    scale = curved.diagonal().rsqrt()
    factor, failed = torch.linalg.cholesky_ex(curved * scale * scale[:, None])
    if failed:
        return None
    both = torch.cat([slope[:, None], slots.T], 1) * scale[:, None]
    solved = torch.cholesky_solve(both, factor) * scale[:, None]
    free, across = solved[:, 0], solved[:, 1:]
    return free - across @ torch.linalg.solve(slots @ across, slots @ free)


def _damped(
    objective: Objective,
    at: Tensor,
    step: Tensor,
    slope: float,
    barrier: float,
    sizes: list[int],
) -> Tensor:
    """As far along the step as the barrier objective rises by a tenth of what it promised."""

    def height(point: Tensor) -> float:
        return objective.value(point.split(sizes)) + barrier * float(point.log().sum())

    shrinking = step < 0
    size = 1.0
    if bool(shrinking.any()):
        size = min(1.0, TO_THE_EDGE * float((-at / step)[shrinking].min()))
    start = height(at)
    while size > 1e-6:
        point = at + size * step
        if height(point) >= start + 0.1 * size * slope - 1e-12 * abs(start):
            return point
        size /= 2
    return at
