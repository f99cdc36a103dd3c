"""One run: images, the oracle's likes and dislikes, an update, and so on; measured on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from palate.core.adapter import LiveAdapter
from palate.core.papa import RatedSamples, papa_update
from torch import Tensor

from . import d3po
from .arms import Arm
from .base import ALPHAS_CUMPROD, Ddpm
from .oracle import Oracle, measures
from .weights import AllWeights, folded

EARLY = 5  # interactions
WINDOW = 3


@dataclass(frozen=True)
class Plan:
    """How much is asked and measured. at: {interaction: fresh samples to measure on}."""

    interactions: int
    images: int
    at: dict[int, int]


@dataclass
class Cost:
    """Rows through the network and CPU seconds, of learning and of drawing the rated images.

    One row is one image at one timestep; a row with gradients costs about three without.
    """

    learning_gradient_rows: int = 0
    learning_plain_rows: int = 0
    learning_seconds: float = 0.0
    drawing_rows: int = 0
    drawing_seconds: float = 0.0

    @property
    def learning_passes(self) -> int:
        """Of the network's forward pass, forward and backward together counted as three."""
        return 3 * self.learning_gradient_rows + self.learning_plain_rows


def run(
    ddpm: Ddpm,
    oracle: Oracle,
    real: tuple[Tensor, Tensor],
    arm: Arm,
    seed: int,
    plan: Plan,
) -> dict[str, Any]:
    """The measures after the interactions of ``plan``, and what they cost."""
    learner = Learner(ddpm, oracle, arm, seed, plan)
    curve = {}
    if arm.kind in ("none", "best of"):
        found = measures(oracle, learner.fresh(max(plan.at.values())), real)
        curve = dict.fromkeys(plan.at, found)
    else:
        for interaction in range(1, plan.interactions + 1):
            learner.interact(interaction)
            if interaction in plan.at:
                images = learner.fresh(plan.at[interaction])
                curve[interaction] = measures(oracle, images, real)
    return {
        "curve": curve,
        "cost": {**asdict(learner.cost), "learning_passes": learner.cost.learning_passes},
        "liked": learner.liked,
    }


class Learner:
    """A base model with an adapter that learns from rated images."""

    def __init__(self, ddpm: Ddpm, oracle: Oracle, arm: Arm, seed: int, plan: Plan) -> None:
        self.ddpm, self.oracle, self.arm, self.seed = ddpm, oracle, arm, seed
        self.images, self.interactions = plan.images, plan.interactions
        self.generator = torch.Generator().manual_seed(1000 + seed)
        self.adapter = adapter_of(ddpm, arm, seed)
        self.optimizer: dict[str, Tensor] = {}
        self.latents: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.cost = Cost()
        self.liked: list[int] = []

    def interact(self, interaction: int) -> None:
        """Draws images, has them rated, and learns from them and from the earlier ones."""
        began = time.process_time()
        path = self._drawn()
        x0 = path[-1].clamp(-1, 1)
        labels = self.oracle.likes(x0)
        self.liked.append(int((labels > 0).sum()))
        self.cost.drawing_rows += sum(self.ddpm.take_rows())
        self.cost.drawing_seconds += time.process_time() - began
        began = time.process_time()
        with self.adapter.attached():
            if self.arm.kind == "d3po":
                self.optimizer = d3po.update(
                    self.ddpm, self.adapter, path, labels, self.arm, self.generator, self.optimizer
                )
            else:
                self.latents.append(x0)
                self.labels.append(self._taught(labels))
                self._papa(interaction)
        plain, gradient = self.ddpm.take_rows()
        self.cost.learning_plain_rows += plain
        self.cost.learning_gradient_rows += gradient
        self.cost.learning_seconds += time.process_time() - began

    def _drawn(self) -> Tensor:
        """The images to rate, behind the steps that led to them: (steps + 1, images, 1, H, W)."""
        model, boundary = folded(self.ddpm, self.adapter), self.arm.config.first_timestep
        with model.attached():
            return self.ddpm.trajectory(self.images, self.generator, model, boundary)

    def _papa(self, interaction: int) -> None:
        """The authors step once an image; we step on all of them, with replay."""
        latents, labels = torch.cat(self.latents), torch.cat(self.labels)
        config = self.arm.config
        if self.arm.ends_at < 1:
            done = 0.5 - 0.5 * math.cos(math.pi * interaction / self.interactions)
            rate = config.learning_rate * (1 - done * (1 - self.arm.ends_at))
            config = replace(config, learning_rate=rate)
        if self.arm.kind == "authors":
            for i in range(len(labels) - self.images, len(labels)):
                first = 0 if config.replay else i
                self._update(RatedSamples(latents[first : i + 1], labels[first : i + 1], 1), config)
            return
        if self.arm.early_steps and interaction <= EARLY:
            config = replace(config, steps=self.arm.early_steps)
        groups = torch.arange(len(self.labels)).repeat_interleave(self.images)
        self._update(RatedSamples(latents, labels, self.images, groups), config)

    def _taught(self, labels: Tensor) -> Tensor:
        """The labels (n,) as the update sees them, and will see them again."""
        if self.arm.baseline:
            liked = self.share_liked()
            labels = torch.where(labels > 0, 1 - liked, -liked)
        return labels.clamp(min=0) if self.arm.likes_only else labels

    def share_liked(self) -> float:
        """Of the last interactions' images, with one like and one dislike to begin with."""
        recent = self.liked[-WINDOW:]
        return (sum(recent) + 1) / (len(recent) * self.images + 2)

    def _update(self, samples: RatedSamples, config: Any) -> None:
        def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
            return self.ddpm.predict_noise(x_t, t)

        report, self.optimizer = papa_update(
            self.adapter, predict, samples, ALPHAS_CUMPROD, config,
            generator=self.generator, optimizer_state=self.optimizer, measure_drift=False,
        )  # fmt: skip
        if report.rolled_back:
            print(f"  rolled back: {report.rolled_back}", flush=True)

    def fresh(self, count: int) -> Tensor:
        """Samples of the model as it is, from noise that is the same for all arms of a seed."""
        generator = torch.Generator().manual_seed(777_000 + self.seed)
        model, boundary = folded(self.ddpm, self.adapter), self.arm.config.first_timestep

        def draw(some: int) -> Tensor:
            return self.ddpm.sample(some, generator, model, boundary)

        with model.attached():
            found = best_of(draw, self.oracle, self.arm.count, count)
        self.ddpm.take_rows()
        return found


def best_of(draw: Callable[[int], Tensor], oracle: Oracle, candidates: int, count: int) -> Tensor:
    """``count`` images, each the first liked one of its candidates (the first, if none is)."""
    total = count * candidates
    images = torch.cat([draw(min(250, total - i)) for i in range(0, total, 250)])
    groups = images.view(count, candidates, *images.shape[1:])
    first = oracle.likes(images).view(count, candidates).argmax(1)
    return groups[torch.arange(count), first]


def adapter_of(ddpm: Ddpm, arm: Arm, seed: int) -> Any:
    """A LoRA, as in the nodes, or all weights."""
    if arm.weights == "all":
        return AllWeights(ddpm)
    return LiveAdapter(ddpm.unet, rank=arm.rank, alpha=arm.rank, seed=seed).to(ddpm.device)
