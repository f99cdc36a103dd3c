"""A mix of live adapters on one module: their updates added, each with a weight of its own.

LoRA's update is linear in B·A, so that a mix is exact: W + Σ w_i·(α_i/r_i)·B_i·A_i, for adapters of
different rank, alpha and targets. The ranks put side by side are that same sum in one LoRA:
B = [w_1·(α_1/r_1)·B_1, …], A = [A_1; …].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .files import write_safetensors
from .layouts import AdapterError, Names, lora_header, parts_of, tensors_of
from .live import LiveAdapter, put_layer


class AdapterMix:
    """The weighted sum of ``adapters``, which all live on one module, are all detached, and go on
    living: what one of them learns shows in the mix. Raises AdapterError.
    """

    def __init__(self, adapters: Sequence[LiveAdapter]) -> None:
        if not adapters:
            raise AdapterError("a mix needs at least one adapter")
        if any(adapter.module is not adapters[0].module for adapter in adapters):
            raise AdapterError("the adapters of a mix must live on one module")
        self.module, self.adapters = adapters[0].module, list(adapters)
        self._layers = {
            target: _MixedLayer(adapter.base_layer(target), target)
            for adapter in adapters
            for target in adapter.targets
        }

    @contextmanager
    def attached(self, weights: Sequence[float]) -> Iterator[None]:
        """The module with the mix, for the length of a ``with`` block; bit-identical afterwards.

        weights: one an adapter, in their order; an adapter of weight 0 is left out. The adapters'
        own scales play no part. Raises AdapterError if one of them is attached by itself.
        """
        if any(adapter.is_attached for adapter in self.adapters):
            raise AdapterError("an adapter of the mix is attached; detach it first")
        weighted = [pair for pair in zip(self.adapters, weights, strict=True) if pair[1] != 0]
        try:
            for name, layer in self._layers.items():
                layer.terms = [(a, weight) for a, weight in weighted if a.has(name)]
                if layer.terms:
                    put_layer(self.module, name, layer)
            yield
        finally:
            for name, layer in self._layers.items():
                if layer.terms:
                    put_layer(self.module, name, layer.base_layer)
                layer.terms = []

    @property
    def rank(self) -> int:
        """Of the mix as one LoRA: the sum of the ranks."""
        return sum(adapter.rank for adapter in self.adapters)

    def export(
        self, weights: Sequence[float], layout: str = "kohya", names: Names | None = None
    ) -> dict[str, Tensor]:
        """The mix as one LoRA's tensors, as `LiveAdapter.export` has them; alpha is the rank.

        Every target has the whole rank, with zeros where an adapter has nothing: some programs read
        files of one rank only.
        """
        states = [adapter.state_dict() for adapter in self.adapters]
        tensors: dict[str, Tensor] = {}
        for target in self._layers:
            known = next(s for s in states if f"{target}.lora_A.weight" in s)
            downs, ups = [], []
            for adapter, state, weight in zip(self.adapters, states, weights, strict=True):
                down = state.get(f"{target}.lora_A.weight")
                up = state.get(f"{target}.lora_B.weight")
                if down is None or up is None:
                    like_a, like_b = (known[f"{target}.lora_{part}.weight"] for part in "AB")
                    down = torch.zeros(adapter.rank, *like_a.shape[1:])
                    up = torch.zeros(len(like_b), adapter.rank, *like_b.shape[2:])
                downs.append(down)
                ups.append(up * (weight * adapter.alpha / adapter.rank))
            whole_down, whole_up = torch.cat(downs), torch.cat(ups, 1)
            for part in parts_of(target, len(whole_up), names):
                rows = whole_up[part.offset : part.offset + part.length].clone()
                tensors |= tensors_of(layout, part.name, whole_down.clone(), rows, self.rank)
        return tensors

    def save(
        self,
        path: str | Path,
        weights: Sequence[float],
        metadata: Mapping[str, str] | None = None,
        layout: str = "kohya",
        names: Names | None = None,
    ) -> None:
        """Writes the mix as one LoRA file, as `LiveAdapter.save` does."""
        header = {**lora_header(self.rank, self.rank), **(metadata or {})}
        write_safetensors(self.export(weights, layout, names), path, header)


class _MixedLayer(nn.Module):
    """A base layer plus the effects of several adapters; what else is asked of it, it asks the base
    layer."""

    def __init__(self, base_layer: nn.Module, target: str) -> None:
        super().__init__()
        self.base_layer, self._target = base_layer, target
        self.terms: list[tuple[LiveAdapter, float]] = []

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = self.base_layer(x, *args, **kwargs)
        dtype = result.dtype
        for adapter, weight in self.terms:
            result = result + adapter.effect(self._target, x, weight)
        return result.to(dtype)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)
