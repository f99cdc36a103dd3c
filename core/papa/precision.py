"""In which precision the network computes; the adapter and its optimiser stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..adapter import LiveAdapter
from .config import PapaConfig

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
LOSS_SCALE = 2.0**16  # float16 gradients of a mean over a latent would otherwise underflow


def cpu_is_fast_at_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX or AVX512-BF16)."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def precision_of(adapter: LiveAdapter, config: PapaConfig) -> torch.dtype:
    """The dtype of the network's products: float32, bfloat16 or float16.

    "auto" follows base weights in half precision. Float32 (or 8-bit) weights go with bfloat16 where
    the device is fast at it.
    """
    if config.precision != "auto":
        return HALVES.get(config.precision, torch.float32)
    dtype, device = adapter.base_dtype, adapter.parameters()[0].device
    if dtype in HALVES.values() and (device.type != "cpu" or dtype == torch.bfloat16):
        return dtype
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and cpu_is_fast_at_bfloat16()
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def computing_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Autocast to a half precision; float32 is as the network is."""
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        yield


def initial_loss_scale(adapter: LiveAdapter, dtype: torch.dtype) -> float:
    """By how much the loss is multiplied before its backward pass: 1 unless float16 is in use."""
    return LOSS_SCALE if torch.float16 in (dtype, adapter.base_dtype) else 1.0
