"""Analytic targets with closed-form denoisers: the mixture and the reference numbers of the FKC."""

from __future__ import annotations

import torch
from torch import Tensor

BETA = 2.0
TILTED_MEAN, TILTED_RIGHT = 1.7905, 0.990  # of the mixture under exp(2·x[0])


MEANS, SHARES, STD = torch.tensor([[-1.5, 0.0], [1.5, 0.0]]), torch.tensor([0.8, 0.2]), 0.4


class Mixture:
    """Two Gaussians in the plane, and the exact denoised estimate of x = α·x0 + σ·ε."""

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._posterior_mean(x, torch.ones_like(sigma), sigma)

    def denoise_flow(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._posterior_mean(x, 1 - sigma, sigma)

    def score(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """∇ log q of x = α·x0 + σ·ε."""
        ones = x.new_ones(len(x))
        return (alpha * self._posterior_mean(x, alpha * ones, sigma * ones) - x) / sigma**2

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        means, shares = MEANS.to(x), SHARES.to(x)
        alpha, sigma = alpha[:, None, None], sigma[:, None, None]
        variance = alpha**2 * STD**2 + sigma**2  # (N, 1, 1)
        away = x[:, None] - alpha * means  # (N, 2, 2)
        log_share = shares.log() - away.square().sum(2) / (2 * variance[..., 0])
        of_each = means + alpha * STD**2 / variance * away
        return (log_share.softmax(1)[..., None] * of_each).sum(1)


def first_coordinate(x0_hat: Tensor, sigma: Tensor) -> Tensor:
    return x0_hat[:, 0]


def karras(steps: int, high: float = 20.0, low: float = 0.02, rho: float = 7.0) -> Tensor:
    """Karras' σ from high to low in ``steps`` values, then 0: (steps+1,)."""
    ramp = torch.linspace(0, 1, steps)
    sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([sigmas, torch.zeros(1)])


def start(count: int, seed: int, sigma: float = 20.0) -> tuple[Tensor, torch.Generator]:
    """Noise (count, 2) of that σ, and the generator to go on with."""
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(count, 2, generator=generator), generator


def estimate(values: Tensor, log_weights: Tensor) -> tuple[float, float]:
    """Self-normalised estimate of E[values] and its standard error by the delta method."""
    weights, values = log_weights.softmax(0), values.double()
    mean = (weights * values).sum()
    return float(mean), float((weights * (values - mean)).square().sum().sqrt())
