"""What the two FKC nodes have in common: their inputs, and the reward of a taste."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.reward import Answered, RewardModel, answers_of, reward_of
from . import host

STRENGTH = 3.0


def steering_inputs() -> list[io.Input]:
    """Widgets of the particle sampler."""
    return [
        io.Float.Input(
            "strength",
            default=STRENGTH,
            min=0.0,
            max=50.0,
            step=0.1,
            tooltip="How strongly the images follow what you like: β, per standard deviation of "
            "your taste. 0 is the model's own ancestral sampler.",
        ),
        io.Combo.Input(
            "weights",
            options=["twisted", "continuous", "seed"],
            tooltip="Twisted is exact at any number of steps. Continuous is the published limit of "
            "many steps. Seed is the draft's Algorithm 2. Both are for comparison.",
        ),
        io.Boolean.Input(
            "exact_gradient",
            default=True,
            tooltip="Follow the taste through the model: better images, about twice the time and "
            "more memory. Off: a cheaper direction, weighed just as exactly.",
        ),
        io.Float.Input(
            "resample_below",
            default=0.3,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Bad particles give way to copies of good ones when the effective sample size "
            "falls below this share of them. 0 never does.",
        ),
    ]


def settings_of(weights: str, exact_gradient: bool, resample_below: float) -> dict[str, Any]:
    """The widgets as `sample_fkc` takes them."""
    return {
        "weights": weights,
        "jacobian": exact_gradient,
        "ess_threshold": resample_below,
        "beta_schedule": "early" if weights == "twisted" else "log",
    }


def reward_for(taste: host.Taste, shape: tuple[int, ...]) -> tuple[RewardModel, list[Answered]]:
    """The taste's reward for latents of that shape, in the network's space, and its answers."""
    profile = taste.profile
    answers = answers_of(profile, shape, lambda x: host.latent_in(taste.model, x))
    reward = reward_of(
        profile,
        shape,
        answers,
        progress=host.progress_bar(1),
        should_stop=host.interrupted,
    )
    host.stop_if_interrupted()
    return reward, answers
