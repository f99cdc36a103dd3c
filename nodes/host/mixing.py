"""Several tastes on one MODEL at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.adapter import AdapterMix
from .live import (
    INJECTION,
    LiveTaste,
    OtherBaseModel,
    Taste,
    carries_a_taste,
    carrying,
    live_taste,
)


@dataclass(frozen=True)
class Share:
    """One taste's part in a mix; ``input`` names the node's input that it came from."""

    input: str
    taste: Taste
    weight: float


@dataclass(frozen=True, eq=False)
class Mixed:
    """A MODEL with several tastes on it; ``weights`` are as they were mixed, strengths included."""

    model: ModelPatcher
    mix: AdapterMix
    lives: list[LiveTaste]
    weights: list[float]


def mixed(model: ModelPatcher, shares: Sequence[Share]) -> Mixed:
    """The tastes of ``shares`` on a clone of ``model``: base + Σ weight·strength·ΔW.

    Each works above the boundary of its own Taste Profile, and is its active revision whenever a
    sampler begins. Raises ValueError if the model already carries a taste, or is not the base model
    that a taste was taught on.
    """
    if carries_a_taste(model):
        raise ValueError(
            "The MODEL on Taste Mixer already carries a taste: connect it as it comes from the "
            "loader. The tastes come in by their TASTE wires."
        )
    lives = [_live(model, share) for share in shares]
    weights = [share.weight * share.taste.strength for share in shares]
    mix = AdapterMix([live.adapter for live in lives])
    gates = torch.tensor([share.taste.gate for share in shares])
    return Mixed(_with_mix(model, mix, lives, weights, gates), mix, lives, weights)


def _live(model: ModelPatcher, share: Share) -> LiveTaste:
    """The taste's live adapter on the model's own network, whichever it was loaded with."""
    profile, adapter = share.taste.profile, share.taste.live.adapter
    try:
        live = live_taste(model, profile, adapter.rank)
    except OtherBaseModel:
        raise ValueError(
            f"{share.input} of Taste Mixer, {profile.name!r}, was taught on another base model "
            "than the MODEL beside it: connect the MODEL that goes into the Taste Profile of "
            f"{profile.name!r}, or take another taste."
        ) from None
    live.load_active_revision()
    return live


def _with_mix(
    model: ModelPatcher,
    mix: AdapterMix,
    lives: Sequence[LiveTaste],
    weights: Sequence[float],
    gates: Tensor,
) -> ModelPatcher:
    def gated(executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        on = sigma.reshape(-1, 1).cpu() >= gates  # (rows, tastes)
        result = None
        for pattern in on.unique(dim=0):
            with mix.attached([w if o else 0.0 for w, o in zip(weights, pattern, strict=True)]):
                drawn = executor(x, sigma, *args, **kwargs)
            rows = (on == pattern).all(1).to(drawn.device).reshape(-1, *[1] * (drawn.ndim - 1))
            result = drawn if result is None else torch.where(rows, drawn, result)
        assert result is not None
        return result

    key = f"{INJECTION}:mix:" + "+".join(live.key for live in lives)
    return carrying(model, key, lives, gated)
