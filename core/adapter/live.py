"""The live adapter: PEFT LoRA layers that are swapped into a module and out again.

The layers are built once. Attaching replaces ``parent._modules[name]`` by the LoRA layer that wraps
the base layer, detaching puts the very same base layer back, so a detached module is bit-identical
to the one that came in, and editing the LoRA tensors in place changes the next forward pass.
Method: LoRA, arXiv 2106.09685; convolutions are targets too (see `default_targets`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from .files import read_safetensors, write_safetensors
from .layouts import AdapterError, Names, lora_header, parts_of, tensors_of
from .reading import read_layers
from .targets import default_targets

NAME = "default"

Wrapper = Any  # a LoraLayer that is also an nn.Module; PEFT has no type for it


class LiveAdapter:
    """A LoRA that lives on ``module`` and can be attached, scaled, gated, saved and loaded.

    module: any torch module. rank: LoRA rank r ≥ 1. alpha: LoRA alpha; the update is (alpha/r)·B·A.
    targets: names of Linear/Conv2d layers below ``module`` (default: `default_targets`).
    seed: for the initial A; B starts at zero, so a new adapter changes nothing.
    LoRA tensors are float32 whatever the base layers' dtype. Raises AdapterError.
    """

    def __init__(
        self,
        module: nn.Module,
        rank: int = 8,
        alpha: float = 8,
        targets: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if rank < 1:
            raise AdapterError(f"rank must be at least 1, not {rank}")
        self.module, self.rank, self.alpha = module, rank, float(alpha)
        self.targets = list(default_targets(module) if targets is None else targets)
        self._base = {name: self._find(name) for name in self.targets}
        self._layers = self._build(seed)
        self._scale = 1.0
        self._attached = 0

    def _find(self, name: str) -> nn.Module:
        try:
            layer = self.module.get_submodule(name)
        except AttributeError:
            raise AdapterError(f"the model has no layer named {name!r}") from None
        if isinstance(layer, LoraLayer):
            raise AdapterError(f"layer {name!r} already carries an adapter; detach it first")
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise AdapterError(f"layer {name!r} is a {type(layer).__name__}, not Linear or Conv2d")
        return layer

    def _build(self, seed: int) -> dict[str, Wrapper]:
        """Lets PEFT wrap the targets, keeps the wrappers, and puts the base layers back."""
        if not self.targets:
            raise AdapterError("the model has no Linear or Conv2d layer to adapt")
        # A pattern, because PEFT takes a list of names for endings: "out" would match "block.out".
        exactly = "|".join(re.escape(name) for name in self.targets)
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=exactly)  # type: ignore[arg-type]
        requires_grad = [(p, p.requires_grad) for p in self.module.parameters()]
        layers: dict[str, Wrapper] = {}
        try:
            with torch.random.fork_rng(devices=[]):
                inject_adapter_in_model(config, self.module, NAME)
        except ValueError as error:
            raise AdapterError(f"PEFT can't adapt the model: {error}") from error
        finally:
            for name, base in self._base.items():
                layer = self.module.get_submodule(name)
                if isinstance(layer, LoraLayer):
                    layers[name] = layer
                    self._put(name, base)
            for parameter, required in requires_grad:
                parameter.requires_grad_(required)
            if hasattr(self.module, "peft_config"):
                delattr(self.module, "peft_config")
        if unreached := sorted(self._base.keys() - layers.keys()):
            raise AdapterError(f"layer {unreached[0]!r} also goes by another name; use that one")
        generator = torch.Generator().manual_seed(seed)
        for name, wrapper in layers.items():
            _follow_geometry(wrapper.lora_A[NAME], self._base[name])
            down = _down(wrapper)
            bound = 1 / math.sqrt(down[0].numel())
            fresh = torch.empty(down.shape).uniform_(-bound, bound, generator=generator)
            down.data = fresh.to(down.device)
            _up(wrapper).data = torch.zeros_like(_up(wrapper), dtype=torch.float32)
        return layers

    def _put(self, name: str, layer: nn.Module) -> None:
        put_layer(self.module, name, layer)

    # Attaching ------------------------------------------------------------------------------------

    @property
    def is_attached(self) -> bool:
        return self._attached > 0

    def attach(self) -> None:
        """Swaps the LoRA layers in. Calls nest: the module is free after as many `detach` calls."""
        self._attached += 1
        if self._attached == 1:
            for name, layer in self._layers.items():
                self._put(name, layer)

    def detach(self) -> None:
        """Swaps the very same base layers back in."""
        if self._attached == 0:
            return
        self._attached -= 1
        if self._attached == 0:
            for name, layer in self._base.items():
                self._put(name, layer)

    @contextmanager
    def attached(self) -> Iterator[LiveAdapter]:
        """The module with the adapter, for the length of a ``with`` block."""
        self.attach()
        try:
            yield self
        finally:
            self.detach()

    # Strength -------------------------------------------------------------------------------------

    @property
    def scale(self) -> float:
        """Factor on the adapter's effect: 1 as trained, 0 the base model, bit for bit."""
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        if value == self._scale:
            return
        self._scale = float(value)
        for layer in self._layers.values():
            layer.scaling[NAME] = self.alpha / self.rank * self._scale
            layer._disable_adapters = self._scale == 0.0

    @contextmanager
    def scaled(self, value: float) -> Iterator[None]:
        """Another scale for the length of a ``with`` block; ``scaled(0)`` is the frozen base."""
        before = self._scale
        self.scale = value
        try:
            yield
        finally:
            self.scale = before

    def has(self, target: str) -> bool:
        """Whether the adapter adds to the layer ``target``."""
        return target in self._base

    def base_layer(self, target: str) -> nn.Module:
        """The layer of the module that the adapter adds to at ``target``."""
        return self._base[target]

    def effect(self, target: str, x: Tensor, scale: float = 1.0) -> Tensor:
        """What is added to the base layer's output on ``x`` there: scale·(alpha/r)·B·A·x, in
        float32."""
        layer = self._layers[target]
        down, up = layer.lora_A[NAME], layer.lora_B[NAME]
        return up(down(x.to(down.weight.dtype))) * (self.alpha / self.rank * scale)  # type: ignore[no-any-return]

    @property
    def base_dtype(self) -> torch.dtype:
        """Of the base weights under the first target; an 8-bit dtype is told as it is."""
        return next(iter(self._base.values())).weight.dtype  # type: ignore[return-value]

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """The tensors come back as they were if the ``with`` block raises."""
        before = self.state_dict()
        try:
            yield
        except BaseException:
            self.load_state_dict(before)
            raise

    # Tensors --------------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """The trainable LoRA tensors, A before B, in the order of the targets."""
        return [p for layer in self._layers.values() for p in (_down(layer), _up(layer))]

    def to(self, device: torch.device | str) -> LiveAdapter:
        """Moves the LoRA tensors (never the base layers) to ``device``; they stay float32."""
        for parameter in self.parameters():
            if parameter.device != torch.device(device):
                parameter.data = parameter.data.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Detached float32 CPU copies: ``{target}.lora_A.weight``, ``{target}.lora_B.weight``."""
        state = {}
        for name, layer in self._layers.items():
            state[f"{name}.lora_A.weight"] = _down(layer).detach().float().cpu().clone()
            state[f"{name}.lora_B.weight"] = _up(layer).detach().float().cpu().clone()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies ``state`` into the live tensors in place. Raises AdapterError and changes nothing
        when a tensor is missing, left over, or of another shape."""
        own = self.state_dict()
        missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or extra:
            raise AdapterError(
                f"the adapter does not fit this model: {len(missing)} tensors missing, "
                f"{len(extra)} unknown (first: {(missing + extra)[0]!r})"
            )
        for key, tensor in own.items():
            if tensor.shape != state[key].shape:
                raise AdapterError(
                    f"{key!r} is {tuple(state[key].shape)} in the file, {tuple(tensor.shape)} here"
                )
        with torch.no_grad():
            for name, layer in self._layers.items():
                _down(layer).copy_(state[f"{name}.lora_A.weight"])
                _up(layer).copy_(state[f"{name}.lora_B.weight"])

    def reset(self) -> None:
        """Back to revision 0: B = 0, the adapter changes nothing."""
        with torch.no_grad():
            for layer in self._layers.values():
                _up(layer).zero_()

    # Files ----------------------------------------------------------------------------------------

    def export(self, layout: str = "kohya", names: Names | None = None) -> dict[str, Tensor]:
        """The adapter's tensors under the keys of ``layout``: "kohya", "peft", "diffusers", or
        "generic" (ComfyUI's: the network's own names).

        ``names`` renames targets for the file, for instance to diffusers' names of the same layers,
        or splits a fused one into `Part`s. Raises AdapterError.
        """
        tensors: dict[str, Tensor] = {}
        for target, layer in self._layers.items():
            down, up = (t.detach().float().cpu().clone() for t in (_down(layer), _up(layer)))
            for part in parts_of(target, len(up), names):
                rows = up[part.offset : part.offset + part.length].clone()
                tensors.update(tensors_of(layout, part.name, down.clone(), rows, self.alpha))
        return tensors

    def save(
        self,
        path: str | Path,
        metadata: Mapping[str, str] | None = None,
        layout: str = "kohya",
        names: Names | None = None,
    ) -> None:
        """Writes a safetensors file beside ``path``, flushes it to disk and renames it into place.

        ``metadata`` is added to the header next to rank, alpha and the network module's name.
        """
        header = lora_header(self.rank, self.alpha)
        write_safetensors(self.export(layout, names), path, {**header, **(metadata or {})})

    @classmethod
    def load(cls, module: nn.Module, path: str | Path, names: Names | None = None) -> LiveAdapter:
        """A detached adapter for ``module`` from a file of any layout.

        ``names`` is the renaming that `save` used. Raises AdapterError when a key of the file has
        no place in the module, or when its layers differ in rank or alpha.
        """
        tensors, header = read_safetensors(path)
        try:
            state, alphas, folded = read_layers(module, tensors, names)
        except AdapterError as error:
            raise AdapterError(f"{Path(path).name}: {error}") from None
        targets = list(dict.fromkeys(key.rsplit(".", 2)[0] for key in state))
        if not targets:
            raise AdapterError(f"{Path(path).name}: holds no LoRA tensors")
        ranks = {len(t) for k, t in state.items() if k.endswith(".lora_A.weight")}
        if len(ranks) != 1 or len(alphas) > 1:
            raise AdapterError(
                f"{Path(path).name}: ranks {sorted(ranks)} and alphas {sorted(alphas)}; "
                "a live adapter has one rank and one alpha"
            )
        rank = ranks.pop()
        alpha = alphas.pop() if alphas else float(header.get("lora_alpha", rank))
        adapter = cls(module, rank=rank, alpha=rank if folded else alpha, targets=targets)
        adapter.load_state_dict(state)
        return adapter


def put_layer(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Makes ``layer`` the submodule ``name`` of ``module``."""
    parent, _, leaf = name.rpartition(".")
    module.get_submodule(parent)._modules[leaf] = layer


def _follow_geometry(down: nn.Module, base: nn.Module) -> None:
    """Gives a convolution's A the dilation and kind of padding that PEFT does not pass on."""
    if isinstance(down, nn.Conv2d) and isinstance(base, nn.Conv2d):
        down.dilation, down.padding_mode = base.dilation, base.padding_mode
        down._reversed_padding_repeated_twice = base._reversed_padding_repeated_twice


def _down(layer: Wrapper) -> nn.Parameter:
    return layer.lora_A[NAME].weight


def _up(layer: Wrapper) -> nn.Parameter:
    return layer.lora_B[NAME].weight
