"""PAPA's objective, arXiv 2607.00486: L_p, L_PAE and L_QPDE on a batch of rated samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..schedule import elbo_weights
from .config import PapaConfig

PARTS = ("L_p", "L_PAE", "L_QPDE")  # of liked samples, of disliked ones, towards the base
Predictor = Callable[[Tensor, Tensor], Tensor]
IndexedPredictor = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """The summands of the objective, one for each sample and timestep.

    sample: (n,) int, which sample a row is of. timesteps: (n,) int. noise: (n, …).
    importance: (n,). distils: (n,) bool, where the distance to the base is added.
    """

    sample: Tensor
    timesteps: Tensor
    noise: Tensor
    importance: Tensor
    distils: Tensor

    @classmethod
    def of(
        cls,
        labels: Tensor,
        timesteps: Tensor,
        noise: Tensor,
        config: PapaConfig,
        importance: Tensor | None = None,
    ) -> Rows:
        """The rows of samples labelled (B,) at timesteps (B, M) with noise (B, M, …) and
        importance (B, M), default 1.

        The last column distils, of likes with ``variant="code"`` and of dislikes with "figure";
        where it does not and its importance is 0, it is left out.
        """
        if importance is None:
            importance = torch.ones(timesteps.shape)
        distils = torch.zeros(timesteps.shape, dtype=torch.bool, device=labels.device)
        if config.distillation > 0:
            distils[:, -1] = labels > 0 if config.variant == "code" else labels < 0
        sample, column = torch.nonzero(distils.cpu() | (importance.cpu() != 0), as_tuple=True)
        return cls(
            sample,
            timesteps[sample, column],
            noise[sample, column],
            importance[sample, column],
            distils[sample, column],
        )

    def split(self, rows: int) -> Iterator[Rows]:
        """The same rows, at most ``rows`` at a time."""
        for part in torch.arange(len(self.sample)).split(rows):
            yield Rows(
                self.sample[part], self.timesteps[part], self.noise[part], self.importance[part],
                self.distils[part],
            )  # fmt: skip


def diffuse(x0: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = √ᾱ_t·x0 + √(1−ᾱ_t)·ε for x0, noise (n, …) and timesteps (n,): (n, …)."""
    # In double: at a flow model's clean end 1−ᾱ is 1e-9, of which single precision knows nothing.
    signal = alphas_cumprod.double()[timesteps.to(alphas_cumprod.device)]
    signal = signal.view(-1, *[1] * (x0.ndim - 1))
    return signal.sqrt().to(x0) * x0 + (1 - signal).sqrt().to(x0) * noise


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
        lambda x_t, t, sample: predict_noise(x_t, t),
        lambda x_t, t, sample: predict_noise_base(x_t, t),
        x0, labels, Rows.of(labels, timesteps, noise, config, importance), alphas_cumprod, config,
    )  # fmt: skip
    return parts.sum() / len(x0)


def papa_parts(
    predict_noise: IndexedPredictor,
    predict_noise_base: IndexedPredictor,
    x0: Tensor,
    labels: Tensor,
    rows: Rows,
    alphas_cumprod: Tensor,
    config: PapaConfig,
) -> tuple[Tensor, Tensor]:
    """The parts of PAPA's objective, (3,) in the order of `PARTS`, summed over ``rows``; and the
    denoising error of each row, detached: (n,).

    predict_noise(x_t (n, …), t (n,), sample (n,)) -> ε. x0: (B, …). labels: (B,). The base is asked
    only where a row needs it: to bound the ascent, or to distil.
    """
    t, y = rows.timesteps, labels[rows.sample]
    noise = rows.noise.to(x0)
    x_t = diffuse(x0[rows.sample], noise, t, alphas_cumprod)
    predicted = predict_noise(x_t, t, rows.sample)
    error = _mean(noise - predicted)

    bounded = y < 0 if config.bound == "hinge" else torch.zeros_like(y, dtype=torch.bool)
    needed = torch.nonzero(bounded | rows.distils.to(bounded.device)).flatten()
    ceiling, drift = torch.full_like(error, torch.inf), torch.zeros_like(error)
    if len(needed):
        with torch.no_grad():
            at = needed.to(t.device)
            base = predict_noise_base(x_t[needed], t[at], rows.sample[needed.cpu()])
            frozen = config.bound_ratio * _mean(noise[needed] - base) + config.bound_margin
        ceiling[needed] = frozen.to(ceiling)
        drift = drift.index_add(0, needed, _mean(predicted[needed] - base).to(drift))
    weights = elbo_weights(alphas_cumprod).to(error)[t] * rows.importance.to(error)
    bounding = error.where(~bounded, error.minimum(ceiling))
    pull = y * config.attraction * weights * bounding
    distilled = config.distillation * drift.where(rows.distils.to(drift.device), 0)
    liked = y > 0
    parts = torch.stack([pull[liked].sum(), pull[~liked].sum(), distilled.sum()])
    return parts, error.detach()


def _mean(difference: Tensor) -> Tensor:
    """‖·‖² of each row, a mean over its elements: (n, …) -> (n,)."""
    return difference.square().flatten(1).mean(1)
