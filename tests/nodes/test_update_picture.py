"""The picture of an update: what it shows, and that it can be drawn of anything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from palate.core.profile import ProfileStore, TasteProfile
from palate.nodes.plots import BLUE, GREEN, ORANGE, RED, Axes, Figure
from palate.nodes.update_picture import drifts, shown_before_and_after, update_picture
from torch import Tensor

STEP = [0.04, -0.03, 0.001]


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[TasteProfile]:
    store = ProfileStore(tmp_path / "palate")
    yield store.open("Warm colours")
    store.close()


def commit(profile: TasteProfile, drift: float | None, parent: int | None = None) -> None:
    profile.commit_revision(
        {"w": torch.ones(1)}, {}, used=(), report={"drift": drift}, metadata={}, parent=parent
    )


def count(picture: Tensor, colour: tuple[int, int, int]) -> int:
    pixels = (picture[0] * 255).round().int().numpy()
    return int((np.abs(pixels - np.array(colour)).max(-1) <= 2).sum())


def test_the_drift_is_told_along_the_line_of_descent(profile: TasteProfile) -> None:
    commit(profile, 0.1)
    commit(profile, 0.2)
    commit(profile, None, parent=1)
    assert drifts(profile, 0) == [(0, 0.0)]
    assert drifts(profile, 2) == [(0, 0.0), (1, 0.1), (2, 0.2)]
    line = drifts(profile, 3)
    assert line[:2] == [(0, 0.0), (1, 0.1)]
    assert math.isnan(line[2][1])


def test_before_and_after_are_the_base_the_parent_and_now(profile: TasteProfile) -> None:
    for _ in range(3):
        commit(profile, 0.1)
    for number in range(4):
        profile.keep_previews(number, torch.rand(2, 8, 8, 3))
    commit(profile, 0.1)

    def headings(revision: int) -> list[str]:
        return [shown.heading for shown in shown_before_and_after(profile, revision)]

    assert headings(3) == ["base model", "before, revision 2", "now"]
    assert headings(1) == ["base model", "now"]
    assert headings(0) == ["base model"]
    assert headings(4) == ["base model", "before, revision 3"]


@pytest.mark.parametrize("previews", [0, 1, 2, 8])
@pytest.mark.parametrize("steps", [0, 1, 6, 300])
def test_there_is_a_picture_of_anything(profile: TasteProfile, previews: int, steps: int) -> None:
    commit(profile, 0.1)
    if previews:
        for number in (0, 1):
            profile.keep_previews(number, torch.rand(previews, 8, 12, 3))
    picture = update_picture(profile, 1, "Said " * 100, [STEP] * steps, 0.5)
    assert picture.shape[0] == 1
    assert picture.shape[2:] == (960, 3)
    assert 0 <= float(picture.min()) < float(picture.max()) <= 1
    for colour in (GREEN, RED, BLUE, ORANGE):
        assert count(picture, colour) > 0


def test_a_loss_that_is_not_finite_leaves_a_gap(profile: TasteProfile) -> None:
    spoilt = [STEP, [math.nan, math.inf, 0.0], STEP]
    assert update_picture(profile, 0, "", spoilt, None).isfinite().all()


def test_values_lie_where_the_axes_say() -> None:
    axes = Axes(Figure(300, 200), (10, 10, 290, 190), "t", (0, 4), (-1.0, 1.0))
    assert axes.at(0, 0)[1] == pytest.approx((axes.top + axes.bottom) / 2)
    assert axes.at(4, 1.0) == pytest.approx((axes.right, axes.top))
    assert axes.at(0, -1.0) == pytest.approx((axes.left, axes.bottom))
