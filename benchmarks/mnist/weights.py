"""All weights of a U-Net behind the interface that papa_update asks of an adapter."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from palate.core.adapter import LiveAdapter
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from .base import Ddpm


class AllWeights:
    """Every weight learns: a trainable copy beside the frozen base, which scale 0 brings back."""

    def __init__(self, ddpm: Ddpm, module: nn.Module | None = None) -> None:
        self._ddpm, self._base = ddpm, ddpm.unet
        self.module = copy.deepcopy(ddpm.unet).requires_grad_(True) if module is None else module
        self.targets: list[str] = []
        self.base_dtype = torch.float32

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """Detached copies on the CPU, in the order of `parameters`."""
        return {name: p.detach().cpu().clone() for name, p in self.module.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(state[name])

    @contextmanager
    def attached(self) -> Iterator[AllWeights]:
        """The model computes with the trained copy, for the length of a ``with`` block."""
        with self._using(self.module):
            yield self

    @contextmanager
    def scaled(self, value: float) -> Iterator[None]:
        """0: the frozen base, for the length of a ``with`` block; 1: as it is."""
        with self._using(self._base if value == 0 else self.module):
            yield

    @contextmanager
    def _using(self, unet: nn.Module) -> Iterator[None]:
        before, self._ddpm.unet = self._ddpm.unet, unet
        try:
            yield
        finally:
            self._ddpm.unet = before


def folded(ddpm: Ddpm, adapter: LiveAdapter | AllWeights) -> AllWeights:
    """The model as it is, for sampling: a LoRA is folded into a copy of the weights, which costs
    less than to compute it beside them."""
    if isinstance(adapter, AllWeights):
        return adapter
    with adapter.attached():
        module = copy.deepcopy(ddpm.unet)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()  # type: ignore[attr-defined]
            parent, _, leaf = name.rpartition(".")
            module.get_submodule(parent)._modules[leaf] = layer.get_base_layer()
    return AllWeights(ddpm, module)
