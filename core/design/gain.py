"""What a query is worth before it is answered: in nats about θ, and in utility of the best prompt.

Sources: mutual information of a multinomial logit under Laplace, arXiv 2512.19057 section 4;
knowledge gradient (expected value of the best after one more answer), Frazier et al. 2009.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..choice import ChoiceModel
from .search import best_utility
from .space import PromptSpace


def information_gain(model: ChoiceModel, features: Tensor) -> float:
    """½ logdet of the precision after over before a pick among features (K, d), at θ̂: nats ≥ 0."""
    p = model.probabilities(features)
    centred = (features.double() - p @ features.double()) * p.sqrt()[:, None]
    inner = model.covariance_product(centred) @ centred.T
    identity = torch.eye(len(inner), dtype=torch.float64)
    return 0.5 * float(torch.linalg.slogdet(identity + (inner + inner.T) / 2).logabsdet)


def expected_gain(space: PromptSpace, model: ChoiceModel, features: Tensor) -> float:
    """Expected rise of max over prompts of θ̂ᵀφ by the answer to features (K, d): utility ≥ 0.

    Each answer i moves θ̂ by one Newton step, (Σ⁻¹ + information)⁻¹ (φ_i − Σ_j p_j φ_j).
    """
    features = features.double()
    p = model.probabilities(features)
    centred = features - p @ features
    roots = centred * p.sqrt()[:, None]
    spread = model.covariance_product(torch.cat([centred, roots]))
    first, second = spread[: len(p)], spread[len(p) :]
    inner = torch.eye(len(p), dtype=torch.float64) + second @ roots.T
    steps = first - torch.linalg.solve((inner + inner.T) / 2, second @ centred.T).T @ second
    after = best_utility(space, model.theta + steps)
    now = best_utility(space, model.theta[None])
    return max(float(p @ after - now), 0.0)
