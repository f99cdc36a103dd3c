"""Starter Model: the embedded tiny text-to-image model."""

from __future__ import annotations

from comfy_api.latest import io

from . import host
from .wires import CATEGORY


class StarterModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateStarterModel",
            display_name="Starter Model",
            category=CATEGORY,
            description="A tiny text-to-image model (64×64 pixels) that ships with Palate and runs "
            "on any computer. Good for a first taste; any Stable Diffusion checkpoint can take its "
            "place.",
            inputs=[],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*host.load_starter())
