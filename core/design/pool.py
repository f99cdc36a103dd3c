"""The K most informative of N candidates: greedy with rank-one updates, then exchange steps.

A set S of k candidates shown together is a design of k deterministic policies, whose information
at θ = 0 is (1/k) Σ_S (φ − φ̄)(φ − φ̄)ᵀ, exactly. Source: arXiv 2512.19057, section 4, for a pool.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from .information import criterion_matrix

MAX_EXCHANGES = 100
STARTS, FEWEST_STARTS = 1000, 3  # first candidates tried: about 1,000/N of them


def select_pool(
    features: Tensor, k: int, precision: Tensor | None = None, criterion: str = "D"
) -> list[int]:
    """Indices (k,) of the candidates that, shown together, maximise the criterion.

    features: (N, d). precision: what is known already (d, d), positive definite; the identity by
    default. criterion: D, A, or V (V of the differences among the candidates). Greedy, then single
    exchanges until none helps, from several first candidates. Costs N·d² once, then N·d·k a step.
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
    first = pool.gains([])[0].argsort(descending=True)[
        : max(FEWEST_STARTS, STARTS // len(features))
    ]
    return max((pool.climb(int(start)) for start in first), key=lambda found: found[1])[0]


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
        self.target_norms = None if self.targeted is None else (self.targeted * rows).sum(1)
        self.known: dict[int, tuple[Tensor, Tensor | None]] = {}

    def columns(self, chosen: list[int]) -> tuple[Tensor, Tensor | None]:
        """Inner products of all rows with the chosen ones (N, m), plain and through the target."""
        for i in set(chosen) - set(self.known):
            through = None if self.targeted is None else self.targeted @ self.rows[i]
            self.known[i] = (self.rows @ self.rows[i], through)
        plain = torch.stack([self.known[i][0] for i in chosen], 1)
        if self.targeted is None:
            return plain, None
        return plain, torch.stack([cast(Tensor, self.known[i][1]) for i in chosen], 1)

    def gains(self, chosen: list[int]) -> tuple[Tensor, float]:
        """What each candidate would add to the chosen set (N,), and the set's own score.

        Adding w to m rows with mean w̄ adds c·yyᵀ to the information, y = w − w̄ and
        c = m/((m + 1)·k): the matrix determinant lemma and Sherman–Morrison score it. All of it is
        made of inner products with the chosen rows.
        """
        m = len(chosen)
        if m == 0:
            return (self.norms if self.target_norms is None else self.target_norms).clone(), 0.0
        plain, through = self.columns(chosen)
        to_mean, to_scatter = self._centred(plain)
        along = to_scatter - to_scatter[chosen].mean(0)  # information = scatterᵀ scatter
        inner = torch.eye(m, dtype=torch.float64) + self._centred(to_scatter[chosen].T)[1].T
        factor = torch.linalg.cholesky((inner + inner.T) / 2)
        solved = torch.cholesky_solve(along.T, factor).T
        square = self.norms - 2 * to_mean + to_mean[chosen].mean()
        leverage = (square - (along * solved).sum(1)).clamp(min=0)  # yᵀ M⁻¹ y
        weight = m / ((m + 1) * self.k)
        if through is None or self.target_norms is None:
            gains, score = torch.log1p(weight * leverage), 2 * factor.diagonal().log().sum()
        else:
            # M⁻¹y = w − [mean, scatterᵀ]·[1, solved]
            parts = torch.cat([torch.ones_like(solved[:, :1]), solved], 1)
            onto = torch.cat([part.reshape(-1, 1) if part.ndim == 1 else part
                              for part in self._centred(through)], 1)  # fmt: skip
            mean, scatter = self._centred(onto[chosen].T)
            among = torch.cat([mean[:, None], scatter], 1)
            spread = self.target_norms - 2 * (onto * parts).sum(1) + (parts @ among * parts).sum(1)
            gains = weight * spread.clamp(min=0) / (1 + weight * leverage)
            score = torch.cholesky_solve(among[1:, 1:], factor).trace()
        gains[chosen] = -torch.inf
        return gains, float(score)

    def _centred(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Columns (n, m) for m rows turned into those for their mean and for their scatter."""
        mean = columns.mean(1)
        return mean, (columns - mean[:, None]) / self.k**0.5

    def climb(self, first: int) -> tuple[list[int], float]:
        """The set grown and exchanged from a first candidate, and its score."""
        chosen = [first]
        while len(chosen) < self.k:
            chosen.append(int(self.gains(chosen)[0].argmax()))
        for _ in range(MAX_EXCHANGES):
            if self.k < 2 or not self.exchange(chosen):
                break
        return chosen, self.gains(chosen)[1]

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
