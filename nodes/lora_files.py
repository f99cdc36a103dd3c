"""Where a LoRA file goes, and in which layout the programs that read it want it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.adapter.layouts import Names
from . import host

FOLDER = "palate"
LAYOUTS = ("kohya", "peft", "diffusers")


@dataclass(frozen=True)
class LoraFile:
    """A file to be written; ``name`` is what LoraLoader calls it."""

    path: Path
    name: str
    layout: str
    names: Names


def lora_file(model: Any, prefix: str, version: str, layout: str = "kohya") -> LoraFile:
    """``prefix_version.safetensors`` in models/loras/palate, for a LoRA of ``model``'s network.

    Each version is a file of its own: LoraLoader keeps what it has read by the file's name. Raises
    ValueError for a prefix without any letter that a file's name can have.
    """
    stem = re.sub(r"[^\w .-]+", "_", prefix).strip(" .")
    if not stem:
        raise ValueError("filename_prefix holds no letter that a file's name can have.")
    suffix = "" if layout == "kohya" else f"_{layout}"
    name = f"{stem}_{version}{suffix}.safetensors"
    names: Names = host.export_names(model)
    if layout == "diffusers":
        layout, names = host.diffusers_layout(model)
    folder = host.lora_folder() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return LoraFile(folder / name, f"{FOLDER}/{name}", layout, names)


def model_spec(model: Any, title: str, description: str, date: str) -> dict[str, str]:
    """The fields of the Model Spec, its version 1.0.0."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": title,
        "modelspec.architecture": f"{host.architecture(model)}/lora",
        "modelspec.implementation": "palate",
        "modelspec.date": date,
        "modelspec.description": description,
    }
