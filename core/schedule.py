"""Noise schedules: σ, α, discrete timesteps and ELBO weights.

Two notations meet here. DDPM's, for training: x_t = √ᾱ_t·x0 + √(1−ᾱ_t)·ε. And the sampler's,
x = α·x0 + σ·ε, with α = 1 for ε- and v-prediction models and α = 1−σ for flow models. Divided by
√(α²+σ²) the second is the first, with ᾱ = α²/(α²+σ²): what learns in DDPM's notation learns on
either family (see `NoiseSchedule`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Unit = Literal["fraction", "timestep", "sigma"]  # of EPAPA's boundary


def elbo_weights(alphas_cumprod: Tensor) -> Tensor:
    """ELBO weight of each discrete timestep, c_t = (1−α_t) / (α_t (1−ᾱ_{t−1})), with c_0 = 0.

    ``alphas_cumprod``: ᾱ, (T,), decreasing in (0, 1). Returns (T,) of the same dtype. In signal to
    noise, c_t = SNR_{t−1}/SNR_t − 1, so that any table of σ has its weights.
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


def alphas_cumprod_of(sigmas: Tensor, flow: bool = False) -> Tensor:
    """ᾱ_t = α²/(α²+σ²) from a model's own discrete σ table, rising: (T,) float64.

    α = 1, or 1−σ for a flow model.
    """
    exact = sigmas.double()
    signal = (1 - exact) ** 2 if flow else torch.ones_like(exact)
    return signal / (signal + exact**2)


def boundary_sigma(alphas_cumprod: Tensor, timestep: int) -> float:
    """The σ of EPAPA's boundary: the adapter is on for σ ≥ this value; 0 for timestep 0."""
    if not 0 <= timestep < alphas_cumprod.numel():
        raise ValueError(f"boundary timestep {timestep} is outside 0..{alphas_cumprod.numel() - 1}")
    return 0.0 if timestep == 0 else float(sigmas_of(alphas_cumprod)[timestep])


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A model's own discrete table of σ and how it mixes: x = α·x0 + σ·ε.

    sigmas: (T,), rising. flow: α = 1−σ (SD3, Flux, Lumina2, Qwen-Image, Wan), else α = 1. A flow's
    σ = 1 is left out of the table: there x holds nothing of x0, and the ELBO's weight is infinite
    on an error of zero. Raises ValueError for a table that does not rise from above 0.
    """

    sigmas: Tensor
    flow: bool = False

    def __post_init__(self) -> None:
        table = self.sigmas.detach().double().cpu()
        if self.flow:
            table = table[table < 1]
        rising = table.ndim == 1 and len(table) > 1 and bool((table.diff() > 0).all())
        if not rising or not float(table[0]) > 0 or not bool(torch.isfinite(table).all()):
            raise ValueError("sigmas must be a table of at least two values that rise from above 0")
        object.__setattr__(self, "sigmas", table)

    def __len__(self) -> int:
        return len(self.sigmas)

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t of the same mixtures in DDPM's notation: (T,) float64."""
        return alphas_cumprod_of(self.sigmas, self.flow)

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """α, σ and √(α²+σ²) of ``timesteps`` (n,), each (n,) float64 on the CPU.

        x = √(α²+σ²)·x_t takes DDPM's notation to the sampler's, and ε̂ = (x − α·x̂0)/σ.
        """
        sigma = self.sigmas[timesteps.cpu()]
        alpha = 1 - sigma if self.flow else torch.ones_like(sigma)
        return alpha, sigma, (alpha**2 + sigma**2).sqrt()

    def boundary(self, at: float, unit: Unit = "fraction") -> tuple[int, float]:
        """EPAPA's boundary as (timestep t0, σ gate): learn t ≥ t0, sample adapted at σ ≥ gate.

        at: a timestep 0…T−1, a σ of the model's own, or the fraction of the timesteps, at the clean
        end, that is left to the base model, 0…1 exclusive. A gate of 0 lets the adapter work
        everywhere. Raises ValueError where nothing would be left to learn.
        """
        steps = len(self)
        if unit == "timestep":
            timestep = int(at)
        elif unit == "fraction":
            timestep = int(at * steps) if at < 1 else steps
        elif unit == "sigma":
            timestep = int(torch.searchsorted(self.sigmas, torch.tensor(at, dtype=torch.float64)))
        else:
            raise ValueError(f"unit must be 'timestep', 'sigma' or 'fraction', not {unit!r}")
        if not (at >= 0 and timestep < steps):
            raise ValueError(f"boundary {at:g} ({unit}) leaves none of the {steps} timesteps")
        return timestep, 0.0 if timestep == 0 else float(self.sigmas[timestep])


def sample_timesteps(
    weights: Tensor,
    count: int,
    batch: int,
    generator: torch.Generator,
    first: int = 0,
    proposal: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws timesteps in proportion to ``proposal``, stratified, for an unbiased Σ_t w_t·f(t).

    ``weights``: (T,), non-negative. ``proposal``: (T,), positive where weights are; default the
    weights themselves. Only t ≥ ``first`` with positive weight take part; when ``count`` covers all
    of them, each appears once with importance 1 (the exact sum).
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
    mass = (weights if proposal is None else proposal)[support].double()
    if not bool((torch.isfinite(mass) & (mass > 0)).all()):
        raise ValueError("the proposal must be positive wherever a timestep's weight is")
    total = mass.sum()
    edges = torch.cumsum(mass, 0) / total
    strata = torch.arange(count, dtype=torch.float64)
    jitter = torch.rand(batch, count, generator=generator, dtype=torch.float64)
    position = torch.searchsorted(edges, (strata + jitter) / count).clamp(max=support.numel() - 1)
    importance = total / (count * mass[position])
    return support[position], importance.float()
