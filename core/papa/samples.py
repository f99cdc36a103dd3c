"""What an update learns from, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class RatedSamples:
    """Latents x0 (N, …) and graded labels (N,); ``fresh`` of them, the last ones, are new.

    groups: (N,) int, which query each sample was rated in (default: each its own). Replay brings
    back whole queries, so that likes and dislikes of one prompt stay side by side.
    """

    latents: Tensor
    labels: Tensor
    fresh: int
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.latents) != len(self.labels) or not 0 < self.fresh <= len(self.labels):
            raise ValueError("latents and labels must be of one length, with 0 < fresh ≤ length")
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise ValueError("groups must be of the same length as labels")
        if not torch.isfinite(self.labels).all() or not torch.isfinite(self.latents).all():
            raise ValueError("latents and labels must be finite")

    def chosen(self, replay: int, generator: torch.Generator) -> Tensor:
        """Indices of one step: all the fresh samples and about ``replay`` of the earlier ones."""
        old = len(self.labels) - self.fresh
        fresh = torch.arange(old, len(self.labels))
        groups = torch.arange(old) if self.groups is None else self.groups[:old]
        known = groups.unique()
        again: list[Tensor] = []
        for group in known[torch.randperm(len(known), generator=generator)]:
            if sum(map(len, again)) >= replay:
                break
            again.append(torch.nonzero(groups == group).flatten())
        return torch.cat([*again, fresh])


@dataclass
class UpdateReport:
    """What an update did; ``rolled_back`` says why nothing changed, if so.

    loss: of each step; parts: the same as L_p, L_PAE and L_QPDE, whose sum it is.
    drift: the adapter's distance to the base after the update (see `DriftMeter`), None if it was
    not measured. early: why the update ended before its last step and kept what it had. rows: rows
    in one forward pass at the end. precision, checkpointing: what was used.
    """

    steps: int = 0
    loss: list[float] = field(default_factory=list)
    parts: list[list[float]] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    seconds: float = 0.0
    samples: int = 0
    stopped: bool = False
    rolled_back: str | None = None
    drift: float | None = None
    early: str | None = None
    rows: int = 0
    precision: str = "float32"
    checkpointing: bool = False

    def summary(self) -> dict[str, object]:
        """JSON for the profile and the panel."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "loss_first": self.loss[0] if self.loss else None,
            "loss_last": self.loss[-1] if self.loss else None,
            "gradient_norm": max(self.gradient_norm, default=None),
            "seconds": round(self.seconds, 2),
            "stopped": self.stopped,
            "rolled_back": self.rolled_back,
            "drift": self.drift,
            "early": self.early,
            "rows": self.rows,
            "precision": self.precision,
            "checkpointing": self.checkpointing,
        }
