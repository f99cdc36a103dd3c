"""Fisher information of K policies over a prompt space, and the criteria that score it.

The exact information at θ = 0 is I = (1/K²)[(K−1) Σ_q E_q − Σ_{q≠q'} μ_q μ_q'ᵀ]; what is optimised
is the concave surrogate Ĩ = (1/K) Σ_q E_q − μ̄ μ̄ᵀ, with (1 − 1/K)·Ĩ ⪯ I ⪯ Ĩ, a function of the
mean policy alone: the covariance of a token drawn from it. Source: arXiv 2512.19057, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .space import PromptSpace

CRITERIA = ("V", "A", "D")
Policies = Sequence[Sequence[Tensor]]


def information(
    policies: Policies, features: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> Tensor:
    """The concave surrogate Ĩ of policies[arm][slot] (n_h,), summed over the slots: (d, d).

    features: (n_h, d) a slot. weights: what a comparison with each token is worth (n_h,), 1 when
    θ = 0; see `weighing.comparison_weights`.
    """
    means = [torch.stack([p[h].double() for p in policies]).mean(0) for h in range(len(features))]
    if weights is not None:
        means = [mean * weight for mean, weight in zip(means, weights, strict=True)]
    return mean_information(means, features)


def mean_information(means: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
    """Σ_h of the scatter Σ_a m φφᵀ − bbᵀ/Σm, b = Σ_a m φ, of masses m (n_h,): (d, d)."""
    total = torch.zeros(features[0].shape[1], features[0].shape[1], dtype=torch.float64)
    for mass, rows in zip(means, features, strict=True):
        rows = rows.double()
        weighted = rows * mass[:, None]
        centre = weighted.sum(0)
        total += rows.T @ weighted - torch.outer(centre, centre) / mass.sum().clamp(min=1e-300)
    return (total + total.T) / 2


def exact_information(policies: Policies, features: Sequence[Tensor]) -> Tensor:
    """The exact expected information I of one pick at θ = 0, summed over the slots: (d, d)."""
    arms = len(policies)
    within = torch.zeros(features[0].shape[1], features[0].shape[1], dtype=torch.float64)
    for policy in policies:
        for p, rows in zip(policy, features, strict=True):
            within += mean_information([p.double()], [rows])
    return information(policies, features) - within / arms**2


def difference_matrix(features: Sequence[Tensor]) -> Tensor:
    """V = Σ over lists Σ_{i,j} (φ_i − φ_j)(φ_i − φ_j)ᵀ, the first list excepted if there are more.

    Equals Σ_h 2 n_h X_hᵀX_h − 2 S_h S_hᵀ: (d, d).
    """
    lists = list(features[1:]) or list(features)
    total = torch.zeros(lists[0].shape[1], lists[0].shape[1], dtype=torch.float64)
    for rows in lists:
        rows = rows.double()
        centred = rows - rows.mean(0)
        total += 2 * len(rows) * centred.T @ centred
    return (total + total.T) / 2


def criterion_matrix(criterion: str, features: Sequence[Tensor]) -> Tensor | None:
    """The V of −tr(V·total⁻¹): difference matrix for V, identity for A, None for D."""
    if criterion not in CRITERIA:
        raise ValueError(f"criterion {criterion!r} is not one of {', '.join(CRITERIA)}")
    if criterion == "V":
        return difference_matrix(features)
    if criterion == "A":
        return torch.eye(features[0].shape[1], dtype=torch.float64)
    return None


def regularised(information: Tensor, horizon: int, l2: float, episodes: int) -> Tensor:
    """Total information: information + λ/(H·T)·Id."""
    if not l2 > 0 or episodes < 1:
        raise ValueError(f"l2 must be positive and episodes at least 1, not {l2} and {episodes}")
    total = information.double().clone()
    total.diagonal().add_(l2 / (horizon * episodes))
    return total


def objective_value(
    information: Tensor,
    space: PromptSpace,
    criterion: str = "V",
    l2: float = 1.0,
    episodes: int = 50,
) -> float:
    """The score to be maximised: −tr(V·total⁻¹) for V and A, logdet(total) for D.

    information: (d, d), as `information` returns it; λ/(H·T)·Id is added here.
    """
    total = regularised(information, space.horizon, l2, episodes)
    return value_of(total, criterion_matrix(criterion, space.features))


def score(total: Tensor, target: Tensor | None) -> tuple[float, Tensor]:
    """Value of a total information (d, d), and its gradient with respect to it (d, d)."""
    factor = torch.linalg.cholesky(total)
    if target is None:
        return 2 * float(factor.diagonal().log().sum()), torch.cholesky_inverse(factor)
    half = torch.cholesky_solve(target, factor)
    return -float(half.trace()), torch.cholesky_solve(half.T, factor)


def value_of(total: Tensor, target: Tensor | None) -> float:
    """The value of `score` alone."""
    factor = torch.linalg.cholesky(total)
    if target is None:
        return 2 * float(factor.diagonal().log().sum())
    return -float(torch.cholesky_solve(target, factor).trace())
