"""Save Taste LoRA: writes the taste as an ordinary LoRA file."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from comfy_api.latest import io

from . import host
from .wires import CATEGORY, TasteType

FOLDER = "palate"


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
                    options=["kohya", "peft", "diffusers"],
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
        stem = re.sub(r"[^\w .-]+", "_", filename_prefix or taste.profile.name).strip(" .")
        if not stem:
            raise ValueError("filename_prefix holds no letter that a file's name can have.")
        suffix = "" if layout == "kohya" else f"_{layout}"
        names = host.export_names(taste.model)
        name = f"{stem}_r{live.revision:04d}{suffix}.safetensors"
        folder = host.lora_folder() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        if layout == "diffusers":
            layout, names = host.diffusers_layout(taste.model)
        live.adapter.save(
            folder / name,
            metadata=_metadata(taste),
            layout=layout,
            names=names,
        )
        return io.NodeOutput(f"{FOLDER}/{name}", ui={"text": [f"{FOLDER}/{name}"]})


def _metadata(taste: host.Taste) -> dict[str, str]:
    """Model Spec fields (its version 1.0.0) and how the taste came about."""
    active = taste.profile.active
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": f"{taste.profile.name} (revision {active.number})",
        "modelspec.architecture": f"{host.architecture(taste.model)}/lora",
        "modelspec.implementation": "palate",
        "modelspec.date": datetime.fromtimestamp(active.created, timezone.utc).isoformat(),
        "modelspec.description": f"A taste learnt from {active.ratings} ratings.",
        "palate.base_hash": taste.live.base_hash,
        "palate.revision": str(active.number),
        "palate.ratings": str(active.ratings),
        "palate.method": "EPAPA" if taste.boundary else "PAPA",
        "palate.boundary": str(taste.boundary),
    }
