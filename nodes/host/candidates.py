"""Candidates as plain tensors: what a question keeps on disk to be learnt from later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pack_candidates(latents: Tensor, conditionings: Sequence[list]) -> dict[str, Tensor]:
    """A query's latents (K, …) and its K conditionings as plain tensors, to be kept on disk."""
    tensors = {"latents": latents.detach().float().cpu().clone()}
    for i, conditioning in enumerate(conditionings):
        embedding, options = conditioning[0]
        tensors[f"conditioning.{i}.embedding"] = embedding.detach().cpu().clone()
        plain: dict[str, Any] = {}
        for key, value in options.items():
            if isinstance(value, Tensor):
                tensors[f"conditioning.{i}.{key}"] = value.detach().cpu().clone()
            elif isinstance(value, (bool, int, float, str)):
                plain[key] = value
            elif key in ("control", "gligen"):
                raise ValueError(
                    f"This conditioning carries {key}, which a taste can't learn from: connect the "
                    "conditioning as it comes from CLIP Text Encode to Preference Query."
                )
        tensors[f"conditioning.{i}.options"] = torch.frombuffer(
            bytearray(json.dumps(plain).encode()), dtype=torch.uint8
        )
    return tensors


def unpack_conditioning(tensors: dict[str, Tensor], index: int) -> list:
    """The conditioning of one candidate as ComfyUI holds it: [[embedding, options]]."""
    prefix = f"conditioning.{index}."
    parts = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    options = json.loads(bytes(parts.pop("options").tolist()))
    embedding = parts.pop("embedding")
    return [[embedding, {**options, **parts}]]
