"""How much fits into one pass: rows, and the memory that a row takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..adapter import LiveAdapter

SPARE = 0.5  # share of the free memory that saved activations may take
FEW = 4  # rows; with fewer than this in a pass the hardware idles and checkpointing is cheaper

_WORDS = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


class PassLimit:
    """The rows of one pass and whether blocks are checkpointed; less of either after a failure.

    rows: at most so many rows at once. may_checkpoint: whether checkpointing can be turned on.
    """

    def __init__(self, rows: int, checkpointing: bool, may_checkpoint: bool) -> None:
        self.rows, self.checkpointing = rows, checkpointing
        self._may_checkpoint = may_checkpoint

    def lower(self, used: int) -> bool:
        """Asks for less than a pass of ``used`` rows; False when there is nothing less to ask."""
        used = min(used, self.rows)
        if used <= FEW and self._may_checkpoint and not self.checkpointing:
            self.checkpointing = True
        elif used > 1:
            self.rows = used // 2
        else:
            return False
        return True

    def fit(self, free: int, row: int, wanted: int) -> None:
        """Starts with as many rows of ``row`` bytes as ``free`` bytes have room for."""
        rows = int(SPARE * free) // max(1, row)
        if rows < min(FEW, wanted) and self._may_checkpoint:
            self.checkpointing = True  # what a row then keeps is learnt by trying
        else:
            self.rows = max(1, min(self.rows, rows))


def saved_bytes_per_row(
    adapter: LiveAdapter, predict: Callable[[int], Tensor], rows: tuple[int, int] = (1, 2)
) -> int:
    """Bytes that one more row keeps for the backward pass, measured by two small forward passes.

    predict(n): a differentiable forward pass of n rows. The difference of the two passes leaves out
    what does not grow with the rows, such as weights cast to another precision.
    """
    own = {p.untyped_storage().data_ptr() for p in adapter.module.parameters()}
    kept = []
    for count in rows:
        storages: dict[int, int] = {}

        def note(tensor: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            output = predict(count)
            kept.append(sum(storages.values()))
            del output
    return max(1, (kept[1] - kept[0]) // (rows[1] - rows[0]))
