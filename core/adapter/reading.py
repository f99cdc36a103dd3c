"""From a LoRA file's keys to a module's own layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .layouts import FOLDED, LAYOUTS, AdapterError, Names, parts_of, split_key, stem


def read_layers(
    module: nn.Module, tensors: Mapping[str, Tensor], names: Names | None
) -> tuple[dict[str, Tensor], set[float], bool]:
    """A file's tensors under the module's names, its alphas, and whether B holds alpha/rank."""
    places: dict[str, tuple[str, str, int]] = {}  # in the file → layout, target, offset
    for target, layer in module.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            for part in parts_of(target, len(layer.weight), names):
                for layout in LAYOUTS:
                    places[stem(layout, part.name)] = (layout, target, part.offset)
    ups: dict[str, dict[int, Tensor]] = {}
    downs: dict[str, Tensor] = {}
    alphas: set[float] = set()
    layouts: set[str] = set()
    for key, tensor in tensors.items():
        begin, kind = split_key(key)
        if begin not in places:
            raise AdapterError(f"the model has no place for {key!r}")
        layout, target, offset = places[begin]
        layouts.add(layout)
        if kind == "alpha":
            alphas.add(float(tensor))
        elif kind == "lora_B":
            ups.setdefault(target, {})[offset] = tensor
        elif not torch.equal(downs.setdefault(target, tensor), tensor):
            raise AdapterError(f"the parts of {target!r} have an A each, which a live one has not")
    state = {}
    for target in dict.fromkeys([*downs, *ups]):
        if target in downs:
            state[f"{target}.lora_A.weight"] = downs[target]
        if target in ups:
            parts = [ups[target][offset] for offset in sorted(ups[target])]
            state[f"{target}.lora_B.weight"] = torch.cat(parts)
    return state, alphas, bool(layouts & set(FOLDED))
