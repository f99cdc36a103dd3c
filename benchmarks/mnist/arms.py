"""The procedures that are compared, each with its settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from palate.core.papa import PapaConfig
from palate.core.schedule import elbo_weights

from .base import ALPHAS_CUMPROD

Kind = Literal["papa", "authors", "d3po", "none", "best of"]

OURS = PapaConfig(replay=10, checkpointing="off")
AUTHORS = replace(PapaConfig.authors(timesteps=32), rows=128, precision="auto", checkpointing="off")
ALL_RATE = 3e-5  # of all weights; OURS.learning_rate is a LoRA's
D3PO_RATE = 3e-5  # as published
EPAPA_BEST = 200


@dataclass(frozen=True)
class Arm:
    """One procedure. weights: what learns. early_steps: optimiser steps in each of the first five
    interactions (0 = as later). likes_only: dislikes teach nothing (no L_PAE)."""

    kind: Kind
    weights: Literal["lora", "all"] = "lora"
    config: PapaConfig = OURS
    rank: int = 8
    early_steps: int = 0
    likes_only: bool = False
    count: int = 1
    passes: int = 2
    note: str = ""

    def with_settings(self, settings: dict[str, Any]) -> Arm:
        """The same arm with other fields, of its own or of its config."""
        own = {k: v for k, v in settings.items() if k in self.__dataclass_fields__}
        rest = {k: v for k, v in settings.items() if k not in own}
        return replace(self, **own, config=replace(self.config, **rest))


def share_of_weight(first: int) -> float:
    """Σ_{t ≥ first} c_t / Σ_t c_t: EPAPA's part of PAPA's sum over the timesteps."""
    weights = elbo_weights(ALPHAS_CUMPROD)
    return float(weights[first:].sum() / weights.sum())


def epapa(first: int, **settings: Any) -> Arm:
    """Ours on t ≥ first alone, with as many timesteps for a share of c_t as PAPA has."""
    count = max(1, round(OURS.timesteps * share_of_weight(first)))
    return Arm("papa", config=replace(OURS, first_timestep=first, timesteps=count, **settings))


HALF_DECADE = 10**0.5

ARMS: dict[str, Arm] = {
    "base": Arm("none"),
    "best of 2": Arm("best of", count=2),
    "best of 4": Arm("best of", count=4),
    "PAPA code": Arm("authors", "all", AUTHORS),
    "PAPA figure": Arm("authors", "all", replace(AUTHORS, variant="figure", replay=1)),
    "ours LoRA": Arm("papa", config=OURS),
    "ours all weights": Arm("papa", "all", replace(OURS, learning_rate=ALL_RATE)),
    "EPAPA 200": epapa(200),
    "EPAPA 400": epapa(400),
    "EPAPA 600": epapa(600),
    "EPAPA rate low": epapa(EPAPA_BEST, learning_rate=OURS.learning_rate / HALF_DECADE),
    "EPAPA rate high": epapa(EPAPA_BEST, learning_rate=OURS.learning_rate * HALF_DECADE),
    "D3PO": Arm("d3po", config=replace(OURS, learning_rate=D3PO_RATE)),
    "no QPDE": Arm("papa", config=replace(OURS, distillation=0.0)),
    "no L_PAE": Arm("papa", config=OURS, likes_only=True),
    "no bound": Arm("papa", config=replace(OURS, bound="none")),
}
