"""The designer: K policies whose questions are the most informative on average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .frank_wolfe import maximise
from .information import criterion_matrix, regularised
from .interior_point import MAX_TOKENS, finish
from .objective import Objective
from .space import PromptSpace
from .weighing import comparison_weights

SMALL_TOLERANCE = 1e-8
REFRESHED = 0.01
STEPS_OF_A_BLOCK = 2  # of each arm in each round, as in the paper


@dataclass(frozen=True)
class Design:
    """K policies over a prompt space.

    policies[arm][slot]: token chances (n_h,). objective: the criterion's value. gap ≥ 0: how much
    better any design could be at most, in the units of the objective; relative_gap is its share of
    it. history: the objective at the start and after each step.
    """

    space: PromptSpace
    policies: list[list[Tensor]]
    objective: float
    gap: float
    history: list[float] = field(default_factory=list)

    @property
    def relative_gap(self) -> float:
        """gap/|objective|, the certificate of optimality."""
        return self.gap / max(abs(self.objective), 1e-300)

    @property
    def means(self) -> list[Tensor]:
        """The mean policy of each slot: (n_h,)."""
        slots = range(self.space.horizon)
        return [torch.stack([policy[h] for policy in self.policies]).mean(0) for h in slots]

    def sample(self, generator: torch.Generator) -> list[list[int]]:
        """One query: a prompt from each arm in turn, as token indices; no token twice in a prompt.

        The arms come in their own order: shuffle before showing, a position must not tell the arm.
        """
        return [self.space.draw(policy, generator) for policy in self.policies]


def design_queries(
    space: PromptSpace,
    arms: int = 4,
    episodes: int = 50,
    l2: float = 1.0,
    criterion: str = "V",
    rounds: int = 20,
    generator: torch.Generator | None = None,
    collected: Tensor | None = None,
    theta: Tensor | None = None,
    *,
    target: Tensor | None = None,
    dense: bool = False,
    start: Design | None = None,
    tolerance: float = 1e-4,
) -> Design:
    """Policies that maximise the criterion of Σ_h Ĩ_h + (λ·Id + collected)/(H·T).

    arms: K ≥ 2 prompts a query. episodes: T queries planned. l2: λ of the choice model. criterion:
    V, A or D. rounds: at most that many, of K·2 steps each. generator: decides which arm gets which
    share of the tokens. collected (d, d): information answers have brought (precision less λ·Id).
    theta (d,): weigh comparisons by p(1 − p) at this estimate (adaptive) instead of at 0. target
    (d, d): another V, as from `transductive_target`. dense: a choice at every prefix, so slot h
    counts H − h times. start: a former design to begin from. tolerance: relative gap to stop at.

    The surrogate fixes the arms' mean only. Its tokens are dealt to the arms so that each holds
    similar ones: the exact information exceeds the surrogate's lower bound (1 − 1/K)·Ĩ by that.
    Raises ValueError naming the argument that does not fit. Source: arXiv 2512.19057, section 4.
    """
    if arms < 2 or rounds < 0:
        raise ValueError(f"arms must be at least 2 and rounds not negative: {arms}, {rounds}")
    if theta is not None and theta.shape != (space.dim,):
        raise ValueError(f"theta must be ({space.dim},), not {tuple(theta.shape)}")
    for name, matrix in (("collected", collected), ("target", target)):
        if matrix is not None and matrix.shape != (space.dim, space.dim):
            raise ValueError(
                f"{name} must be ({space.dim}, {space.dim}), not {tuple(matrix.shape)}"
            )
    features = space.features
    known = torch.zeros(space.dim, space.dim, dtype=torch.float64)
    if collected is not None:
        known = collected.double() / (space.horizon * episodes)
    if target is None:
        target = criterion_matrix(criterion, features)
    uniform = [torch.full((len(f),), 1 / len(f), dtype=torch.float64) for f in features]
    weights = [torch.ones_like(u) for u in uniform]
    if theta is not None:
        weights = comparison_weights(features, theta, arms)
    if dense:
        weights = [w * (space.horizon - h) for h, w in enumerate(weights)]
    base = regularised(known, space.horizon, l2, episodes)
    begin = uniform
    if start is not None:  # a little of everything, so that tokens dropped before may come back
        begin = [
            (1 - REFRESHED) * d + REFRESHED * u for d, u in zip(start.means, uniform, strict=True)
        ]
    objective = Objective(features, weights, base, target)
    if sum(map(len, features)) <= MAX_TOKENS:
        solution = maximise(objective, begin, rounds, SMALL_TOLERANCE)
        solution = finish(objective, solution, min(tolerance, SMALL_TOLERANCE))
    else:
        solution = maximise(objective, begin, rounds * arms * STEPS_OF_A_BLOCK, tolerance)
    generator = generator or torch.Generator().manual_seed(0)
    policies = deal(solution.means, features, arms, generator)
    return Design(space, policies, solution.objective, solution.gap, solution.history)


def deal(
    means: Sequence[Tensor], features: Sequence[Tensor], arms: int, generator: torch.Generator
) -> list[list[Tensor]]:
    """K policies with the given mean, each over tokens that lie together: policies[arm][slot].

    Tokens are ordered along their first principal axis and that line of chance is cut into K equal
    parts, which the arms draw in random order, slot by slot.
    """
    policies: list[list[Tensor]] = [[] for _ in range(arms)]
    for mean, rows in zip(means, features, strict=True):
        centred = (rows - mean @ rows) * mean.sqrt()[:, None]
        axis = torch.ones(rows.shape[1], dtype=torch.float64)
        for _ in range(20):
            axis = centred.T @ (centred @ axis)
            axis = axis / axis.norm().clamp(min=1e-300)
        order = (rows @ axis).argsort()
        edges = torch.cat([mean.new_zeros(1), mean[order].cumsum(0)])
        edges = edges / edges[-1]
        for part, arm in enumerate(torch.randperm(arms, generator=generator).tolist()):
            ends = edges.clamp(part / arms, (part + 1) / arms)
            share = torch.zeros_like(mean)
            share[order] = ends.diff() * arms
            policies[arm].append(share / share.sum())
    return policies
