"""Save Taste LoRA: writes the taste as an ordinary LoRA file."""

from __future__ import annotations

from datetime import datetime, timezone

from comfy_api.latest import io

from . import host
from .lora_files import LAYOUTS, lora_file, model_spec
from .wires import CATEGORY, TasteType


class SaveTaste(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateSaveTaste",
            display_name="Save Taste LoRA",
            category=CATEGORY,
            description="Writes the taste's active revision to models/loras, for LoraLoader and "
            "any other program that reads LoRAs. Each revision is a file of its own.",
            is_output_node=True,
            inputs=[
                TasteType.Input("taste"),
                io.String.Input(
                    "filename_prefix",
                    default="",
                    tooltip="Beginning of the file's name; the taste's own name if empty.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    tooltip="kohya: for LoraLoader, A1111 and Forge, of U-Nets for diffusers too. "
                    "peft: for PEFT. diffusers: for diffusers, and for LoraLoader too except with "
                    "Lumina2.",
                ),
            ],
            outputs=[io.String.Output(display_name="lora_name")],
        )

    @classmethod
    def execute(cls, taste: host.Taste, filename_prefix: str, layout: str) -> io.NodeOutput:
        live = taste.live
        live.load_active_revision()
        prefix = filename_prefix or taste.profile.name
        file = lora_file(taste.model, prefix, f"r{live.revision:04d}", layout)
        live.adapter.save(file.path, _metadata(taste), file.layout, file.names)
        return io.NodeOutput(file.name, ui={"text": [file.name]})


def _metadata(taste: host.Taste) -> dict[str, str]:
    """Model Spec fields and how the taste came about."""
    active = taste.profile.active
    return {
        **model_spec(
            taste.model,
            f"{taste.profile.name} (revision {active.number})",
            f"A taste learnt from {active.ratings} ratings.",
            datetime.fromtimestamp(active.created, timezone.utc).isoformat(),
        ),
        "palate.base_hash": taste.live.base_hash,
        "palate.revision": str(active.number),
        "palate.ratings": str(active.ratings),
        "palate.method": "EPAPA" if taste.boundary else "PAPA",
        "palate.boundary": str(taste.boundary),
    }
