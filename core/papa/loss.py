"""PAPA's objective, arXiv 2607.00486: L_p, L_PAE and L_QPDE on a batch of rated samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..schedule import elbo_weights
from .config import PapaConfig

PARTS = ("L_p", "L_PAE", "L_QPDE")  # of liked samples, of disliked ones, towards the base
Predictor = Callable[[Tensor, Tensor], Tensor]
IndexedPredictor = Callable[[Tensor, Tensor, Tensor], Tensor]


def diffuse(x0: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = √ᾱ_t·x0 + √(1−ᾱ_t)·ε for x0 (B, …), noise (B, M, …), timesteps (B, M): (B, M, …)."""
    shape = (*timesteps.shape, *[1] * (x0.ndim - 1))
    # In double: at a flow model's clean end 1−ᾱ is 1e-9, of which single precision knows nothing.
    signal = alphas_cumprod.double()[timesteps.to(alphas_cumprod.device)].view(shape)
    return signal.sqrt().to(x0) * x0.unsqueeze(1) + (1 - signal).sqrt().to(x0) * noise


def papa_loss(
    predict_noise: Predictor,
    predict_noise_base: Predictor,
    x0: Tensor,
    labels: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    alphas_cumprod: Tensor,
    config: PapaConfig,
    importance: Tensor | None = None,
) -> Tensor:
    """PAPA's objective on a batch of rated samples: a scalar, averaged over the batch.

    predict_noise(x_t (n, …), t (n,)) -> ε (n, …): the model with the adapter; predict_noise_base:
    the frozen base. x0: (B, …). labels: (B,) in [−1, 1]. timesteps: (B, M) int. noise: (B, M, …).
    alphas_cumprod: (T,). importance: (B, M), default 1. Distillation uses the last column: for
    ``variant="code"`` the largest timestep belongs there, for "figure" a random one.
    """
    parts, _ = papa_parts(
        predict_noise, predict_noise_base, x0, labels, timesteps, noise, alphas_cumprod, config,
        importance,
    )  # fmt: skip
    return parts.sum()


def papa_parts(
    predict_noise: Predictor,
    predict_noise_base: Predictor,
    x0: Tensor,
    labels: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    alphas_cumprod: Tensor,
    config: PapaConfig,
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The parts of `papa_loss`, (3,) in the order of `PARTS`, whose sum it is; and the denoising
    error of each sample and timestep, detached: (B, M)."""
    batch, columns = timesteps.shape
    x_t = diffuse(x0, noise, timesteps, alphas_cumprod)
    predicted = _predict(predict_noise, x_t, timesteps)
    error = (noise - predicted).square().flatten(2).mean(2)  # (B, M)
    weights = elbo_weights(alphas_cumprod).to(error)[timesteps]
    if importance is not None:
        weights = weights * importance.to(error)

    bounded = config.bound == "hinge" and bool((labels < 0).any())
    distilled = labels > 0 if config.variant == "code" else labels < 0
    distils = bool(distilled.any()) and config.distillation > 0
    needed = slice(0 if bounded else columns - 1, columns)
    if bounded or distils:
        with torch.no_grad():
            base = _predict(predict_noise_base, x_t[:, needed], timesteps[:, needed])
    bounding = error
    if bounded:
        ceiling = (noise - base).square().flatten(2).mean(2)
        ceiling = config.bound_ratio * ceiling + config.bound_margin
        bounding = error.where(labels[:, None] >= 0, error.minimum(ceiling))
    pull = labels * config.attraction * (weights * bounding).sum(1)
    drift = torch.zeros_like(pull)
    if distils:
        drift = (predicted[:, -1] - base[:, -1]).square().flatten(1).mean(1)
        drift = distilled * (config.distillation * drift)
    liked = labels > 0
    parts = torch.stack([pull[liked].sum(), pull[~liked].sum(), drift.sum()])
    return parts / batch, error.detach()


def _predict(predict: Predictor, x_t: Tensor, timesteps: Tensor) -> Tensor:
    return predict(x_t.flatten(0, 1), timesteps.flatten()).view(x_t.shape)
