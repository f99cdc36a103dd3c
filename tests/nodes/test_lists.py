"""Batches and lists of batches, brought to one entry an image."""

from __future__ import annotations

import pytest
import torch
from palate.nodes.lists import check_decoded, joined, one_each


def test_batches_are_joined_in_their_order() -> None:
    a, b = torch.zeros(1, 2, 2, 3), torch.ones(2, 2, 2, 3)
    assert joined([a, b], "images", "A Node").flatten(1).mean(1).tolist() == [0, 1, 1]


def test_sizes_that_differ_are_named_with_the_node() -> None:
    with pytest.raises(ValueError, match=r"A Node compares images of one size.*4.*8"):
        joined([torch.zeros(1, 4, 4, 3), torch.zeros(1, 8, 8, 3)], "images", "A Node")


@pytest.mark.parametrize(
    ("conditionings", "batches", "expected"),
    [
        ("a", [3], "aaa"),
        ("a", [1, 2], "aaa"),
        ("abc", [1, 1, 1], "abc"),
        ("abc", [3], "abc"),
        ("ab", [1, 2], "abb"),
    ],
)
def test_conditionings_go_to_their_images(
    conditionings: str, batches: list[int], expected: str
) -> None:
    given = [[letter] for letter in conditionings]
    assert one_each(given, batches, "A Node") == [[letter] for letter in expected]


def test_conditionings_that_fit_no_image_are_refused() -> None:
    with pytest.raises(ValueError, match="A Node got 2 conditionings for 3 images"):
        one_each([["a"], ["b"]], [3], "A Node")


def test_images_without_their_latents_are_refused() -> None:
    check_decoded(2, 2, "A Node")
    with pytest.raises(ValueError, match="A Node got 3 images and 2 latents"):
        check_decoded(3, 2, "A Node")
