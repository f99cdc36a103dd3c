"""What a model's family calls its layers in LoRA files that other programs read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher

from ...core.adapter import AdapterError, Part

# ComfyUI's class → its map from diffusers' keys to its own.
_MAPS: dict[str, Callable[..., dict[str, Any]]] = {
    "SD3": comfy.utils.mmdit_to_diffusers,
    "Flux": comfy.utils.flux_to_diffusers,
    "AuraFlow": comfy.utils.auraflow_to_diffusers,
    "PixArt": comfy.utils.pixart_to_diffusers,
}
_SAME_NAMES = ("QwenImage",)


def portable_layout(model: ModelPatcher) -> tuple[str, dict[str, str | list[Part]]]:
    """(layout, names) for `LiveAdapter.save`: a file for LoraLoader and diffusers alike.

    U-Nets: kohya's layout under diffusers' names. SD3, Flux, AuraFlow, PixArt, Qwen-Image:
    diffusers' own layout, fused projections split. Every other family (Wan, Lumina2 …): ComfyUI's
    generic layout, which diffusers converts where it knows the family; Z-Image's under diffusers'
    names.
    """
    config = model.model.model_config.unet_config
    if "model_channels" in config:
        return "kohya", dict(unet_names(config))
    for kind, to_diffusers in _MAPS.items():
        if type(model.model).__name__ == kind:
            return "diffusers", _inverse(to_diffusers(config))
    if type(model.model).__name__ in _SAME_NAMES:
        return "diffusers", {}
    if type(model.model.model_config).__name__ == "ZImage":
        return "generic", _inverse(comfy.utils.z_image_to_diffusers(config))
    return "generic", {}


def diffusers_layout(model: ModelPatcher) -> tuple[str, dict[str, str | list[Part]]]:
    """(layout, names) for a file that diffusers reads; another than `portable_layout` only for
    Lumina2, of whose generic files diffusers wants layers that a taste leaves alone."""
    if type(model.model.model_config).__name__ == "Lumina2":
        return "diffusers", _lumina2_names(model.model.model_config.unet_config)
    return portable_layout(model)


def _lumina2_names(config: dict[str, Any]) -> dict[str, str | list[Part]]:
    """Grouped-query attention: the fused layer holds all queries, then fewer keys and values."""
    width, heads = config["dim"], config["n_heads"]
    keys = width // heads * (config.get("n_kv_heads") or heads)
    refiners = config.get("n_refiner_layers", 2)
    lists = {"layers": config["n_layers"], "noise_refiner": refiners, "context_refiner": refiners}
    names: dict[str, str | list[Part]] = {}
    for block in (f"{name}.{i}" for name, count in lists.items() for i in range(count)):
        names[f"{block}.attention.qkv"] = [
            Part(f"{block}.attn.to_q", 0, width),
            Part(f"{block}.attn.to_k", width, keys),
            Part(f"{block}.attn.to_v", width + keys, keys),
        ]
        names[f"{block}.attention.out"] = f"{block}.attn.to_out.0"
        for i in (1, 2, 3):
            names[f"{block}.feed_forward.w{i}"] = f"{block}.feed_forward.linear_{i}"
    return names


def unet_names(config: dict[str, Any]) -> dict[str, str]:
    """diffusers' names of a U-Net's layers: {ours: theirs}."""
    return {
        ours.removesuffix(".weight"): theirs.removesuffix(".weight")
        for theirs, ours in comfy.utils.unet_to_diffusers(config).items()
        if ours.endswith(".weight")
    }


def _inverse(mapping: dict[str, Any]) -> dict[str, str | list[Part]]:
    """diffusers' key → (ours, rows) becomes ours → their names, fused layers in parts."""
    names: dict[str, str | list[Part]] = {}
    for theirs, place in mapping.items():
        theirs = theirs.removesuffix(".weight")
        ours, rows = (place, None) if isinstance(place, str) else (place[0], place[1])
        if not ours.endswith(".weight") or (not isinstance(place, str) and len(place) > 2):
            continue  # biases, and the final layer's swapped halves, which are no targets
        ours = ours.removesuffix(".weight")
        if rows is None:
            names[ours] = theirs
            continue
        parts = names.setdefault(ours, [])
        if isinstance(parts, str) or rows[0] != 0:
            raise AdapterError(f"ComfyUI's names for {ours!r} have changed; use the kohya layout")
        parts.append(Part(theirs, rows[1], rows[2]))
    return names
