"""The gradient of one step, in as many passes as the memory asks for."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..adapter import LiveAdapter
from .blocks import trainable_blocks
from .config import PapaConfig
from .estimator import Draw, LossHistory
from .loss import PARTS, IndexedPredictor, papa_parts
from .memory import PassLimit, is_out_of_memory, saved_bytes_per_row
from .samples import RatedSamples

SMALLEST_SCALE = 1.0


class Passes:
    """Accumulates a step's gradient, and asks for less memory or a smaller loss scale if need be.

    predict: the network in the precision that is wanted, as `papa_update` describes it.
    loss_scale: the loss is multiplied by it before the backward pass, and the gradient divided.
    """

    def __init__(
        self,
        adapter: LiveAdapter,
        predict: IndexedPredictor,
        samples: RatedSamples,
        alphas_cumprod: Tensor,
        config: PapaConfig,
        loss_scale: float,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.adapter, self.predict, self.samples = adapter, predict, samples
        self.alphas_cumprod, self.config = alphas_cumprod, config
        self.loss_scale, self.should_stop = loss_scale, should_stop
        self.limit = PassLimit(
            config.rows, config.checkpointing == "on", config.checkpointing == "auto"
        )
        self._largest = 0
        self.parts = [0.0] * len(PARTS)  # of the last step's loss

    def fit(self, free: int) -> None:
        """Sets the rows of a pass by the memory that two rows are seen to keep, of ``free`` bytes.

        Does nothing with checkpointing on: what a block needs while it is computed again is seen
        only when it happens.
        """
        if self.limit.checkpointing:
            return
        x0 = self.samples.latents[-1:]
        t = torch.full((2,), len(self.alphas_cumprod) // 2)

        def forward(rows: int) -> Tensor:
            index = torch.full((rows,), len(self.samples.latents) - 1)
            return self.predict(x0.expand(rows, *x0.shape[1:]), t[:rows], index)

        try:
            row = saved_bytes_per_row(self.adapter, forward)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.limit.lower(1)
            return
        wanted = self.config.timesteps * (self.samples.fresh + self.config.replay)
        self.limit.fit(free, row, wanted)

    def gradient(self, draw: Draw, chosen: Tensor, history: LossHistory) -> float | None:
        """Leaves the gradient of one step in the adapter and returns the loss, which may not be
        finite; None when asked to stop. Raises what the network raises, and the out-of-memory error
        of a single row."""
        while True:
            seen: list[tuple[Tensor, Tensor]] = []
            self._largest = 0
            try:
                with trainable_blocks(self.adapter, self.limit.checkpointing):
                    loss = self._accumulate(draw, chosen, seen)
            except Exception as error:
                if not is_out_of_memory(error) or not self.limit.lower(self._largest):
                    raise
                loss = math.nan  # the traceback, and all it keeps alive, ends with this block
                again = True
            else:
                again = loss is not None and self._lower_scale(loss)
            if not again:
                break
            _release(self.adapter)
        if loss is not None:
            for timesteps, errors in seen:
                history.observe(timesteps, errors, len(self.alphas_cumprod))
        return loss

    def _lower_scale(self, loss: float) -> bool:
        """Divides the gradients by the loss scale; True if a smaller scale is worth trying."""
        if self.loss_scale == 1.0:
            return False
        gradients = [p.grad for p in self.adapter.parameters() if p.grad is not None]
        for gradient in gradients:
            gradient.div_(self.loss_scale)
        overflown = not all(bool(torch.isfinite(g).all()) for g in gradients)
        if not (overflown and math.isfinite(loss)) or self.loss_scale <= SMALLEST_SCALE:
            return False
        self.loss_scale = max(SMALLEST_SCALE, self.loss_scale / 16)
        return True

    def _accumulate(
        self, draw: Draw, chosen: Tensor, seen: list[tuple[Tensor, Tensor]]
    ) -> float | None:
        """Gradients of one step, in passes of at most ``limit.rows`` rows."""
        for parameter in self.adapter.parameters():
            parameter.grad = None
        x0, labels = self.samples.latents[chosen], self.samples.labels[chosen]

        def predict(x_t: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            return self.predict(x_t, t, chosen[sample])

        def predict_base(x_t: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            with self.adapter.scaled(0.0):
                return predict(x_t, t, sample)

        parts = torch.zeros(len(PARTS))
        for rows in draw.rows(labels, self.config).split(self.limit.rows):
            if self.should_stop is not None and self.should_stop():
                return None
            self._largest = max(self._largest, len(rows.sample))
            own, errors = papa_parts(
                predict, predict_base, x0, labels, rows, self.alphas_cumprod, self.config
            )
            seen.append((rows.timesteps, errors))
            own = own / len(chosen)
            loss = own.sum()
            if not torch.isfinite(loss):
                return math.nan
            (loss * self.loss_scale).backward(inputs=self.adapter.parameters())
            parts += own.detach().float().cpu()
        self.parts = parts.tolist()
        return sum(self.parts)


def _release(adapter: LiveAdapter) -> None:
    """Gives back what a failed pass held, before a smaller one is tried."""
    for parameter in adapter.parameters():
        parameter.grad = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
