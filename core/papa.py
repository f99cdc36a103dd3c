"""PAPA and EPAPA: likes and dislikes fine-tune the model directly, with no reward model.

Source: arXiv 2607.00486. Per rated sample x0 with label y,

    L = y·a·Σ_{t ≥ t0} c_t·‖ε − ε_θ(x_t, t)‖²  +  b·‖ε_θ(x_t', t') − ε_base(x_t', t')‖²

L_p (y > 0) descends, L_PAE (y < 0) ascends, L_QPDE (the second term) holds the model near its
frozen base. EPAPA learns from the noisy end alone, t ≥ t0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from .adapter import LiveAdapter
from .schedule import elbo_weights, sample_timesteps

Predictor = Callable[[Tensor, Tensor], Tensor]
IndexedPredictor = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PapaConfig:
    """Settings of one update. Defaults are for a LoRA and were found by measurement
    (benchmarks/results/papa_defaults.json); the authors' are a=0.1, b=0.009, no bound, every t.

    attraction, distillation: a and b. variant: "code" distils on liked samples, as the authors'
    program does, "figure" on disliked ones, as the paper draws it. bound: "hinge" stops the ascent
    on a disliked sample once its loss passes bound_ratio × base loss + bound_margin; "none" is the
    paper's. learning_rate, steps, clip_norm: Adam's. timesteps: M drawn per image and step.
    first_timestep: EPAPA's boundary t0 (0 = PAPA). replay: earlier ratings mixed into each step.
    rows: the largest number of (image, timestep) rows in one forward pass. common_noise: one draw
    of timesteps and noise for all samples of a query, so that what its likes and dislikes share
    cancels.
    """

    attraction: float = 0.1
    distillation: float = 0.009
    variant: Literal["code", "figure"] = "code"
    bound: Literal["none", "hinge"] = "hinge"
    bound_ratio: float = 1.5
    bound_margin: float = 0.0
    learning_rate: float = 1e-3
    steps: int = 6
    clip_norm: float = 1.0
    timesteps: int = 4
    first_timestep: int = 0
    replay: int = 12
    rows: int = 128
    common_noise: bool = True

    def __post_init__(self) -> None:
        if self.variant not in ("code", "figure"):
            raise ValueError(f"variant must be 'code' or 'figure', not {self.variant!r}")
        if self.bound not in ("none", "hinge"):
            raise ValueError(f"bound must be 'none' or 'hinge', not {self.bound!r}")
        for name in ("steps", "timesteps", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("attraction", "distillation", "first_timestep", "replay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")


def graded_labels(answer: Mapping[str, object], count: int) -> Tensor:
    """An answer as graded labels in [−1, 1], (count,); NaN marks an image without influence.

    pick: the winner +1, every other image −1/(count−1), so that likes and dislikes weigh the same.
    rank: best to worst, evenly from +1 to −1. rate: as given. skip: no influence at all.
    """
    labels = torch.full((count,), float("nan"))
    kind = answer["kind"]
    if kind == "pick":
        labels.fill_(-1 / max(1, count - 1))
        labels[int(str(answer["winner"]))] = 1.0
    elif kind == "rank":
        order = torch.tensor(answer["order"])
        labels[order] = torch.linspace(1, -1, count)
    elif kind == "rate":
        ratings: list[float | None] = answer["ratings"]  # type: ignore[assignment]
        labels = torch.tensor([float("nan") if r is None else float(r) for r in ratings])
    elif kind != "skip":
        raise ValueError(f"unknown kind of answer {kind!r}")
    return labels


def diffuse(x0: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = √ᾱ_t·x0 + √(1−ᾱ_t)·ε for x0 (B, …), noise (B, M, …), timesteps (B, M): (B, M, …)."""
    shape = (*timesteps.shape, *[1] * (x0.ndim - 1))
    signal = alphas_cumprod.to(x0)[timesteps].view(shape)
    return signal.sqrt() * x0.unsqueeze(1) + (1 - signal).sqrt() * noise


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
    alphas_cumprod: (T,). importance: (B, M), default 1. Distillation uses the last column.
    """
    batch, columns = timesteps.shape
    x_t = diffuse(x0, noise, timesteps, alphas_cumprod)
    predicted = _predict(predict_noise, x_t, timesteps)
    error = (noise - predicted).square().flatten(2).mean(2)  # (B, M)
    weights = elbo_weights(alphas_cumprod).to(error)[timesteps]
    if importance is not None:
        weights = weights * importance.to(error)

    bounded = config.bound == "hinge" and bool((labels < 0).any())
    distilled = labels > 0 if config.variant == "code" else labels < 0
    if bounded:
        error = error.where(
            labels[:, None] >= 0,
            error.minimum(_ceiling(predict_noise_base, x_t, timesteps, noise, config)),
        )
    loss = labels * config.attraction * (weights * error).sum(1)
    if distilled.any() and config.distillation:
        last = slice(columns - 1, columns)
        with torch.no_grad():
            base = _predict(predict_noise_base, x_t[:, last], timesteps[:, last])
        drift = (predicted[:, last] - base).square().flatten(1).mean(1)
        loss = loss + distilled * (config.distillation * drift)
    return loss.sum() / batch


def _predict(predict: Predictor, x_t: Tensor, timesteps: Tensor) -> Tensor:
    return predict(x_t.flatten(0, 1), timesteps.flatten()).view(x_t.shape)


def _ceiling(base: Predictor, x_t: Tensor, t: Tensor, noise: Tensor, config: PapaConfig) -> Tensor:
    """The loss up to which a disliked sample is pushed away, per sample and timestep: (B, M)."""
    with torch.no_grad():
        error = (noise - _predict(base, x_t, t)).square().flatten(2).mean(2)
    return config.bound_ratio * error + config.bound_margin


# Updater ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RatedSamples:
    """Latents x0 (N, …) and graded labels (N,); ``fresh`` of them, the last ones, are new.

    groups: (N,) int, which query each sample was rated in (default: each its own). Replay brings
    back whole queries, so that likes and dislikes of one prompt stay side by side.
    """

    latents: Tensor
    labels: Tensor
    fresh: int
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.latents) != len(self.labels) or not 0 < self.fresh <= len(self.labels):
            raise ValueError("latents and labels must be of one length, with 0 < fresh ≤ length")
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise ValueError("groups must be of the same length as labels")
        if not torch.isfinite(self.labels).all() or not torch.isfinite(self.latents).all():
            raise ValueError("latents and labels must be finite")


@dataclass
class UpdateReport:
    """What an update did; ``rolled_back`` says why nothing changed, if so."""

    steps: int = 0
    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    seconds: float = 0.0
    samples: int = 0
    stopped: bool = False
    rolled_back: str | None = None

    def summary(self) -> dict[str, object]:
        """JSON for the profile and the panel."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "loss_first": self.loss[0] if self.loss else None,
            "loss_last": self.loss[-1] if self.loss else None,
            "gradient_norm": max(self.gradient_norm, default=None),
            "seconds": round(self.seconds, 2),
            "stopped": self.stopped,
            "rolled_back": self.rolled_back,
        }


