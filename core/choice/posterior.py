"""The algebra beneath `ChoiceModel`: Newton's optimum of grouped rows, and Laplace around it.

A group of rows z has the loss log(1 + Σ exp(θᵀz)). With fewer rows than dimensions everything
happens in the span of the rows, an n-dimensional problem: θ̂ lies in it, and off it the posterior
is the prior's. Source: arXiv 2512.19057, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_NEWTON_STEPS = 100
GRADIENT_TOLERANCE = 1e-9


def row_space(rows: Tensor) -> Tensor | None:
    """Orthonormal columns (d, n) that span the rows (n, d), or None when n ≥ d."""
    return None if len(rows) >= rows.shape[1] else torch.linalg.qr(rows.T).Q


class Answers:
    """Negative log posterior of grouped rows (n, r) with prior N(0, Id/λ)."""

    def __init__(self, rows: Tensor, groups: Tensor, count: int, l2: float) -> None:
        self.rows, self.groups, self.count, self.l2 = rows, groups, count, l2

    def _chances(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Chance of each loser to have won (n,), and the loss."""
        logits = self.rows @ at
        top = logits.new_zeros(self.count).scatter_reduce(0, self.groups, logits, "amax")
        odds = torch.exp(logits - top[self.groups])
        total = torch.exp(-top).index_add(0, self.groups, odds)
        loss = (top + total.log()).sum() + 0.5 * self.l2 * at.square().sum()
        return odds / total[self.groups], loss

    def _hessian(self, p: Tensor) -> Tensor:
        weighted = self.rows * p[:, None]
        means = weighted.new_zeros(self.count, weighted.shape[1])
        means.index_add_(0, self.groups, weighted)
        hessian = self.rows.T @ weighted - means.T @ means
        hessian.diagonal().add_(self.l2)
        return (hessian + hessian.T) / 2

    def newton(self, at: Tensor) -> tuple[Tensor, Tensor, float]:
        """Optimum (r,), Hessian there (r, r) and the norm of the gradient left."""
        p, value = self._chances(at)
        gradient = self.rows.T @ p + self.l2 * at
        hessian = self._hessian(p)
        for _ in range(MAX_NEWTON_STEPS):
            if float(gradient.norm()) < GRADIENT_TOLERANCE:
                break
            factor = torch.linalg.cholesky(hessian)
            step = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
            size, slope = 1.0, float(gradient @ step)
            slack = 1e-13 * (1 + abs(float(value)))
            while size > 1e-8:
                candidate = at - size * step
                p, moved = self._chances(candidate)
                if moved <= value - 1e-4 * size * slope + slack:
                    break
                size /= 2
            else:
                break
            stalled = slope < slack
            at, value = candidate, moved
            gradient = self.rows.T @ p + self.l2 * at
            hessian = self._hessian(p)
            if stalled:
                break
        return at, hessian, float(gradient.norm())


class Posterior:
    """Gaussian with precision λ off the span of ``basis`` and ``factor``·``factor``ᵀ within it."""

    def __init__(self, l2: float, basis: Tensor | None, factor: Tensor) -> None:
        self.l2, self.basis, self.factor = l2, basis, factor

    @classmethod
    def prior(cls, dim: int, l2: float) -> Posterior:
        nothing = torch.zeros(dim, 0, dtype=torch.float64)
        return cls(l2, nothing, torch.zeros(0, 0, dtype=torch.float64))

    def product(self, features: Tensor) -> Tensor:
        """(N, d) times the covariance: (N, d)."""
        if self.basis is None:
            return torch.cholesky_solve(features.T, self.factor).T
        inside = features @ self.basis
        solved = torch.cholesky_solve(inside.T, self.factor).T
        return features / self.l2 + (solved - inside / self.l2) @ self.basis.T

    def precision(self, dim: int) -> Tensor:
        """Dense precision (d, d)."""
        inside = self.factor @ self.factor.T
        if self.basis is None:
            return inside
        inside.diagonal().sub_(self.l2)
        dense = self.basis @ inside @ self.basis.T
        dense.diagonal().add_(self.l2)
        return dense

    def colour(self, noise: Tensor) -> Tensor:
        """White noise (N, d) turned into draws of this covariance, mean 0."""
        if self.basis is None:
            return torch.linalg.solve_triangular(self.factor.T, noise.T, upper=True).T
        inside = noise @ self.basis
        drawn = torch.linalg.solve_triangular(self.factor.T, inside.T, upper=True).T
        return (noise - inside @ self.basis.T) / self.l2**0.5 + drawn @ self.basis.T
