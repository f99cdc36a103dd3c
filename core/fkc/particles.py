"""Weighted particles: log-weights, effective sample size and systematic resampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class NoParticleLeft(ValueError):
    """Every particle has weight zero, so there is nothing left to sample from."""


@dataclass(frozen=True)
class Particles:
    """N weighted samples of the tilted model, and how they came about.

    x: (N, …), the samples, on the model's device. log_weights: (N,) float64 on the CPU, meaningful
    up to a constant; −inf for a killed particle. ess: (steps,), the effective sample size (of N)
    after each step, before any resampling. ancestors: (steps, N), the index of each particle's
    parent among those the step had left: 0..N−1 in order where nothing was resampled. rewards:
    (N,) float64, r(x0) of the samples, or zeros without a reward.
    """

    x: Tensor
    log_weights: Tensor
    ess: Tensor
    ancestors: Tensor
    rewards: Tensor

    @property
    def weights(self) -> Tensor:
        """Normalised weights, (N,): they sum to one."""
        return self.log_weights.softmax(0)

    @property
    def lineage(self) -> Tensor:
        """Which of the N particles at the start each sample descends from: (N,) int64."""
        lineage = torch.arange(len(self.log_weights))
        for parents in self.ancestors:
            lineage = lineage[parents]
        return lineage

    def mean(self, values: Tensor) -> Tensor:
        """Weighted estimate of E[values] under the tilted model: (N, …) → (…), float64."""
        alive = torch.isfinite(self.log_weights)
        values = values.detach().cpu().double()
        return torch.tensordot(self.weights[alive], values[alive], dims=1)


def effective_sample_size(log_weights: Tensor) -> float:
    """1/Σ softmax(w)²: N for equal weights, 1 for a lone survivor, 0 when none is left."""
    if not bool(torch.isfinite(log_weights).any()):
        return 0.0
    return float(1 / log_weights.double().softmax(0).square().sum())


def systematic_resample(log_weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Parent indices (N,) int64, each particle ⌊N·p⌋ or ⌈N·p⌉ times, from one uniform draw.

    log_weights: (N,), up to a constant; −inf and NaN never become a parent. ``generator`` may be
    None for one particle only. Raises NoParticleLeft if no weight is finite, ValueError for no
    generator.
    """
    count = len(log_weights)
    weights = log_weights.detach().cpu().double()
    weights = weights.masked_fill(weights.isnan(), -torch.inf)
    if not bool(torch.isfinite(weights).any()):
        raise NoParticleLeft("every particle has weight zero: there is no parent to resample from")
    if count == 1:
        return torch.zeros(1, dtype=torch.int64)
    if generator is None:
        raise ValueError("resampling needs an explicit generator")
    offset = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64)
    positions = (torch.arange(count, dtype=torch.float64) + offset.cpu()) / count
    edges = weights.softmax(0).cumsum(0)
    parents = torch.searchsorted(edges / edges[-1], positions, right=True)
    return parents.clamp(max=int(torch.nonzero(torch.isfinite(weights))[-1]))


def advanced(log_weights: Tensor, increment: Tensor) -> Tensor:
    """log_weights + increment, (N,), centred: an offset of the reward must not matter.

    A NaN increment kills its particle (−inf). Raises NoParticleLeft when none is left alive.
    """
    alive = _alive(log_weights, increment)
    centred = increment - increment[alive].mean()
    return (log_weights + centred).masked_fill(~alive, -torch.inf)


def _alive(log_weights: Tensor, increment: Tensor) -> Tensor:
    alive = torch.isfinite(log_weights) & torch.isfinite(increment)
    if not bool(alive.any()):
        raise NoParticleLeft(
            "the reward was not a finite number for any particle: check the reward model, or lower "
            "beta"
        )
    return alive


class Cloud:
    """Particles on their way: all of a particle's state, and the two ways that weights change.

    x: (N, …). log_weights: (N,) float64. ess and ancestors: one entry a closed step.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.log_weights = torch.zeros(len(x), dtype=torch.float64)
        self.ess: list[float] = []
        self.ancestors: list[Tensor] = []
        self._potential = torch.zeros(len(x), dtype=torch.float64)

    def add(self, increment: Tensor) -> None:
        """w ← w + increment (N,)."""
        self.log_weights = advanced(self.log_weights, increment)

    def replace_potential(self, potential: Tensor) -> None:
        """w ← w + ψ(x) − ψ(x before), both (N,)."""
        self.add(potential - self._potential)
        self._potential = potential.nan_to_num(nan=0.0)

    def add_clipped(self, increment: Tensor, step: float, limits: tuple[float, float]) -> None:
        """The draft's update of the plain weight: e^w ← clip(e^w + clip(increment))."""
        alive = _alive(self.log_weights, increment)
        weights = (self.log_weights.exp() + increment.clamp(-step, step)).clamp(*limits)
        self.log_weights = weights.log().masked_fill(~alive, -torch.inf)

    def close_step(self, threshold: float, generator: torch.Generator) -> Tensor:
        """Record the ESS and, below ``threshold``·N, resample; returns the parents (N,)."""
        count = len(self.log_weights)
        parents = torch.arange(count)
        self.ess.append(effective_sample_size(self.log_weights))
        if self.ess[-1] < threshold * count:
            parents = systematic_resample(self.log_weights, generator)
            self.x = self.x[parents.to(self.x.device)]
            self._potential = self._potential[parents]
            self.log_weights = torch.zeros_like(self.log_weights)
        self.ancestors.append(parents)
        return parents

    def particles(self, rewards: Tensor) -> Particles:
        ess = torch.tensor(self.ess, dtype=torch.float64)
        return Particles(self.x, self.log_weights, ess, torch.stack(self.ancestors), rewards)