OPTIMIZER_PARTS = ("exp_avg", "exp_avg_sq", "step")


def optimizer_tensors(optimizer: torch.optim.Adam, adapter: LiveAdapter) -> dict[str, Tensor]:
    """Adam's moments under the adapter's own tensor names, on the CPU."""
    state = {}
    for name, parameter in zip(adapter.state_dict(), adapter.parameters(), strict=True):
        for part in OPTIMIZER_PARTS:
            if part in optimizer.state.get(parameter, {}):
                state[f"{name}.{part}"] = optimizer.state[parameter][part].detach().cpu().clone()
    return state


def restore_optimizer(
    optimizer: torch.optim.Adam, adapter: LiveAdapter, tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`; parameters that are not in ``tensors`` start fresh."""
    for name, parameter in zip(adapter.state_dict(), adapter.parameters(), strict=True):
        parts = {p: tensors[f"{name}.{p}"] for p in OPTIMIZER_PARTS if f"{name}.{p}" in tensors}
        if len(parts) == len(OPTIMIZER_PARTS):
            optimizer.state[parameter] = {
                p: t.clone().to(parameter.device if p != "step" else "cpu")
                for p, t in parts.items()
            }


def papa_update(
    adapter: LiveAdapter,
    predict_noise: IndexedPredictor,
    samples: RatedSamples,
    alphas_cumprod: Tensor,
    config: PapaConfig,
    *,
    generator: torch.Generator,
    optimizer_state: Mapping[str, Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[UpdateReport, dict[str, Tensor]]:
    """A few optimiser steps on the attached adapter. Returns the report and the optimiser's state.

    predict_noise(x_t (n, …), t (n,), index (n,)) -> ε: the network with whatever adapter scale is
    set; ``index`` says which sample a row belongs to (its conditioning). Every step sees the fresh
    samples and ``config.replay`` earlier ones. ``should_stop`` is asked between forward passes.
    A stop or a non-finite loss or gradient restores the adapter as it was, and the report says so;
    an exception restores it too. What is learnt does not depend on ``config.rows``.
    """
    began, report = time.monotonic(), UpdateReport(samples=samples.fresh)
    before = adapter.state_dict()
    state = dict(optimizer_state or {})
    optimizer = torch.optim.Adam(adapter.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    restore_optimizer(optimizer, adapter, state)
    try:
        for step in range(config.steps):
            chosen = _choose(samples, config.replay, generator)
            optimizer.zero_grad(set_to_none=True)
            loss = _accumulate(
                adapter, predict_noise, samples, chosen, alphas_cumprod, config, generator,
                should_stop,
            )  # fmt: skip
            if loss is None:
                report.stopped = True
                report.rolled_back = "the update was interrupted"
                break
            norm = float(torch.nn.utils.clip_grad_norm_(adapter.parameters(), config.clip_norm))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                report.rolled_back = f"the loss was not finite at step {step + 1}"
                break
            if norm > 0:  # else Adam's momentum would carry on where the bound says stop
                optimizer.step()
            report.steps = step + 1
            report.loss.append(loss)
            report.gradient_norm.append(norm)
            if progress is not None:
                progress(step + 1, config.steps)
    except BaseException:
        adapter.load_state_dict(before)
        raise
    finally:
        optimizer.zero_grad(set_to_none=True)
    if report.rolled_back is None and not _all_finite(adapter):
        report.rolled_back = "the adapter was no longer finite"
    if report.rolled_back is not None:
        adapter.load_state_dict(before)
    else:
        state = optimizer_tensors(optimizer, adapter)
    report.seconds = time.monotonic() - began
    return report, state


def _all_finite(adapter: LiveAdapter) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in adapter.parameters())


def _choose(samples: RatedSamples, replay: int, generator: torch.Generator) -> Tensor:
    """Indices of one step: all the fresh samples and about ``replay`` of the earlier ones."""
    old = len(samples.labels) - samples.fresh
    fresh = torch.arange(old, len(samples.labels))
    groups = torch.arange(old) if samples.groups is None else samples.groups[:old]
    known = groups.unique()
    again: list[Tensor] = []
    for group in known[torch.randperm(len(known), generator=generator)]:
        if sum(map(len, again)) >= replay:
            break
        again.append(torch.nonzero(groups == group).flatten())
    return torch.cat([*again, fresh])


def _accumulate(
    adapter: LiveAdapter,
    predict_noise: IndexedPredictor,
    samples: RatedSamples,
    chosen: Tensor,
    alphas_cumprod: Tensor,
    config: PapaConfig,
    generator: torch.Generator,
    should_stop: Callable[[], bool] | None,
) -> float | None:
    """Gradients of one step, in passes of at most ``config.rows`` rows; None when asked to stop."""
    columns, importance, noises = _draw(samples, chosen, alphas_cumprod, config, generator)
    width = columns.shape[1]
    disliked = samples.labels[chosen] < 0
    at_once = max(1, config.rows // width)
    # Likes and dislikes in passes of their own: only dislikes need the base model's loss.
    kinds = (torch.nonzero(kind).flatten() for kind in (disliked, ~disliked))
    total = 0.0
    for part in (part for kind in kinds if len(kind) for part in kind.split(at_once)):
        index = chosen[part]
        x0 = samples.latents[index]
        noise = noises[part].to(x0)
        for some in torch.arange(width).split(config.rows):
            if should_stop is not None and should_stop():
                return None
            is_last = int(some[-1]) == width - 1
            loss = papa_loss(
                _predictor(predict_noise, index),
                _base_predictor(adapter, predict_noise, index),
                x0,
                samples.labels[index],
                columns[part][:, some],
                noise[:, some],
                alphas_cumprod,
                config if is_last else replace(config, distillation=0.0),
                importance[part][:, some],
            ) * (len(part) / len(chosen))
            if not torch.isfinite(loss):
                return float("nan")
            loss.backward(inputs=adapter.parameters())
            total += float(loss.detach())
    return total


def _draw(
    samples: RatedSamples,
    chosen: Tensor,
    alphas_cumprod: Tensor,
    config: PapaConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Timesteps (n, M), importance (n, M) and noise (n, M, …) of one step's samples.

    With common noise the samples of one query share a draw, or all do where no query is known.
    """
    if not config.common_noise:
        shared = torch.arange(len(chosen))
    elif samples.groups is None:
        shared = torch.zeros(len(chosen), dtype=torch.long)
    else:
        shared = samples.groups[chosen].unique(return_inverse=True)[1]
    count = int(shared.max()) + 1
    columns, importance = sample_timesteps(
        elbo_weights(alphas_cumprod), config.timesteps, count, generator, config.first_timestep
    )
    shape = (count, columns.shape[1], *samples.latents.shape[1:])
    noise = torch.randn(shape, generator=generator)
    return columns[shared], importance[shared], noise[shared]


def _predictor(predict_noise: IndexedPredictor, index: Tensor) -> Predictor:
    """``predict_noise`` for the samples ``index`` (B,), of each as many rows as of the others."""

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        return predict_noise(x_t, t, index.repeat_interleave(len(t) // len(index)))

    return predict


def _base_predictor(
    adapter: LiveAdapter, predict_noise: IndexedPredictor, index: Tensor
) -> Predictor:
    predict = _predictor(predict_noise, index)

    def predict_base(x_t: Tensor, t: Tensor) -> Tensor:
        with adapter.scaled(0.0):
            return predict(x_t, t)

    return predict_base
