"""Which layers of a network learn by default."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

_MODULATION = re.compile(r"(^|[._])(mod|modulation|adaln\w*)([._]|$)", re.IGNORECASE)
_POOLED = ("label_emb.", "add_embedding.")


def default_targets(module: nn.Module) -> list[str]:
    """Names of the layers that learn by default: every Linear and Conv2d inside the blocks.

    U-Net: on it the convolutions carry most of what a taste changes; adapters on attention and time
    projections alone learn several times slower (methods, section 2). The first and last layer,
    grouped convolutions and the embedding of pooled text and sizes (SDXL's, which other programs do
    not look for in a LoRA) stay as they are. Transformer: attention and feed-forward layers of its
    blocks, as is the convention; embedders, modulation and the final layer stay as they are.
    """
    names = [
        name
        for name, layer in module.named_modules()
        if name and isinstance(layer, (nn.Linear, nn.Conv2d)) and getattr(layer, "groups", 1) == 1
    ]
    inside = set(_inside_lists(module))
    if inside and not any(isinstance(module.get_submodule(name), nn.Conv2d) for name in inside):
        return [n for n in names if n in inside and not _MODULATION.search(n)]
    names = names[1:-1] if len(names) > 2 else names
    return [name for name in names if not name.startswith(_POOLED)]


def _inside_lists(module: nn.Module) -> Iterator[str]:
    """Names of the modules below a ModuleList: a network's repeated blocks."""
    lists = [name for name, part in module.named_modules() if isinstance(part, nn.ModuleList)]
    for name, _ in module.named_modules():
        if any(name.startswith(f"{one}.") for one in lists):
            yield name
