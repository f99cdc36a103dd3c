"""Where the steps of `sample_fkc` start and end, its noise, and the check of its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .kernels import BetaSchedule, beta_fractions

Weights = Literal["twisted", "continuous", "seed"]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]


class Step:
    """σ, α and β where a step starts and where it ends; α = 1 where the model has none."""

    def __init__(self, sigmas: Tensor, alphas: Tensor | None, betas: list[float], i: int) -> None:
        self.sigma, self.sigma_next = sigmas[i], sigmas[i + 1]
        self.beta, self.beta_next = betas[i], betas[i + 1]
        self._alphas = None if alphas is None else (alphas[i], alphas[i + 1])
        one = torch.ones_like(self.sigma)
        self.clean, self.clean_next = self._alphas or (one, one)

    @property
    def ends(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """What a kernel takes."""
        return self.sigma, self.sigma_next, *(self._alphas or (None, None))

    @property
    def diffusion(self) -> Tensor:
        """g² dt of x/α = x0 + (σ/α)·ε."""
        return (self.sigma / self.clean) ** 2 - (self.sigma_next / self.clean_next) ** 2


def betas_of(
    schedule: BetaSchedule,
    sigmas: Tensor,
    alphas: Tensor | None,
    weights: Weights,
    beta_max: float,
) -> list[float]:
    """β at each sigma. Prop. D.6 has no x/α at pure noise, so there it starts one step later."""
    late = int(weights != "twisted" and alphas is not None and float(alphas[0]) == 0)
    clean = None if alphas is None else alphas[late:]
    fractions = [0.0] * late + beta_fractions(schedule, sigmas[late:], clean).tolist()
    return [beta_max * fraction for fraction in fractions]


def seeded(extra_args: Mapping[str, Any] | None) -> torch.Generator:
    return torch.Generator().manual_seed(int((extra_args or {}).get("seed") or 0))


def noise_like(x: Tensor, generator: torch.Generator) -> NoiseSampler:
    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        return noise.to(x.device)

    return draw


def check_arguments(
    x: Tensor,
    sigmas: Tensor,
    weights: str,
    beta_max: float,
    ess_threshold: float,
    chunk: int | None,
) -> None:
    if weights not in ("twisted", "continuous", "seed"):
        raise ValueError(f"weights must be 'twisted', 'continuous' or 'seed', not {weights!r}")
    if x.ndim < 2 or len(x) < 1:
        raise ValueError(f"x must be at least one particle, (N, …), not {tuple(x.shape)}")
    falling = sigmas.ndim == 1 and len(sigmas) > 1 and bool((sigmas[1:] < sigmas[:-1]).all())
    if not falling or not bool(torch.isfinite(sigmas).all()) or float(sigmas[-1]) < 0:
        raise ValueError("sigmas must be at least two numbers that fall, the last one 0 or more")
    if not math.isfinite(beta_max):
        raise ValueError(f"beta_max must be a finite number, not {beta_max}")
    if not 0 <= ess_threshold <= 1:
        raise ValueError(f"ess_threshold is a share of the particles, 0 to 1, not {ess_threshold}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 particle, not {chunk}")
