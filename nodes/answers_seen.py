"""What the answers on disk amount to, for nodes whose result depends on them."""

from __future__ import annotations

from ..core.profile import ProfileError
from . import host


def answers_seen() -> list[list[str | int]]:
    """The number of questions answered or skipped, by taste.

    ComfyUI asks for fingerprints before it knows what comes over a wire, so every taste counts.
    """
    return [[name, count] for name in host.store().names() if (count := _closed(name))]


def _closed(name: str) -> int:
    """0 also for a taste that can't be opened: `execute` says why."""
    try:
        with host.store().look_into(name) as profile:
            return profile.closed_queries
    except ProfileError:
        return 0
