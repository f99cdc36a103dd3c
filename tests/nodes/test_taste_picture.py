"""A taste on one page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from palate.core.profile import ProfileStore, TasteProfile
from palate.nodes.taste_picture import likes_by_round, taste_picture, timeline, top_words


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[TasteProfile]:
    store = ProfileStore(tmp_path / "palate")
    yield store.open("Warm colours")
    store.close()


def answered(profile: TasteProfile, seed: int, answer: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 8, 8, 3, generator=generator)
    query = profile.ask(images, {}, ["a"] * 4, kinds=("pick", "rate", "skip"), generator=generator)
    profile.answer(query.id, answer)


def grown(profile: TasteProfile, revisions: int) -> None:
    """So many revisions, one after the other, each with a preview."""
    profile.keep_previews(0, torch.rand(1, 8, 8, 3))
    for number in range(1, revisions + 1):
        profile.commit_revision(
            {"w": torch.ones(1)}, {}, used=(), report={"drift": 0.01 * number}, metadata={}
        )
        profile.keep_previews(number, torch.rand(1, 8, 8, 3))


def test_likes_are_counted_where_each_image_is_rated(profile: TasteProfile) -> None:
    answered(profile, 0, {"kind": "rate", "ratings": [1.0, -1.0, -0.5, None]})
    answered(profile, 1, {"kind": "pick", "winner": 0})
    answered(profile, 2, {"kind": "skip"})
    answered(profile, 3, {"kind": "rate", "ratings": [1.0, 0.0, None, 0.2]})
    assert likes_by_round(profile) == [(1, pytest.approx(1 / 3)), (3, 1.0)]


@pytest.mark.parametrize("revisions", [0, 3, 6, 7, 40])
def test_the_timeline_runs_from_the_base_to_the_active_revision(
    profile: TasteProfile, revisions: int
) -> None:
    grown(profile, revisions)
    shown = [number for number, _ in timeline(profile, revisions)]
    assert shown[0] == 0
    assert shown[-1] == revisions
    assert shown == sorted(set(shown))
    assert len(shown) == min(7, revisions + 1)


@pytest.mark.parametrize("revisions", [0, 5])
def test_there_is_a_page_of_any_taste(profile: TasteProfile, revisions: int) -> None:
    empty = taste_picture(profile)
    if revisions:
        answered(profile, 0, {"kind": "rate", "ratings": [1.0, -1.0, -0.5, None]})
        grown(profile, revisions)
    page = taste_picture(profile)
    assert page.shape[2:] == (960, 3)
    assert 0 <= float(page.min()) < float(page.max()) <= 1
    assert (page.shape[1] > empty.shape[1]) == bool(revisions)
    assert top_words(profile) == []
