"""Simulated Rater: a program with a taste, for trying a graph out without clicking."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.rater import TASTES, Rater
from .wires import CATEGORY, RaterType


class SimulatedRater(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateSimulatedRater",
            display_name="Simulated Rater",
            category=CATEGORY,
            description="Answers Preference Query in your place, by looking at the pixels: likes "
            "the better half of the images and dislikes the rest.",
            inputs=[io.Combo.Input("taste", options=list(TASTES))],
            outputs=[RaterType.Output(display_name="RATER")],
        )

    @classmethod
    def execute(cls, taste: str) -> io.NodeOutput:
        return io.NodeOutput(Rater(taste))
