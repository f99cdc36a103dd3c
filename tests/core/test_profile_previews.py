"""Previews: what a revision draws at fixed seeds, kept complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from palate.core.profile import ProfileError, TasteProfile, UnknownRevision
from PIL import Image
from profiles import reopened
from torch import Tensor


def commit(profile: TasteProfile) -> int:
    weights = {"w": torch.ones(3)}
    return profile.commit_revision(weights, {}, used=(), report={}, metadata={}).number


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 8, 12, 3, generator=torch.Generator().manual_seed(seed))


def shown(paths: list[Path]) -> Tensor:
    return torch.stack([torch.from_numpy(np.asarray(Image.open(path)) / 255) for path in paths])


def test_previews_read_back_in_the_order_of_their_seeds(profile: TasteProfile) -> None:
    images = pictures(12)  # more than ten, so that 10.png must come after 9.png
    commit(profile)
    assert profile.previews(0) == profile.previews(1) == []
    profile.keep_previews(1, images)
    assert profile.previews(0) == []
    assert (shown(reopened(profile).previews(1)) - images).abs().max() <= 0.5 / 255 + 1e-6


def test_the_base_model_has_previews_too(profile: TasteProfile) -> None:
    profile.keep_previews(0, pictures(2))
    assert len(profile.previews(0)) == 2


def test_the_first_set_stays(profile: TasteProfile) -> None:
    """A page may keep in its cache what it has once been shown of a revision."""
    profile.keep_previews(0, pictures(2))
    before = [path.read_bytes() for path in profile.previews(0)]
    profile.keep_previews(0, pictures(3, seed=1))
    assert [path.read_bytes() for path in profile.previews(0)] == before


@pytest.mark.parametrize("bad", [1, -1, True, 1.0, "0", None, 10**5000], ids=lambda b: str(type(b)))
def test_an_unknown_revision(profile: TasteProfile, bad: Any) -> None:
    with pytest.raises(UnknownRevision, match=r"0 \(the base model\) to 0"):
        profile.keep_previews(bad, pictures(1))
    with pytest.raises(UnknownRevision, match=r"0 \(the base model\) to 0"):
        profile.previews(bad)
    assert list((profile.folder / "previews").iterdir()) == []


@pytest.mark.parametrize(
    "images",
    [pictures(2)[0], pictures(2)[..., :1], pictures(0), pictures(1) * torch.nan, "an image"],
    ids=["one image", "grey", "none", "NaN", "text"],
)
def test_what_makes_no_preview_is_refused_and_leaves_nothing(
    profile: TasteProfile, images: Any
) -> None:
    with pytest.raises(ProfileError, match="a preview"):
        profile.keep_previews(0, images)
    assert profile.previews(0) == list((profile.folder / "previews").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="limits of a file's size are POSIX")
def test_a_full_disk_leaves_no_half_set(profile: TasteProfile) -> None:
    import resource

    images = torch.cat([torch.zeros(1, 64, 64, 3), torch.rand(1, 64, 64, 3)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # room for the first, black one
    try:
        with pytest.raises(ProfileError, match="free space"):
            profile.keep_previews(0, images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert profile.previews(0) == list((profile.folder / "previews").iterdir()) == []
    profile.keep_previews(0, images)
    assert len(profile.previews(0)) == 2


def test_leftovers_and_previews_of_no_revision_are_removed(profile: TasteProfile) -> None:
    """A later number comes from a database put back from a backup: the pictures would be taken for
    those of the revision that gets this number anew."""
    commit(profile)
    profile.keep_previews(1, pictures(2))
    folder = profile.folder / "previews"
    for leftover in (".part-000000", "000002"):
        (folder / leftover).mkdir()
        (folder / leftover / "0.png").write_bytes(b"half")
    (folder / "notes.txt").write_text("the artist's own")
    profile = reopened(profile)
    assert {entry.name for entry in folder.iterdir()} == {"000001", "notes.txt"}
    assert commit(profile) == 2
    assert profile.previews(2) == []


def test_a_profile_made_before_there_were_previews_gets_them(profile: TasteProfile) -> None:
    (profile.folder / "previews").rmdir()
    profile = reopened(profile)
    profile.keep_previews(0, pictures(1))
    assert len(profile.previews(0)) == 1
