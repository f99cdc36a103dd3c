"""One step of the model's own sampler as a Gaussian N(mean, std²), and the tilt along the way.

Noisy latents are x = α·x0 + σ·ε: α = 1 for eps- and v-prediction models, α = 1−σ for flow models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Alpha = Callable[[Tensor], Tensor] | Tensor | None
BetaSchedule = Literal["log", "linear", "explained", "early"] | Callable[[Tensor], Tensor]
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor]]  # fmt: skip  # noqa: E501


def ancestral_kernel(
    x: Tensor,
    x0_hat: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    alpha: Tensor | None = None,
    alpha_next: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Posterior step of DDPM (η = 1): mean (N, …) and std (scalar) of x at ``sigma_next``.

    Without alphas: ε- and v-models, bit for bit k-diffusion's ancestral Euler step. With them: the
    same kernel of x/α, σ/α, written in x, so that α = 0 (pure noise) is allowed at the start.
    """
    if alpha is None or alpha_next is None:
        up = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
        up = torch.minimum(sigma_next, up)
        down = (sigma_next**2 - up**2) ** 0.5
        if down == 0:
            return x0_hat, torch.zeros_like(up)
        return x + (x - x0_hat) / sigma * (down - sigma), up
    kept = (sigma_next * alpha / (alpha_next * sigma)) ** 2  # of the noise's variance
    mean = alpha_next * (1 - kept) * x0_hat + sigma_next**2 * alpha / (alpha_next * sigma**2) * x
    return mean, sigma_next * (1 - kept).clamp(min=0).sqrt()


def rectified_kernel(
    x: Tensor,
    x0_hat: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    alpha: Tensor | None = None,
    alpha_next: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The ancestral Euler step (η = 1) that ComfyUI takes for flow models, for α = 1−σ only.

    It steps down to σ' = σ_next²/σ, then renoises: another kernel than `ancestral_kernel` with the
    same marginals in the limit.
    """
    if sigma_next == 0:
        return x0_hat, torch.zeros_like(sigma_next)
    down = sigma_next * (1 + (sigma_next / sigma - 1))
    clean, clean_down = 1 - sigma_next, 1 - down
    up = (sigma_next**2 - down**2 * clean**2 / clean_down**2) ** 0.5
    ratio = down / sigma
    return (clean / clean_down) * (ratio * x + (1 - ratio) * x0_hat), up


def alphas_of(alpha: Alpha, sigmas: Tensor) -> Tensor | None:
    """α at each of ``sigmas`` (steps+1,), or None for a model with α = 1 throughout.

    Raises ValueError for another shape, for α outside [0, 1], and for α = 0 after the start.
    """
    if alpha is None:
        return None
    values = alpha(sigmas) if callable(alpha) else alpha
    values = torch.as_tensor(values).to(sigmas)
    if values.shape != sigmas.shape:
        raise ValueError(
            f"alpha must give one value a sigma, {tuple(sigmas.shape)}, not {tuple(values.shape)}"
        )
    if not bool(((values >= 0) & (values <= 1)).all()) or not bool((values[1:] > 0).all()):
        raise ValueError("alpha must lie in [0, 1], and may be 0 at the first sigma only")
    return None if bool((values == 1).all()) else values


def beta_fractions(schedule: BetaSchedule, sigmas: Tensor, alphas: Tensor | None = None) -> Tensor:
    """β/β_max at each of ``sigmas`` (steps+1,), float64 on the CPU; the last is always 1.

    "log": rises evenly in log σ from 0 at the first sigma to 1 at the last positive one. "linear":
    evenly in σ. "explained": 1/(1+(σ/α)²), the share of a unit-variance latent's variance that the
    denoised estimate explains. "early": 1/(1+(σ/6α)²), nearly whole while the large forms are still
    open, which is where images are steered best. Or a function of the sigmas. Raises ValueError for
    any other.
    """
    exact = sigmas.detach().cpu().double()
    noise = exact if alphas is None else exact / alphas.detach().cpu().double()
    positive = exact[exact > 0]
    if callable(schedule):
        fractions = torch.as_tensor(schedule(sigmas)).detach().cpu().double().clone()
    elif schedule == "log":
        logs = exact.clamp(min=float(positive.min()) if len(positive) else 1.0).log()
        fractions = (logs[0] - logs) / (logs[0] - logs[-1]).clamp(min=1e-12)
    elif schedule == "linear":
        fractions = 1 - exact / exact[0].clamp(min=1e-12)
    elif schedule in ("explained", "early"):
        fractions = 1 / (1 + (noise / (1 if schedule == "explained" else 6)) ** 2)
    else:
        raise ValueError(
            f"unknown beta schedule {schedule!r}: use 'log', 'linear', 'explained' or 'early'"
        )
    if fractions.shape != exact.shape or not bool(torch.isfinite(fractions).all()):
        raise ValueError("a beta schedule must give one finite value a sigma")
    fractions[-1] = 1.0
    return fractions
