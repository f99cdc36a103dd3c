"""Taste Report: a taste on one page, as an image."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .answers_seen import answers_seen
from .taste_picture import taste_picture
from .wires import CATEGORY, TasteType


class TasteReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateTasteReport",
            display_name="Taste Report",
            category=CATEGORY,
            description="A taste on one page: how far it has come, how its likes rise, the words "
            "that matter, and what its revisions draw at the same seeds.",
            inputs=[
                TasteType.Input(
                    "taste",
                    tooltip="From PAPA Update, to have the update of this very run on the page; "
                    "else from Taste Profile.",
                )
            ],
            outputs=[io.Image.Output(display_name="picture")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        """Changes when a question was answered or skipped."""
        return answers_seen()

    @classmethod
    def execute(cls, taste: host.Taste) -> io.NodeOutput:
        return io.NodeOutput(taste_picture(taste.profile))
