"""A label budget spent well: Algorithm 1 of the budget-constrained Feynman–Kac draft, with replay.

Cold start: k unguided samples are rated. Then per step the particle sampler follows the reward
learnt from all ratings so far; k−⌊εk⌋ of the best particles and ⌊εk⌋ random others are rated, ε
falling from 0.8 to 0.1. Where the budget stands is a pure function of the answers on record, so a
profile can be taken up again at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .fkc import Particles
from .profile.answers import labels_in
from .reward import Answered, RewardModel

Selection = Literal["mean", "ucb", "weight"]


@dataclass(frozen=True)
class BudgetState:
    """Where a budget stands. ``asked``: queries answered, skips included; ``step``: without them.

    ``spent`` and ``left`` count labels, ``epsilon`` is the share of random images in the next query
    of ``count`` images; ``cold`` means that this one is unguided.
    """

    spent: int
    left: int
    asked: int
    step: int
    epsilon: float
    count: int
    cold: bool


@dataclass(frozen=True)
class LabelBudget:
    """``total`` labels, ``per_query`` (k) of them a query.

    selection of the best: by the reward's "mean", its upper confidence bound "ucb" (mean +
    ``confidence``·std), or the particles' log-"weight", the draft's own choice. ``explore``: ε at
    the start and at the end. Raises ValueError for impossible settings.
    """

    total: int
    per_query: int = 4
    selection: Selection = "mean"
    confidence: float = 1.0
    explore: tuple[float, float] = (0.8, 0.1)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.total < 1 or self.per_query < 1:
            raise ValueError("a label budget needs at least one label and one image a query")
        if self.selection not in ("mean", "ucb", "weight"):
            raise ValueError(f"selection must be 'mean', 'ucb' or 'weight', not {self.selection!r}")
        if not all(0 <= share <= 1 for share in self.explore):
            raise ValueError(f"explore must be two shares from 0 to 1, not {self.explore}")

    @property
    def steps(self) -> int:
        """Queries that the whole budget makes."""
        return -(-self.total // self.per_query)

    def state(self, answers: Sequence[Answered]) -> BudgetState:
        """Where the budget stands after ``answers``: (latents (K, …), answer), skips included."""
        labels = [labels_in(dict(answer), len(latents)) for latents, answer in answers]
        spent, step = sum(labels), sum(number > 0 for number in labels)
        left = max(0, self.total - spent)
        start, end = self.explore
        epsilon = start + (end - start) * min(1.0, step / self.steps)
        count = min(self.per_query, left)
        return BudgetState(spent, left, len(labels), step, epsilon, count, step == 0)

    def generator(self, asked: int) -> torch.Generator:
        """The randomness of the query after ``asked`` others: the same however often resumed."""
        seeds = torch.Generator().manual_seed(self.seed)
        numbers = torch.randint(0, 2**62, (asked + 1,), generator=seeds)
        return torch.Generator().manual_seed(int(numbers[asked]))

    def choose(
        self,
        state: BudgetState,
        particles: Particles,
        reward: RewardModel | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Indices (count,) of the particles to have rated: the best first, then random others.

        Without a reward that is ready, all of them are random. Killed particles are never chosen.
        """
        alive = torch.nonzero(torch.isfinite(particles.log_weights)).flatten()
        shuffled = alive[torch.randperm(len(alive), generator=generator)]
        if state.cold or reward is None or not reward.ready:
            return shuffled[: state.count]
        best = state.count - int(state.epsilon * state.count)
        worth = self._worth(particles, reward)[shuffled]
        ranked = shuffled[torch.argsort(worth, descending=True, stable=True)]
        others = ranked[best:][torch.randperm(max(0, len(ranked) - best), generator=generator)]
        return torch.cat([ranked[:best], others])[: state.count]

    def _worth(self, particles: Particles, reward: RewardModel) -> Tensor:
        if self.selection == "weight":
            return particles.log_weights
        with torch.no_grad():
            mean, std = reward.predict(particles.x)
        worth = mean if self.selection == "mean" else mean + self.confidence * std
        return worth.double().cpu()


def spend_budget(
    budget: LabelBudget,
    answers: list[Answered],
    *,
    sample: Callable[[RewardModel | None, torch.Generator], Particles],
    ask: Callable[[Tensor], Mapping[str, Any] | None],
    reward: RewardModel,
    learnt: Callable[[list[Answered]], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> RewardModel:
    """Algorithm 1, from wherever ``answers`` leaves off; it is appended to. Returns the reward.

    sample(reward or None, generator) → particles, unguided for None. ask(latents (k, …)) → answer,
    or None to leave off. ``reward`` is refitted before every query and at the end, on all answers
    (replay). ``learnt`` is called with all answers after each. A skip costs no label.
    """
    while (state := budget.state(answers)).left > 0:
        if should_stop is not None and should_stop():
            break
        generator = budget.generator(state.asked)
        reward.fit(answers, generator=generator)
        guide = reward if reward.ready and not state.cold else None
        particles = sample(guide, generator)
        shown = particles.x[budget.choose(state, particles, guide, generator)]
        answer = ask(shown)
        if answer is None:
            break
        answers.append((shown, answer))
        if learnt is not None:
            learnt(answers)
        if progress is not None:
            progress(min(budget.total, budget.state(answers).spent), budget.total)
    return reward.fit(answers, generator=budget.generator(len(answers)))
