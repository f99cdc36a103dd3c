"""Taste Profile: opens a taste and puts its live adapter on the model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.profile import ProfileError
from . import host
from .wires import CATEGORY, TasteType

UNITS = ("fraction", "timestep", "sigma")  # of the boundary


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
                    max=10000.0,
                    step=0.05,
                    round=0.001,
                    tooltip="EPAPA: below it, at the clean end, the base model is left alone, in "
                    "learning and in drawing, which keeps its fine detail. 0 is plain PAPA: it "
                    "learns more, and sooner. In the unit below.",
                ),
                io.Combo.Input(
                    "boundary_unit",
                    options=list(UNITS),
                    default=UNITS[0],
                    optional=True,
                    tooltip="fraction: the share of the model's timesteps, below 1 (the paper's "
                    "400 of 1000 is 0.4). timestep: one of them, from 0. sigma: a noise level of "
                    "the model's own, 0 to 1 for SD3, Flux and other flow models.",
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
        cls,
        model: Any,
        name: str,
        rank: int,
        strength: float,
        boundary: float,
        boundary_unit: str = UNITS[0],
    ) -> io.NodeOutput:
        profile = host.store().open(name)
        taste = host.taste_of(model, profile, rank, strength, boundary, boundary_unit)
        return io.NodeOutput(taste.model, taste)


def _active_revision(name: str) -> int:
    """0 also for a taste that has not begun, or that can't be opened: `execute` says why."""
    try:
        with host.store().look_into(name) as profile:
            return profile.active.number
    except ProfileError:
        return 0
