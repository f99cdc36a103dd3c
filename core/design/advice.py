"""Is one more question worth asking? How much of the attainable utility is reached, and when.

The utility attained is that of the prompt that is best at θ̂; attainable is that of the prompt the
person would find best. Both are expectations under the posterior, measured from a random prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..choice import ChoiceModel
from .choosers import thompson_arms
from .gain import expected_gain
from .search import best_utility
from .space import PromptSpace

HORIZON = 128  # questions looked ahead at most
DRAWS = 128


@dataclass(frozen=True)
class Advice:
    """Stopping advice.

    gain: expected rise of the best prompt's utility by one more answer. confidence in [0, 1]: share
    of the attainable utility that the best prompt at θ̂ is expected to reach. further: how many more
    questions to the wanted confidence (0: stop now), or None if more than 128.
    """

    gain: float
    confidence: float
    further: int | None


def stopping_advice(
    space: PromptSpace,
    model: ChoiceModel,
    arms: int = 4,
    wanted: float = 0.9,
    generator: torch.Generator | None = None,
    features: Tensor | None = None,
) -> Advice:
    """Advice for a fitted model; ``features`` (K, d) is the query that would be asked next.

    Future queries are taken to be Thompson arms of the present posterior. Raises ValueError unless
    0 < wanted < 1.
    """
    if not 0 < wanted < 1:
        raise ValueError(f"the wanted confidence must be between 0 and 1, not {wanted}")
    generator = generator or torch.Generator().manual_seed(model.observations)
    if features is None:
        features = space.prompt_features(thompson_arms(space, model, arms, generator))
    gain = expected_gain(space, model, features)
    thetas = model.sample(DRAWS, generator)
    random = sum(float(rows.mean(0) @ model.theta) for rows in space.features)
    attainable = float(best_utility(space, thetas).mean()) - random
    attained = float(best_utility(space, model.theta[None])) - random
    confidence = 1.0 if attainable <= 0 else min(max(attained / attainable, 0.0), 1.0)
    if confidence >= wanted:
        return Advice(gain, confidence, 0)
    further = None
    rows = torch.zeros(0, space.dim, dtype=torch.float64)
    asked, confident = 0, confidence
    for ahead in (1, 2, 4, 8, 16, 32, 64, HORIZON):
        more = [_future_rows(space, model, arms, generator) for _ in range(ahead - asked)]
        rows = torch.cat([rows, *more])
        reached = best_utility(space, _future_estimates(model, rows, generator)).mean()
        share = min((float(reached) - random) / attainable, 1.0)
        if share >= wanted:
            part = (wanted - confident) / max(share - confident, 1e-12)
            further = asked + max(1, round(part * (ahead - asked)))
            break
        asked, confident = ahead, max(share, confident)
    return Advice(gain, confidence, further)


def _future_rows(
    space: PromptSpace, model: ChoiceModel, arms: int, generator: torch.Generator
) -> Tensor:
    """Rows c with Σ c cᵀ the information of one more query: (K, d)."""
    features = space.prompt_features(thompson_arms(space, model, arms, generator))
    p = model.probabilities(features)
    return (features - p @ features) * p.sqrt()[:, None]


def _future_estimates(model: ChoiceModel, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of the estimate after answers with information rowsᵀrows: (DRAWS, d).

    Its covariance is what the posterior loses, ΣCᵀ(Id + CΣCᵀ)⁻¹CΣ: rank is that of the rows.
    """
    spread = model.covariance_product(rows)
    inner = torch.eye(len(rows), dtype=torch.float64) + spread @ rows.T
    factor = torch.linalg.cholesky((inner + inner.T) / 2)
    noise = torch.randn(DRAWS, len(rows), generator=generator, dtype=torch.float64)
    white = torch.linalg.solve_triangular(factor.T, noise.T, upper=True)
    return model.theta + white.T @ spread
