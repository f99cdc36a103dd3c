"""Adam's state as plain tensors, so that it survives from revision to revision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..adapter import LiveAdapter

OPTIMIZER_PARTS = ("exp_avg", "exp_avg_sq", "step")


def optimizer_tensors(optimizer: torch.optim.Adam, adapter: LiveAdapter) -> dict[str, Tensor]:
    """Adam's moments under the adapter's own tensor names, on the CPU."""
    state = {}
    for name, parameter in zip(adapter.state_dict(), adapter.parameters(), strict=True):
        for part in OPTIMIZER_PARTS:
            if part in optimizer.state.get(parameter, {}):
                state[f"{name}.{part}"] = optimizer.state[parameter][part].detach().cpu().clone()
    return state


def restore_optimizer(
    optimizer: torch.optim.Adam, adapter: LiveAdapter, tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`; parameters that are not in ``tensors`` start fresh."""
    for name, parameter in zip(adapter.state_dict(), adapter.parameters(), strict=True):
        parts = {p: tensors[f"{name}.{p}"] for p in OPTIMIZER_PARTS if f"{name}.{p}" in tensors}
        if len(parts) == len(OPTIMIZER_PARTS):
            optimizer.state[parameter] = {
                p: t.clone().to(parameter.device if p != "step" else "cpu")
                for p, t in parts.items()
            }
