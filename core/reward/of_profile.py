"""The reward network of a profile: learnt from its whole log, kept with it until the log grows."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor

from ..profile import Query, TasteProfile
from .model import Answered, RewardModel

FILE = "reward"
LATENTS = "latents"

ToNetwork = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]


def answers_of(
    profile: TasteProfile, shape: tuple[int, ...], to_network: ToNetwork
) -> list[Answered]:
    """Every closed query of latents of that shape (C, H, W), skips included, oldest first.

    ``to_network`` takes latents as nodes pass them into the space the network works in.
    """
    found: list[Answered] = []
    for query in _closed(profile):
        latents = profile.tensor(query.id, LATENTS)
        if latents is not None and tuple(latents.shape[1:]) == shape:
            assert query.answer is not None
            found.append((to_network(latents), query.answer))
    return found


def latest_shape(profile: TasteProfile) -> tuple[int, ...] | None:
    """(C, H, W) of the latents that were rated last, or None before the first answer."""
    for query in reversed(_closed(profile)):
        latents = profile.tensor(query.id, LATENTS)
        if latents is not None:
            return tuple(latents.shape[1:])
    return None


@torch.inference_mode(False)  # its tensors take part in the gradients of a later run
def reward_of(
    profile: TasteProfile,
    shape: tuple[int, ...],
    answers: list[Answered],
    *,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> RewardModel:
    """The reward learnt from ``answers``: as kept in the profile, or fitted afresh and kept.

    The same answers give the same network. It is not ``ready`` while they are one-sided.
    """
    closed = json.dumps([query.id for query in _closed(profile)])
    kept = _kept(profile, shape, closed)
    if kept is not None:
        return kept
    reward = RewardModel(shape).fit(
        answers,
        generator=torch.Generator().manual_seed(len(answers)),
        progress=progress,
        should_stop=should_stop,
    )
    if should_stop is None or not should_stop():
        profile.keep(FILE, reward.state_dict(), {"answers": closed, "reason": reward.reason})
    return reward


def _closed(profile: TasteProfile) -> list[Query]:
    return [query for query in profile.queries() if query.state != "pending"]


def _kept(profile: TasteProfile, shape: tuple[int, ...], closed: str) -> RewardModel | None:
    found = profile.kept(FILE)
    if found is None or found[1].get("answers") != closed:
        return None
    try:
        reward = RewardModel.from_state_dict(found[0], found[1].get("reason", ""))
    except (KeyError, ValueError, RuntimeError):
        return None  # another version wrote it; the log has everything
    return reward if reward.shape == shape else None
