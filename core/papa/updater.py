"""One update: a few optimiser steps on the live adapter, undone as a whole if anything fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..adapter import LiveAdapter
from .config import PapaConfig
from .drift import DriftMeter
from .estimator import Draw, LossHistory
from .guidance import Guidance, guided
from .loss import IndexedPredictor
from .memory import is_out_of_memory
from .optimizer import optimizer_tensors, restore_optimizer
from .passes import Passes
from .precision import computing_in, initial_loss_scale, precision_of
from .samples import RatedSamples, UpdateReport


def papa_update(
    adapter: LiveAdapter,
    predict_noise: IndexedPredictor,
    samples: RatedSamples,
    alphas_cumprod: Tensor,
    config: PapaConfig,
    *,
    generator: torch.Generator,
    guidance: Guidance | None = None,
    optimizer_state: Mapping[str, Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    free_memory: Callable[[], int] | None = None,
    measure_drift: bool = True,
) -> tuple[UpdateReport, dict[str, Tensor]]:
    """A few optimiser steps on the attached adapter. Returns the report and the optimiser's state.

    predict_noise(x_t (n, …), t (n,), index (n,)) -> ε: the network with whatever adapter scale is
    set; ``index`` says which sample a row belongs to (its conditioning). Every step sees the fresh
    samples and ``config.replay`` earlier ones. With ``guidance`` the guided prediction learns, for
    two rows of the network each; drift is always of ``predict_noise``. ``should_stop`` is asked
    between forward passes. ``free_memory``: bytes free on the device, from which the first pass's
    rows are estimated. Where memory runs out, a step is tried again in passes of half as many rows.
    A stop or a non-finite loss or gradient restores the adapter as it was, and the report says so;
    an exception restores it too. What is learnt does not depend on the rows of a pass.
    """
    began, report = time.monotonic(), UpdateReport(samples=samples.fresh)
    before, state = adapter.state_dict(), dict(optimizer_state or {})
    optimizer = torch.optim.Adam(adapter.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    restore_optimizer(optimizer, adapter, state)
    history = LossHistory.from_state(state)
    dtype, device = precision_of(adapter, config), adapter.parameters()[0].device
    report.precision = str(dtype).removeprefix("torch.")

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        with computing_in(dtype, device):
            return predict_noise(x_t, t, index).to(x_t)

    passes = Passes(
        adapter, predict if guidance is None else guided(predict, guidance), samples,
        alphas_cumprod, config, initial_loss_scale(adapter, dtype), should_stop,
    )  # fmt: skip
    meter = DriftMeter(adapter, predict, samples, alphas_cumprod, config)
    try:
        if free_memory is not None:
            passes.fit(free_memory())
        for step in range(config.steps):
            chosen = samples.chosen(config.replay, generator)
            draw = Draw.of(samples, chosen, alphas_cumprod, config, history, generator)
            loss = passes.gradient(draw, chosen, history)
            if loss is None:
                report.stopped = True
                report.rolled_back = "the update was interrupted"
                break
            norm = float(torch.nn.utils.clip_grad_norm_(adapter.parameters(), config.clip_norm))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                report.rolled_back = f"the loss was not finite at step {step + 1}"
                break
            kept = None
            if config.drift_limit is not None:
                kept = adapter.state_dict(), optimizer_tensors(optimizer, adapter)
            if norm > 0:  # else Adam's momentum would carry on where the bound says stop
                optimizer.step()
            if kept is not None and _too_far(adapter, meter, config, passes, report):
                adapter.load_state_dict(kept[0])
                optimizer.state.clear()
                restore_optimizer(optimizer, adapter, kept[1])
                break
            report.steps = step + 1
            report.loss.append(loss)
            report.parts.append(passes.parts)
            report.gradient_norm.append(norm)
            if progress is not None:
                progress(step + 1, config.steps)
        if report.rolled_back is None and not _all_finite(adapter):
            report.rolled_back = "the adapter was no longer finite"
        if report.rolled_back is None and measure_drift and report.drift is None:
            report.drift = _drift(meter, passes)
        if report.drift is not None and not math.isfinite(report.drift):
            report.rolled_back, report.drift = "the model's predictions were no longer finite", None
    except BaseException:
        adapter.load_state_dict(before)
        raise
    finally:
        optimizer.zero_grad(set_to_none=True)
    if report.rolled_back is not None:
        adapter.load_state_dict(before)
    else:
        state = {**optimizer_tensors(optimizer, adapter), **history.state()}
    report.rows, report.checkpointing = passes.limit.rows, passes.limit.checkpointing
    report.seconds = time.monotonic() - began
    return report, state


def _too_far(
    adapter: LiveAdapter,
    meter: DriftMeter,
    config: PapaConfig,
    passes: Passes,
    report: UpdateReport,
) -> bool:
    """Whether the last step passed the drift limit; the report says so then."""
    assert config.drift_limit is not None
    drift = _drift(meter, passes)
    if drift is None or not drift > config.drift_limit or not _all_finite(adapter):
        report.drift = drift
        return False
    report.early = f"the drift limit {config.drift_limit:g} was reached"
    if report.steps == 0:
        report.rolled_back = (
            f"one more step would pass the drift limit {config.drift_limit:g} (to {drift:.3g})"
        )
    return True


def _drift(meter: DriftMeter, passes: Passes) -> float | None:
    """None where not even one row at a time has room."""
    while True:
        try:
            return meter.measure(passes.limit.rows)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if not passes.limit.lower(passes.limit.rows):
            return None


def _all_finite(adapter: LiveAdapter) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in adapter.parameters())
