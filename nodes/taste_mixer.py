"""Taste Mixer: several tastes on one model, each with a weight."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from comfy_api.latest import io

from . import host
from .lora_files import lora_file, model_spec
from .wires import CATEGORY, TasteType

SLOTS = "abcd"


def _inputs() -> list[io.Input]:
    found: list[io.Input] = []
    for slot in SLOTS:
        optional = slot not in "ab"
        found += [
            TasteType.Input(
                f"taste_{slot}", optional=optional, tooltip="The TASTE of a Taste Profile."
            ),
            io.Float.Input(
                f"weight_{slot}",
                default=0.5,
                min=-2.0,
                max=2.0,
                step=0.05,
                optional=optional,
                tooltip="Times the strength of that Taste Profile. Weights are used as they are: "
                "two of 0.5 are the average, below 0 is away from that taste.",
            ),
        ]
    return found


class TasteMixer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateTasteMixer",
            display_name="Taste Mixer",
            category=CATEGORY,
            description="Blends two to four tastes of one base model into one MODEL, exactly: the "
            "base plus each taste's change times its weight. What a taste learns later shows in "
            "the mix.",
            is_output_node=True,  # it writes its file also when nothing hangs on it
            inputs=[
                io.Model.Input(
                    "model", tooltip="The MODEL as it comes from the loader, without a taste."
                ),
                *_inputs(),
                io.String.Input(
                    "filename_prefix",
                    default="",
                    optional=True,
                    tooltip="With a name, the mix is also written to models/loras as one ordinary "
                    "LoRA file. Empty writes nothing.",
                ),
            ],
            outputs=[io.Model.Output(), io.String.Output(display_name="lora_name")],
        )

    @classmethod
    def execute(cls, model: Any, filename_prefix: str = "", **slots: Any) -> io.NodeOutput:
        shares = [
            host.Share(f"taste_{slot}", slots[f"taste_{slot}"], slots.get(f"weight_{slot}", 0.5))
            for slot in SLOTS
            if slots.get(f"taste_{slot}") is not None
        ]
        mixed = host.mixed(model, shares)
        name = _save(mixed, filename_prefix) if filename_prefix.strip() else ""
        return io.NodeOutput(mixed.model, name, ui={"text": [name]} if name else None)


def _save(mixed: host.Mixed, prefix: str) -> str:
    parts = [
        (live.profile.name, live.revision, weight)
        for live, weight in zip(mixed.lives, mixed.weights, strict=True)
    ]
    version = "+".join(f"{name[:20]} r{number:04d}x{weight:g}" for name, number, weight in parts)
    said = "; ".join(f"{name} (revision {number}) x {weight:g}" for name, number, weight in parts)
    now = datetime.now(timezone.utc).isoformat()
    file = lora_file(mixed.model, prefix, version)
    metadata = {
        **model_spec(mixed.model, prefix.strip(), f"A mix of tastes: {said}.", now),
        "palate.base_hash": mixed.lives[0].base_hash,
        "palate.mix": said,
    }
    mixed.mix.save(file.path, mixed.weights, metadata, file.layout, file.names)
    return file.name
