"""Key layouts of LoRA files: kohya's, PEFT's, diffusers' and ComfyUI's generic one.

A layer may go by another name in a file, and a fused layer (query, key and value in one) by
several: each part then has the same A and its own rows of B, which is the same update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PEFT_PREFIX = "base_model.model."
KOHYA_PREFIX = "lora_unet_"
DIFFUSERS_PREFIX = "transformer."
GENERIC_PREFIX = "diffusion_model."
LAYOUTS = ("kohya", "peft", "diffusers", "generic")
FOLDED = ("diffusers", "generic")  # alpha/rank is in B: these files are read without an alpha


class AdapterError(ValueError):
    """An adapter does not fit the module, or a file is not an adapter. The message says which."""


@dataclass(frozen=True)
class Part:
    """Rows ``offset`` … ``offset + length`` of a fused layer, under a name of their own."""

    name: str
    offset: int
    length: int


Names = Mapping[str, "str | Sequence[Part]"]


def parts_of(target: str, rows: int, names: Names | None) -> Sequence[Part]:
    """The names of a layer with ``rows`` outputs in a file. Raises AdapterError on a gap."""
    name = (names or {}).get(target, target)
    parts = [Part(name, 0, rows)] if isinstance(name, str) else sorted(name, key=lambda p: p.offset)
    end = 0
    for part in parts:
        if part.offset != end:
            raise AdapterError(f"the parts of {target!r} do not follow on each other at {end}")
        end += part.length
    if end != rows:
        raise AdapterError(f"the parts of {target!r} have {end} rows, the layer {rows}")
    return parts


def stem(layout: str, name: str) -> str:
    """A layer's name as a file's keys begin with it."""
    if layout == "kohya":
        return KOHYA_PREFIX + name.replace(".", "_")
    if layout == "peft":
        return PEFT_PREFIX + name
    if layout == "diffusers":
        return DIFFUSERS_PREFIX + name
    if layout == "generic":
        return GENERIC_PREFIX + name
    raise AdapterError(f"layout must be {' or '.join(map(repr, LAYOUTS))}, not {layout!r}")


def tensors_of(layout: str, name: str, down: Tensor, up: Tensor, alpha: float) -> dict[str, Tensor]:
    """One layer's tensors under the keys of ``layout``.

    kohya has alpha beside them, PEFT in its config; diffusers and ComfyUI's generic layout (a
    network's own names) are read without one, so that B holds alpha/rank there.
    """
    begin = stem(layout, name)
    if layout == "kohya":
        return {
            f"{begin}.lora_down.weight": down,
            f"{begin}.lora_up.weight": up,
            f"{begin}.alpha": torch.tensor(alpha),
        }
    if layout in FOLDED:
        up = up * (alpha / len(down))
    return {f"{begin}.lora_A.weight": down, f"{begin}.lora_B.weight": up}


def lora_header(rank: int, alpha: float) -> dict[str, str]:
    """What a LoRA file's header says of it."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "lora_alpha": f"{alpha:g}",
    }


def split_key(key: str) -> tuple[str, str]:
    """Key of a file → (layer's name with prefix, "lora_A" | "lora_B" | "alpha")."""
    parts = {
        ".lora_down.weight": "lora_A",
        ".lora_A.weight": "lora_A",
        ".lora_up.weight": "lora_B",
        ".lora_B.weight": "lora_B",
        ".alpha": "alpha",
    }
    for suffix, part in parts.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix), part
    raise AdapterError(f"{key!r} is not a LoRA tensor")
