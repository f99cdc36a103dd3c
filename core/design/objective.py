"""The design objective as a function of the mean policy, its rewards and its duality gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .information import mean_information, score, value_of


@dataclass(frozen=True)
class Objective:
    """f(d) = score(base + Σ_h scatter of d_h·weights_h), to be maximised.

    base (d, d): everything in the total information but the design's own. target: as in `score`.
    """

    features: Sequence[Tensor]
    weights: Sequence[Tensor]
    base: Tensor
    target: Tensor | None

    def __call__(self, means: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        """The objective, and its derivative by each token's chance: one (n_h,) a slot."""
        masses = [d * w for d, w in zip(means, self.weights, strict=True)]
        value, slope = score(self.base + mean_information(masses, self.features), self.target)
        rewards = []
        for rows, mass, weight in zip(self.features, masses, self.weights, strict=True):
            centred = rows - mass @ rows / mass.sum()
            rewards.append(weight * ((centred @ slope) * centred).sum(1))
        return value, rewards

    def value(self, means: Sequence[Tensor]) -> float:
        """The objective alone, at a third of the cost."""
        masses = [d * w for d, w in zip(means, self.weights, strict=True)]
        return value_of(self.base + mean_information(masses, self.features), self.target)


@dataclass
class Solution:
    """The mean policy, its objective, the certified gap to the optimum, and the objectives seen."""

    means: list[Tensor]
    objective: float
    gap: float
    history: list[float] = field(default_factory=list)


def duality_gap(means: Sequence[Tensor], rewards: Sequence[Tensor]) -> float:
    """Σ_h max_a s − ⟨s, d⟩: no mean policy is better than this one by more."""
    return sum(float(s.max() - d @ s) for d, s in zip(means, rewards, strict=True))
