"""Calls of the model and the reward for all particles, chunk by chunk, with their gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

Denoiser = Callable[..., Tensor]
Reward = Callable[[Tensor, Tensor], Tensor]
GradientOf = Literal["noisy", "denoised", "nothing"]


class SamplingStopped(RuntimeError):
    """``should_stop`` asked for the end; there are no particles."""


@dataclass(frozen=True)
class Evaluation:
    """One model call for each particle: x̂0 (N, …), r (N,) float64, ∇r (N, …); rows go together.

    ``reward`` is NaN for a particle that cannot be judged; its gradient is zero.
    """

    x0_hat: Tensor
    reward: Tensor
    gradient: Tensor

    def __getitem__(self, parents: Tensor) -> Evaluation:
        there = parents.to(self.x0_hat.device)
        return replace(
            self,
            x0_hat=self.x0_hat[there],
            reward=self.reward[parents],
            gradient=self.gradient[there],
        )


@dataclass(frozen=True)
class Judge:
    """The model and the reward as one function of all particles, at most ``chunk`` at a time."""

    model: Denoiser
    reward: Reward | None
    extra_args: Mapping[str, Any]
    chunk: int | None
    should_stop: Callable[[], bool] | None

    def denoise(self, x: Tensor, sigma: Tensor) -> Evaluation:
        """x̂0 alone: every particle with reward and gradient zero."""
        x0_hat = torch.cat([self._denoise(part, sigma) for part in self._parts(x)])
        nothing = torch.zeros(len(x), dtype=torch.float64)
        return Evaluation(x0_hat, nothing, torch.zeros_like(x0_hat))

    def score(self, clean: Tensor, sigma: Tensor) -> Tensor:
        """r (N,) float64 of every particle, without gradient."""
        with torch.no_grad():
            return torch.cat([self._reward(part, sigma)[1] for part in self._parts(clean)])

    def evaluate(self, x: Tensor, sigma: Tensor, gradient_of: GradientOf) -> Evaluation:
        """r(x̂0(x)) with its gradient by x ("noisy", through the model), by x̂0 ("denoised") or 0."""
        return _joined([self._evaluate(part, sigma, gradient_of) for part in self._parts(x)])

    def evaluate_noisy(self, x: Tensor, clean_scale: Tensor, sigma: Tensor) -> Evaluation:
        """r of the noisy x/α itself, and its gradient by x/α; the model is called for x̂0 only."""
        found = []
        for part in self._parts(x):
            x0_hat = self._denoise(part, sigma)
            found.append(self._judge(part / clean_scale, x0_hat, sigma))
        return _joined(found)

    def _evaluate(self, x: Tensor, sigma: Tensor, gradient_of: GradientOf) -> Evaluation:
        if gradient_of == "noisy":
            with torch.inference_mode(False), torch.enable_grad():
                x = x.detach().clone().requires_grad_()
                x0_hat = self.model(x, sigma * x.new_ones(len(x)), **self.extra_args)
                raw, reward = self._reward(x0_hat, sigma)
                return _finished(x0_hat, reward, _gradient(raw, x))
        x0_hat = self._denoise(x, sigma)
        if gradient_of == "denoised":
            return self._judge(x0_hat, x0_hat, sigma)
        with torch.no_grad():
            return _finished(x0_hat, self._reward(x0_hat, sigma)[1], torch.zeros_like(x0_hat))

    def _judge(self, judged: Tensor, x0_hat: Tensor, sigma: Tensor) -> Evaluation:
        with torch.inference_mode(False), torch.enable_grad():
            judged = judged.detach().clone().requires_grad_()
            raw, reward = self._reward(judged, sigma)
            return _finished(x0_hat, reward, _gradient(raw, judged))

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(x, sigma * x.new_ones(len(x)), **self.extra_args)

    def _reward(self, x0_hat: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The reward as it came, and as (N,) float64 on the CPU with NaN for ±inf."""
        assert self.reward is not None
        raw = self.reward(x0_hat, sigma * x0_hat.new_ones(len(x0_hat)))
        if not isinstance(raw, Tensor) or raw.shape != (len(x0_hat),):
            shape = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
            raise ValueError(
                f"the reward must return one number a particle, ({len(x0_hat)},), not {shape}"
            )
        value = raw.detach().cpu().double()
        return raw, value.masked_fill(~torch.isfinite(value), torch.nan)

    def _parts(self, x: Tensor) -> Iterator[Tensor]:
        for part in x.split(self.chunk or len(x)):
            if self.should_stop is not None and self.should_stop():
                raise SamplingStopped("sampling was stopped before it was done")
            yield part


def _gradient(reward: Tensor, x: Tensor) -> Tensor:
    if not reward.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(reward.sum(), x, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def _finished(x0_hat: Tensor, reward: Tensor, gradient: Tensor) -> Evaluation:
    """Particles without a finite reward or gradient: unjudged, and not pushed anywhere."""
    bad = ~torch.isfinite(gradient.flatten(1)).all(1) | reward.isnan().to(gradient.device)
    shape = (-1, *[1] * (gradient.ndim - 1))
    return Evaluation(
        x0_hat.detach(),
        reward.masked_fill(bad.cpu(), torch.nan),
        gradient.detach().masked_fill(bad.view(shape), 0.0),
    )


def _joined(parts: list[Evaluation]) -> Evaluation:
    return Evaluation(
        torch.cat([part.x0_hat for part in parts]),
        torch.cat([part.reward for part in parts]),
        torch.cat([part.gradient for part in parts]),
    )
