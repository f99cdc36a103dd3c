"""Palate's own wire types."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

CATEGORY = "Palate"

TasteType = io.Custom("PALATE_TASTE")
FeedbackType = io.Custom("PALATE_FEEDBACK")
RaterType = io.Custom("PALATE_RATER")
PlanType = io.Custom("PALATE_PLAN")


@dataclass(frozen=True)
class Feedback:
    """Queries that were answered and have not been learnt from, oldest first."""

    profile: str
    queries: tuple[str, ...]
