"""Noise schedules: σ, α, discrete timesteps and ELBO weights.

Two notations meet here. DDPM's, for training: x_t = √ᾱ_t·x0 + √(1−ᾱ_t)·ε. And the sampler's
variance-exploding one: x = x0 + σ·ε with σ_t = √((1−ᾱ_t)/ᾱ_t), so x_t = √ᾱ_t·x.
"""

from __future__ import annotations

import torch
from torch import Tensor


def elbo_weights(alphas_cumprod: Tensor) -> Tensor:
    """ELBO weight of each discrete timestep, c_t = (1−α_t) / (α_t (1−ᾱ_{t−1})), with c_0 = 0.

    ``alphas_cumprod``: ᾱ, (T,), decreasing in (0, 1). Returns (T,) of the same dtype.
    Source: arXiv 2607.00486, the weight of its likelihood bound; α_t is DDPM's per-step α.
    """
    if alphas_cumprod.ndim != 1 or alphas_cumprod.numel() < 2:
        raise ValueError("alphas_cumprod must be a vector of at least two timesteps")
    exact = alphas_cumprod.double()
    previous, alpha = exact[:-1], exact[1:] / exact[:-1]
    weights = torch.zeros_like(exact)
    weights[1:] = (1 - alpha) / (alpha * (1 - previous))
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError("alphas_cumprod must decrease from below 1 to above 0")
    return weights.to(alphas_cumprod.dtype)


def sigmas_of(alphas_cumprod: Tensor) -> Tensor:
    """σ_t = √((1−ᾱ_t)/ᾱ_t) of each discrete timestep: (T,)."""
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def alphas_cumprod_of(sigmas: Tensor) -> Tensor:
    """ᾱ_t = 1/(1+σ_t²) from a model's own discrete σ table, rising: (T,)."""
    return 1 / (1 + sigmas.double() ** 2)


def boundary_sigma(alphas_cumprod: Tensor, timestep: int) -> float:
    """The σ of EPAPA's boundary: the adapter is on for σ ≥ this value; 0 for timestep 0."""
    if not 0 <= timestep < alphas_cumprod.numel():
        raise ValueError(f"boundary timestep {timestep} is outside 0..{alphas_cumprod.numel() - 1}")
    return 0.0 if timestep == 0 else float(sigmas_of(alphas_cumprod)[timestep])


def sample_timesteps(
    weights: Tensor, count: int, batch: int, generator: torch.Generator, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Draws timesteps in proportion to ``weights``, stratified, for an unbiased Σ_t w_t·f(t).

    ``weights``: (T,), non-negative. Only t ≥ ``first`` with positive weight take part; when
    ``count`` covers all of them, each appears once with importance 1 (the exact sum).
    Returns timesteps (batch, count) int64, rising along the row, and importance (batch, count),
    such that E[Σ_m importance·w_t·f(t)] = Σ_t w_t·f(t).
    """
    support = torch.nonzero(weights[first:] > 0).flatten() + first
    if count < 1 or first < 0 or support.numel() == 0:
        raise ValueError(
            "no timestep to draw: count must be ≥ 1, first ≥ 0 and some weight from there positive"
        )
    if count >= support.numel():
        row = support.expand(batch, -1)
        return row.clone(), torch.ones(row.shape, dtype=torch.float32)
    mass = weights[support].double()
    total = mass.sum()
    edges = torch.cumsum(mass, 0) / total
    strata = torch.arange(count, dtype=torch.float64)
    jitter = torch.rand(batch, count, generator=generator, dtype=torch.float64)
    position = torch.searchsorted(edges, (strata + jitter) / count).clamp(max=support.numel() - 1)
    timesteps = support[position]
    importance = total / (count * weights[timesteps].double())
    return timesteps, importance.float()
