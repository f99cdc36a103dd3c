"""A network's blocks, made fit to be trained through: residuals and gradient checkpointing."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ..adapter import LiveAdapter

_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    torch.Tensor.add_: torch.add,
    torch.Tensor.sub_: torch.sub,
    torch.Tensor.mul_: torch.mul,
    torch.Tensor.div_: torch.div,
}
_FIRST_INPLACE = 13  # of BINARY_OP's arguments, from Python 3.11 on


class OutOfPlace(TorchFunctionMode):
    """``x += y`` makes a new x inside a ``with`` block; ``x.add_(y)`` stays as it is.

    Networks that are written for inference add residuals in place, over what the backward pass
    would need. Torch knows no difference between the two spellings, Python's code does.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        other = _OUT_OF_PLACE.get(func)
        if other is not None and args[0].requires_grad and _assigns(sys._getframe(1)):
            func = other
        return func(*args, **(kwargs or {}))


def _assigns(frame: FrameType) -> bool:
    """Whether ``frame`` is at an augmented assignment."""
    code, at = frame.f_code.co_code, frame.f_lasti
    name = dis.opname[code[at]]
    return name.startswith("INPLACE_") or (name == "BINARY_OP" and code[at + 1] >= _FIRST_INPLACE)


@contextmanager
def trainable_blocks(adapter: LiveAdapter, checkpointing: bool) -> Iterator[None]:
    """The adapter's module with blocks that can be trained through, inside a ``with`` block.

    checkpointing: their activations are computed again in the backward pass. Only what is computed
    with gradients is affected. The adapter's scale and attachment must be the same in the backward
    pass as in the forward pass.
    """
    blocks = blocks_of(adapter)
    try:
        for block in blocks:
            block.forward = _trainable(block.forward, checkpointing)
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def _trainable(forward: Callable[..., Any], checkpointing: bool) -> Callable[..., Any]:
    def out_of_place(*args: Any, **kwargs: Any) -> Any:
        with OutOfPlace():
            return forward(*args, **kwargs)

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        if not checkpointing:
            return out_of_place(*args, **kwargs)
        return checkpoint(
            out_of_place, *args, use_reentrant=False, preserve_rng_state=False, **kwargs
        )

    return run


def blocks_of(adapter: LiveAdapter) -> list[nn.Module]:
    """The outermost numbered modules with a forward pass of their own around the targets.

    A numbered Sequential is passed over: some networks call its children one by one.
    """
    found: dict[str, nn.Module] = {}
    for target in adapter.targets:
        parts = target.split(".")
        for length in range(1, len(parts)):
            name = ".".join(parts[:length])
            module = adapter.module.get_submodule(name)
            container = isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
            if parts[length - 1].isdigit() and not container:
                found[name] = module
                break
    return list(found.values())
