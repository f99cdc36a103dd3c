"""FKC Sampler: a SAMPLER whose batch of images follows the taste."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.reward import RewardModel, latest_shape
from . import host
from .answers_seen import answers_seen
from .steering_inputs import reward_for, settings_of, steering_inputs
from .wires import CATEGORY, TasteType


class FKCSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateFKCSampler",
            display_name="FKC Sampler",
            category=CATEGORY,
            description="For SamplerCustom: the images of a batch are particles that follow what "
            "you have rated so far. Before the first ratings it is the plain ancestral sampler. "
            "Method: Feynman–Kac correctors, arXiv 2503.02819.",
            inputs=[TasteType.Input("taste"), *steering_inputs()],
            outputs=[io.Sampler.Output(), io.String.Output(display_name="report")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        """Changes when a question was answered or skipped."""
        return answers_seen()

    @classmethod
    def execute(
        cls,
        taste: host.Taste,
        strength: float,
        weights: str,
        exact_gradient: bool,
        resample_below: float,
    ) -> io.NodeOutput:
        shape = latest_shape(taste.profile)
        reward = None if shape is None else reward_for(taste, shape)[0]
        steering = host.Steering(
            reward, strength, settings_of(weights, exact_gradient, resample_below)
        )
        return io.NodeOutput(host.particle_sampler(steering), _in_words(reward, strength))


def _in_words(reward: RewardModel | None, strength: float) -> str:
    if reward is None:
        return "Waiting for ratings: this is the plain ancestral sampler."
    if not reward.ready:
        return f"Waiting for ratings: {reward.reason}. Until then, the plain ancestral sampler."
    if strength == 0:
        return "Strength is 0: the plain ancestral sampler."
    return (
        f"Follows {reward.labels} ratings; on questions it had not seen it told "
        f"{reward.accuracy:.0%} of pairs right."
    )
