"""The K most informative of N candidates: greedy with rank-one updates, then exchange steps.

A set S of k candidates shown together is a design of k deterministic policies, whose information
at θ = 0 is (1/k) Σ_S (φ − φ̄)(φ − φ̄)ᵀ, exactly. Source: arXiv 2512.19057, section 4, for a pool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .information import criterion_matrix

MAX_EXCHANGES = 100


def select_pool(
    features: Tensor, k: int, precision: Tensor | None = None, criterion: str = "D"
) -> list[int]:
    """Indices (k,) of the candidates that, shown together, maximise the criterion.

    features: (N, d). precision: what is known already (d, d), positive definite; the identity by
    default. criterion: D, A, or V (V of the differences among the candidates). Greedy, then single
    exchanges until none helps. Costs N·d² once and N·d·k a step; never N².
    Raises ValueError when k is not between 1 and N or shapes do not fit.
    """
    if features.ndim != 2 or not 1 <= k <= len(features):
        raise ValueError(
            f"cannot choose {k} of candidates {tuple(features.shape)}: give features (N, d) and k "
            "from 1 to N"
        )
    features = features.detach().to("cpu", torch.float64)
    if not torch.isfinite(features).all():
        raise ValueError("the candidates' features must be finite")
    pool = _Pool(features, k, _checked(precision, features.shape[1]), criterion)
    chosen: list[int] = []
    for _ in range(k):
        gains, _ = pool.gains(chosen)
        chosen.append(int(gains.argmax()))
    for _ in range(MAX_EXCHANGES):
        if k < 2 or not pool.exchange(chosen):
            break
    return chosen


def _checked(precision: Tensor | None, dim: int) -> Tensor | None:
    if precision is None:
        return None
    if precision.shape != (dim, dim):
        raise ValueError(f"precision must be ({dim}, {dim}), not {tuple(precision.shape)}")
    return precision.detach().to("cpu", torch.float64)


class _Pool:
    """Scores of growing sets, in the coordinates in which the known precision is the identity."""

    def __init__(self, features: Tensor, k: int, precision: Tensor | None, criterion: str) -> None:
        target = criterion_matrix(criterion, [features])
        rows = features - features.mean(0)
        if precision is not None:
            factor = torch.linalg.cholesky(precision)
            rows = torch.linalg.solve_triangular(factor, rows.T, upper=False).T.contiguous()
            if target is not None:
                half = torch.linalg.solve_triangular(factor, target, upper=False)
                target = torch.linalg.solve_triangular(factor, half.T, upper=False)
        self.rows, self.k = rows, k
        self.norms = rows.square().sum(1)
        self.targeted = None if target is None else rows @ target
        self.target = target
        if self.targeted is not None:
            self.target_norms = (self.targeted * rows).sum(1)

    def gains(self, chosen: list[int]) -> tuple[Tensor, float]:
        """What each candidate would add to the chosen set (N,), and the set's own score.

        Adding w to m rows with mean w̄ adds c·yyᵀ to the information, y = w − w̄ and
        c = m/((m + 1)·k): the matrix determinant lemma and Sherman–Morrison score it.
        """
        m = len(chosen)
        if m == 0:
            far = self.norms.clone() if self.target is None else self.target_norms.clone()
            return far, 0.0
        inside = self.rows[chosen]
        mean = inside.mean(0)
        scatter = (inside - mean) / self.k**0.5  # information = scatterᵀ scatter
        inner = torch.linalg.cholesky(torch.eye(m, dtype=torch.float64) + scatter @ scatter.T)
        along = self.rows @ scatter.T - scatter @ mean
        solved = torch.cholesky_solve(along.T, inner).T
        square = self.norms - 2 * self.rows @ mean + mean @ mean
        leverage = (square - (along * solved).sum(1)).clamp(min=0)  # yᵀ M⁻¹ y
        weight = m / ((m + 1) * self.k)
        if self.target is None or self.targeted is None:
            gains, score = torch.log1p(weight * leverage), 2 * inner.diagonal().log().sum()
        else:
            # M⁻¹y = w − [mean, scatterᵀ]·[1, solved]
            taken = torch.cat([mean[None], scatter])
            parts = torch.cat([torch.ones_like(solved[:, :1]), solved], 1)
            onto = self.targeted @ taken.T
            among = taken @ self.target @ taken.T
            spread = self.target_norms - 2 * (onto * parts).sum(1) + (parts @ among * parts).sum(1)
            gains = weight * spread.clamp(min=0) / (1 + weight * leverage)
            score = torch.cholesky_solve(among[1:, 1:], inner).trace()
        gains[chosen] = -torch.inf
        return gains, float(score)

    def exchange(self, chosen: list[int]) -> bool:
        """Replace the one candidate whose exchange helps most; whether any did."""
        _, now = self.gains(chosen)
        best, swap = now + 1e-12 * (1 + abs(now)), None
        for place in range(len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            gains, score = self.gains(rest)
            gains[chosen] = -torch.inf
            top = int(gains.argmax())
            if score + float(gains[top]) > best:
                best, swap = score + float(gains[top]), (place, top)
        if swap is None:
            return False
        chosen[swap[0]] = swap[1]
        return True
