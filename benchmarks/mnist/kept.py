"""What the benchmark trains once and keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def kept(path: Path, new: Callable[[], Network], trained: Callable[[], Network]) -> Network:
    """``new()`` with the weights at ``path``; if there are none, ``trained()``, kept there."""
    if path.exists():
        network = new()
        network.load_state_dict(load_file(path))
        return network
    network = trained()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.cpu().contiguous() for k, v in network.state_dict().items()}, path)
    return network
