"""Which timesteps a step looks at: an unbiased, stratified estimate of the sum over t."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..schedule import elbo_weights, sample_timesteps
from .config import PapaConfig
from .loss import Rows
from .samples import RatedSamples

BINS = 32
MEMORY = 0.9  # of a bin's running loss, kept at each visit
FLOOR = 0.2  # share of the draws that stays ∝ c_t, which bounds the importance weights
STATE_KEY = "papa.loss_by_timestep"


class LossHistory:
    """Running mean of the denoising loss in bins of timesteps, kept from revision to revision.

    Importance sampling draws where the summands are large. ``means``: (BINS,), 0 before the first
    visit.
    """

    def __init__(self, means: Tensor | None = None) -> None:
        self.means = torch.zeros(BINS) if means is None else means.clone()

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> LossHistory:
        """What `state` gave to an earlier update's optimiser state; empty if it is not there."""
        means = tensors.get(STATE_KEY)
        return cls(means if means is not None and means.shape == (BINS,) else None)

    def state(self) -> dict[str, Tensor]:
        return {STATE_KEY: self.means.clone()}

    def observe(self, timesteps: Tensor, errors: Tensor, steps: int) -> None:
        """Takes in the errors, of any shape, seen at ``timesteps`` (same shape) of ``steps``."""
        bins = timesteps.flatten().cpu() * BINS // steps
        seen = errors.detach().flatten().float().cpu()
        for bin in bins.unique().tolist():
            mean, known = seen[bins == bin].mean(), self.means[bin]
            if torch.isfinite(mean):
                self.means[bin] = MEMORY * known + (1 - MEMORY) * mean if known > 0 else mean

    def proposal(self, weights: Tensor) -> Tensor:
        """A distribution over timesteps ∝ c_t·√loss, mixed with one ∝ c_t: (T,) float64.

        ``weights``: c_t, (T,). A gradient's norm goes with the root of its squared error. A bin
        that was never visited counts as the mean of the others.
        """
        elbo = weights.double() / weights.double().sum()
        known = self.means > 0
        if not bool(known.any()):
            return elbo
        means = self.means.where(known, self.means[known].mean()).double().sqrt()
        steps = len(weights)
        tilted = elbo * means[torch.arange(steps) * BINS // steps]
        return (1 - FLOOR) * tilted / tilted.sum() + FLOOR * elbo


@dataclass(frozen=True)
class Draw:
    """Timesteps (n, M), importance (n, M) and noise (n, M, …) of one step's n samples.

    ``variant="figure"`` has a last column for distillation alone, of importance 0.
    """

    timesteps: Tensor
    importance: Tensor
    noise: Tensor

    @classmethod
    def of(
        cls,
        samples: RatedSamples,
        chosen: Tensor,
        alphas_cumprod: Tensor,
        config: PapaConfig,
        history: LossHistory,
        generator: torch.Generator,
    ) -> Draw:
        """With common noise the samples of one query share a draw, or all do where no query is
        known. ``variant="figure"`` distils at a timestep of its own, uniform over t ≥ t0."""
        if not config.common_noise:
            shared = torch.arange(len(chosen))
        elif samples.groups is None:
            shared = torch.zeros(len(chosen), dtype=torch.long)
        else:
            shared = samples.groups[chosen].unique(return_inverse=True)[1]
        count, first = int(shared.max()) + 1, config.first_timestep
        weights = elbo_weights(alphas_cumprod)
        proposal = history.proposal(weights) if config.draw == "loss" else None
        columns, importance = sample_timesteps(
            weights, config.timesteps, count, generator, first, proposal
        )
        if config.variant == "figure" and config.distillation > 0:
            low = max(1, first)
            random = torch.randint(low, len(weights), (count, 1), generator=generator)
            columns = torch.cat([columns, random], 1)
            importance = torch.cat([importance, torch.zeros(count, 1)], 1)
        width = 1 if config.shared_noise else columns.shape[1]
        noise = torch.randn((count, width, *samples.latents.shape[1:]), generator=generator)
        noise = noise.expand(count, columns.shape[1], *noise.shape[2:])
        return cls(columns[shared], importance[shared], noise[shared])

    def rows(self, labels: Tensor, config: PapaConfig) -> Rows:
        """The rows of all samples, labelled (n,)."""
        return Rows.of(labels, self.timesteps, self.noise, config, self.importance)
