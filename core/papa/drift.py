"""The drift meter: how far the adapter has moved the model from its frozen base."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..adapter import LiveAdapter
from .config import PapaConfig
from .loss import IndexedPredictor, diffuse
from .samples import RatedSamples

IMAGES = 4  # the earliest rated ones, which stay the same from update to update
TIMESTEPS = 4  # of each image, evenly over t ≥ t0
SEED = 20260700486


class DriftMeter:
    """Mean squared distance ‖ε_θ − ε_base‖² on a fixed probe batch, relative to mean ‖ε_base‖².

    0 is the base model; 0.01 is a tenth of the base prediction's own size. The probe is the
    earliest rated latents with timesteps and noise that are always the same.
    """

    def __init__(
        self,
        adapter: LiveAdapter,
        predict_noise: IndexedPredictor,
        samples: RatedSamples,
        alphas_cumprod: Tensor,
        config: PapaConfig,
    ) -> None:
        self._adapter, self._predict = adapter, predict_noise
        x0 = samples.latents[:IMAGES]
        low = min(max(1, config.first_timestep), len(alphas_cumprod) - 1)
        middle = (torch.arange(TIMESTEPS) + 0.5) / TIMESTEPS * (len(alphas_cumprod) - low)
        self._t = (low + middle).long().repeat(len(x0))
        self._index = torch.arange(len(x0)).repeat_interleave(TIMESTEPS)
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn((len(self._t), *x0.shape[1:]), generator=generator)
        self._x_t = diffuse(x0[self._index], noise.to(x0), self._t, alphas_cumprod)
        self._base: list[Tensor] | None = None

    def measure(self, rows: int) -> float:
        """The drift now, ≥ 0, in passes of at most ``rows`` rows. The base is looked at once."""
        if self._base is None:
            with self._adapter.scaled(0.0):
                self._base = list(self._passes(rows))
        base = torch.cat(self._base)
        moved = torch.cat(list(self._passes(rows)))
        return float((moved - base).square().mean() / base.square().mean().clamp(min=1e-12))

    def _passes(self, rows: int) -> Iterator[Tensor]:
        for part in torch.arange(len(self._t)).split(rows):
            with torch.no_grad():
                seen = self._predict(self._x_t[part], self._t[part], self._index[part])
            yield seen.float()
