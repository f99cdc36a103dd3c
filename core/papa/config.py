"""Settings of PAPA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PapaConfig:
    """Settings of one update. Defaults are for a LoRA and were found by measurement
    (benchmarks/papa_defaults.py, demo.py); the authors' are `PapaConfig.authors`.

    attraction, distillation: a and b. variant: "code" distils on liked samples at the last
    timestep, as the authors' program does, "figure" on disliked ones at a random timestep, as the
    paper draws it. bound: "hinge" stops the ascent on a disliked sample once its loss passes
    bound_ratio × base loss + bound_margin; "none" is the paper's. learning_rate, steps, clip_norm:
    Adam's. timesteps: M drawn per image and step. first_timestep: EPAPA's boundary t0 (0 = PAPA).
    replay: earlier ratings mixed into each step. rows: the largest number of (image, timestep) rows
    in one pass, less where memory is short; a guided row is two of the network's. common_noise: one
    draw of timesteps and noise for all samples of a query, so that what its likes and dislikes
    share cancels.

    draw: the timesteps' distribution, ∝ c_t ("elbo") or ∝ c_t·√(running loss) ("loss"); either is
    unbiased. shared_noise: one ε for all timesteps of an image, as the authors' program does.
    precision: of the network's products; the adapter and Adam stay in float32. "auto" is the base
    weights' own half precision, else bfloat16 where the device is fast at it, else float32.
    checkpointing: whether the backward pass computes the blocks' activations again instead of
    keeping them; "auto" is when memory asks for it. drift_limit: the update stops early before the
    drift (see `DriftMeter`) passes it; None lets it go on.
    """

    attraction: float = 0.1
    distillation: float = 0.1
    variant: Literal["code", "figure"] = "code"
    bound: Literal["none", "hinge"] = "hinge"
    bound_ratio: float = 1.5
    bound_margin: float = 0.0
    learning_rate: float = 1e-3
    steps: int = 6
    clip_norm: float = 1.0
    timesteps: int = 4
    first_timestep: int = 0
    replay: int = 12
    rows: int = 128
    common_noise: bool = True
    draw: Literal["elbo", "loss"] = "elbo"
    shared_noise: bool = False
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    checkpointing: Literal["auto", "on", "off"] = "auto"
    drift_limit: float | None = None

    def __post_init__(self) -> None:
        for name, options in _OPTIONS.items():
            if getattr(self, name) not in options:
                words = " or ".join(map(repr, options))
                raise ValueError(f"{name} must be {words}, not {getattr(self, name)!r}")
        for name in ("steps", "timesteps", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("attraction", "distillation", "first_timestep", "replay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.drift_limit is not None and not self.drift_limit > 0:
            raise ValueError(f"drift_limit must be positive or None, not {self.drift_limit}")

    @classmethod
    def authors(cls, timesteps: int = 1000) -> PapaConfig:
        """The authors' program on one device: every t, one ε an image, one step an image, no
        bound, no clipping, no replay. Their 8 processes average the t-sum, hence a/8."""
        return cls(
            attraction=0.1 / 8,
            distillation=0.009,
            bound="none",
            learning_rate=1e-5,
            steps=1,
            clip_norm=math.inf,
            timesteps=timesteps,
            replay=0,
            rows=1,
            common_noise=False,
            shared_noise=True,
            precision="float32",
        )


_OPTIONS = {
    "variant": ("code", "figure"),
    "bound": ("none", "hinge"),
    "draw": ("elbo", "loss"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "checkpointing": ("auto", "on", "off"),
}
