"""The reward model: an ensemble of heads, its training and its calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.special import log_ndtr

from .data import RatedLatents, choice_loss, held_out_margins, spread_within_queries
from .network import HeadStack

Answered = tuple[Tensor, Mapping[str, Any]]

PRIOR = (3.0, 1.0)  # right and wrong pairs of margin 1 that a taste is credited with at first
NOISE_LEVELS = (0.05, 10.0)  # of σ in units of the latents' std


class RewardModel:
    """r(x̂0, σ) of one taste: (N,), in standard deviations of the taste among images of one query.

    >>> reward = RewardModel((4, 64, 64)).fit(answers, generator=generator)
    >>> sample_fkc(model, x, sigmas, reward=reward if reward.ready else None, ...)

    ``shape``: (C, H, W) of one latent; H and W may differ when called. ``ready`` is False, the
    value and its gradient are zero, and ``reason`` says why, until the answers hold both better and
    worse images. ``correlation`` is that of prediction and taste, as held-out queries let estimate.
    """

    def __init__(self, shape: Sequence[int], heads: int = 5, width: int = 16) -> None:
        channels, height, breadth = (int(n) for n in shape)
        stride = max(1, min(height, breadth) // 16)
        self.shape, self.heads, self.width = (channels, height, breadth), heads, width
        self.network = HeadStack(channels, heads, width, stride)
        self.mean = torch.zeros(1, channels, 1, 1)
        self.std = torch.ones(1, channels, 1, 1)
        self.offset, self.scale, self.spread = torch.zeros(heads), torch.ones(heads), 1.0
        self.correlation, self.labels = _correlation(torch.zeros(0), torch.zeros(0)), 0
        self.reason = "there are no ratings yet: rate some images first"

    @property
    def ready(self) -> bool:
        """Whether the answers taught a direction to steer in."""
        return not self.reason

    @property
    def accuracy(self) -> float:
        """The share of pairs put in the right order, 0.5 to 1, as ``correlation`` implies."""
        return 0.5 + math.asin(self.correlation) / math.pi

    def fit(
        self,
        answers: Sequence[Answered],
        *,
        generator: torch.Generator,
        steps: int = 60,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> RewardModel:
        """Learn from scratch from the whole log; returns self, unchanged if stopped.

        answers: (latents (K, C, H, W), answer as the profile keeps it), oldest first. Raises
        ValueError for latents of another shape or not finite. Deterministic by ``generator``.
        """
        with torch.inference_mode(False), torch.enable_grad():
            data = RatedLatents.of(answers, self.shape, self.heads)
            if data.refusal:
                self.labels, self.reason = data.labels, data.refusal
                return self
            mean = data.latents.mean((0, 2, 3), keepdim=True)
            std = data.latents.std((0, 2, 3), keepdim=True).clamp(min=1e-6)
            clean = (data.latents - mean) / std
            network = HeadStack(self.shape[0], self.heads, self.width, self.network.stride)
            network.start(generator)
            for step, loss in enumerate(
                _descend(network, clean, data, generator, steps, learning_rate, weight_decay)
            ):
                if not bool(torch.isfinite(loss)):
                    raise ValueError("the reward network diverged: lower its learning rate")
                if should_stop is not None and should_stop():
                    return self
                if progress is not None:
                    progress(step + 1, steps)
        network.requires_grad_(False)
        self.labels, self.reason = data.labels, ""
        self.network, self.mean, self.std = network, mean, std
        self._calibrate(clean, data)
        return self

    def __call__(self, x0_hat: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Calibrated mean of the heads, (N,), differentiable; zeros unless ``ready``."""
        return self.predict(x0_hat, sigma)[0]

    def predict(self, x0_hat: Tensor, sigma: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Mean (N,) and std (N,) of r for denoised estimates (N, C, H, W) at noise level σ.

        The mean is shrunk by the correlation with the taste; the std is what that leaves open,
        larger where the heads disagree more than usual. Unless ``ready``: zero and one.
        """
        if not self.ready:
            return x0_hat.flatten(1).sum(1) * 0.0, x0_hat.new_ones(len(x0_hat))
        heads = self._heads(x0_hat, sigma)
        known = self.correlation
        rest = (1 - known**2) ** 0.5
        return known * heads.mean(1), rest * heads.std(1) / self.spread

    def state_dict(self) -> dict[str, Tensor]:
        """Everything as tensors, for a safetensors file; `load_state_dict` is the inverse."""
        numbers = torch.tensor(
            [*self.shape, self.heads, self.width, self.labels, float(self.ready)],
            dtype=torch.float64,
        )
        calibration = torch.tensor([self.correlation, self.spread], dtype=torch.float64)
        own = {"numbers": numbers, "calibration": calibration, "mean": self.mean, "std": self.std}
        own |= {"offset": self.offset, "scale": self.scale}
        network = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        return {k: v.detach().cpu().clone() for k, v in (own | network).items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], reason: str = "") -> RewardModel:
        """The model that `state_dict` wrote. ``reason``: why it was not ready, if it was not."""
        channels, height, breadth, heads, width, labels, ready = state["numbers"].tolist()
        model = cls((int(channels), int(height), int(breadth)), int(heads), int(width))
        prefix = "network."
        model.network.load_state_dict(
            {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        )
        model.network.requires_grad_(False)
        model.mean, model.std = state["mean"].clone(), state["std"].clone()
        model.offset, model.scale = state["offset"].clone(), state["scale"].clone()
        model.correlation, model.spread = state["calibration"].tolist()
        model.labels = int(labels)
        model.reason = "" if ready else reason or model.reason
        return model

    def to(self, device: torch.device | str) -> RewardModel:
        """Moves the network for sampling there; returns self. `fit` brings it back to the CPU."""
        self.network.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        self.offset, self.scale = self.offset.to(device), self.scale.to(device)
        return self

    def _heads(self, x0_hat: Tensor, sigma: Tensor | float) -> Tensor:
        """Standardised utility by each head: (N, heads)."""
        level = torch.as_tensor(sigma, dtype=torch.float32, device=self.mean.device)
        level = level.expand(len(x0_hat)) / self.std.mean()
        z = (x0_hat.to(self.mean) - self.mean) / self.std
        return (self.network(z, level) - self.offset) / self.scale

    @torch.no_grad()
    def _calibrate(self, clean: Tensor, data: RatedLatents) -> None:
        """Unit spread of each head's utility within queries; correlation by the unseen folds."""
        utility = self.network(clean, torch.zeros(len(clean)))
        self.offset, self.scale = utility.mean(0), spread_within_queries(utility, data)
        standard = (utility - self.offset) / self.scale
        self.spread = float(standard.std(1).square().mean().sqrt().clamp(min=1e-3))
        known = _correlation(*held_out_margins(standard, data))
        # Pairs that nobody told apart are the close ones: taken to be half as predictable.
        angle = torch.tensor(known).asin() * (1 + data.compared) / 2
        self.correlation = float(angle.sin())


def _correlation(margins: Tensor, weights: Tensor) -> float:
    """Between predicted and true utility, both of unit variance, from held-out margins (pairs,).

    Maximum a posteriori of ρ in P(preferred) = Φ(margin·ρ/√(2(1−ρ²))): a close pair that is got
    wrong says little, so that queries among the best do not discredit what found them. `PRIOR` is
    what is believed before any.
    """
    grid = torch.linspace(0.01, 0.95, 95, dtype=torch.float64)
    slope = grid / (2 * (1 - grid**2)).sqrt()
    likelihood = PRIOR[0] * log_ndtr(slope) + PRIOR[1] * log_ndtr(-slope)
    likelihood = likelihood + weights.double() @ log_ndtr(slope * margins.double()[:, None])
    return float(grid[likelihood.argmax()])


def _descend(
    network: HeadStack,
    clean: Tensor,
    data: RatedLatents,
    generator: torch.Generator,
    steps: int,
    learning_rate: float,
    weight_decay: float,
) -> Iterator[Tensor]:
    """AdamW on clean latents and on denoised estimates at random σ; yields the loss of a step."""
    mood = torch.zeros(data.queries, network.heads, requires_grad=True)
    groups: list[dict[str, Any]] = [
        {"params": list(network.parameters())},
        {"params": [mood], "lr": 0.1, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, learning_rate / 20)
    no_noise = torch.zeros(len(clean))
    for _ in range(steps):
        sigma = _noise_levels(len(clean), generator)
        of_clean = network(clean, no_noise)
        of_noisy = network(_estimate(clean, sigma, generator), sigma)
        loss = choice_loss(of_clean, data, network.intercept, mood)
        loss = loss + choice_loss(of_noisy, data, network.intercept, mood)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
        yield loss.detach()


def _noise_levels(count: int, generator: torch.Generator) -> Tensor:
    low, high = torch.tensor(NOISE_LEVELS).log()
    return (low + (high - low) * torch.rand(count, generator=generator)).exp()


def _estimate(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """What a denoiser would make of unit-variance ``clean`` at σ: the Wiener estimate (N, …)."""
    noise = torch.randn(clean.shape, generator=generator)
    level = sigma.view(-1, 1, 1, 1)
    return (clean + level * noise) / (1 + level**2)
