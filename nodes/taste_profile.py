"""Taste Profile: opens a taste and puts its live adapter on the model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.profile import ProfileError
from . import host
from .wires import CATEGORY, TasteType


class TasteProfile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateTasteProfile",
            display_name="Taste Profile",
            category=CATEGORY,
            description="Opens a taste (or begins a new one) and puts its adapter on the model. "
            "The adapter is live: what PAPA Update learns shows in the next image.",
            inputs=[
                io.Model.Input("model"),
                io.String.Input(
                    "name",
                    default="my taste",
                    tooltip="Each taste has a name. A new name begins a new taste.",
                ),
                io.Int.Input(
                    "rank",
                    default=8,
                    min=1,
                    max=128,
                    tooltip="Size of the LoRA. It is fixed once the taste has begun.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How strongly the taste shows. 0 is the model without it.",
                ),
                io.Float.Input(
                    "boundary",
                    default=0.3,
                    min=0.0,
                    max=0.95,
                    step=0.05,
                    tooltip="EPAPA: the share of the timesteps, at the clean end, that is left to "
                    "the base model, in learning and in drawing. 0 is plain PAPA.",
                ),
            ],
            outputs=[io.Model.Output(), TasteType.Output(display_name="TASTE")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str | None, **_: Any) -> Any:
        """Changes when another revision becomes active, and with nothing else.

        A name that comes over a wire is not known here; then the revision of any taste counts.
        """
        names = host.store().names() if name is None else [name]
        return [[each, number] for each in names if (number := _active_revision(each))]

    @classmethod
    def execute(
        cls, model: Any, name: str, rank: int, strength: float, boundary: float
    ) -> io.NodeOutput:
        profile = host.store().open(name)
        taste = host.taste_of(model, profile, rank, strength, boundary)
        return io.NodeOutput(taste.model, taste)


def _active_revision(name: str) -> int:
    """0 also for a taste that has not begun, or that can't be opened: `execute` says why."""
    try:
        with host.store().look_into(name) as profile:
            return profile.active.number
    except ProfileError:
        return 0
