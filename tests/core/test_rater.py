"""Raters: each taste ranks obvious pairs the right way, from pixels alone."""

from __future__ import annotations

import pytest
import torch
from palate.core.papa import graded_labels
from palate.core.rater import TASTES, Rater
from torch import Tensor


def flat(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).expand(16, 16, 3)


def noise(seed: int = 0) -> Tensor:
    return torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(seed))


def mirrored() -> Tensor:
    half = noise()[:, :8]
    return torch.cat([half, half.flip(1)], dim=1)


RISING = torch.linspace(0, 1, 16).view(1, 16, 1).expand(16, 16, 3)
PAIRS = [
    ("warm colours", flat(0.9, 0.5, 0.1), flat(0.1, 0.5, 0.9)),
    ("warm colours", flat(0.6, 0.0, 0.4), flat(0.9, 0.9, 0.9)),
    ("dark", flat(0.1, 0.1, 0.1), flat(0.9, 0.9, 0.9)),
    ("dark", flat(0.0, 0.0, 0.9), flat(0.0, 0.9, 0.0)),
    ("dense detail", noise(), flat(0.5, 0.5, 0.5)),
    ("dense detail", noise(), RISING),
    ("symmetric", mirrored(), noise()),
    ("symmetric", mirrored(), RISING),
    ("symmetric", mirrored(), flat(0.5, 0.5, 0.5)),
]


@pytest.mark.parametrize(("taste", "better", "worse"), PAIRS)
def test_the_better_of_an_obvious_pair_wins(taste: str, better: Tensor, worse: Tensor) -> None:
    rater = Rater(taste)
    better_score, worse_score = rater.score(torch.stack([better, worse])).tolist()
    assert better_score > worse_score
    images = torch.stack([worse, better])
    assert rater.answer(images, ("pick", "skip")) == {"kind": "pick", "winner": 1}


def test_symmetry_runs_from_minus_one_to_one() -> None:
    images = torch.stack([mirrored(), RISING, flat(0.3, 0.3, 0.3), 0.2 + 0.5 * mirrored()])
    expected = torch.tensor([1.0, -1.0, 0.0, 1.0])
    torch.testing.assert_close(Rater("symmetric").score(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("taste", TASTES)
def test_scores_are_one_an_image_and_of_each_image_alone(taste: str) -> None:
    images = torch.stack([noise(n) for n in range(5)])
    scores = Rater(taste).score(images)
    assert scores.shape == (5,)
    alone = torch.cat([Rater(taste).score(image[None]) for image in images])
    torch.testing.assert_close(scores, alone)
    with_alpha = torch.cat([images, torch.rand(5, 16, 16, 1)], dim=3)
    torch.testing.assert_close(Rater(taste).score(with_alpha), scores)
    torch.testing.assert_close(Rater(taste).score(images.half()), scores, rtol=1e-2, atol=1e-2)


def grey(*levels: float) -> Tensor:
    return torch.stack([flat(level, level, level) for level in levels])


@pytest.mark.parametrize(
    ("kinds", "answer"),
    [
        (("pick", "rank", "rate", "skip"), {"kind": "rate", "ratings": [-1, 1, -1, 1]}),
        (("rate",), {"kind": "rate", "ratings": [-1, 1, -1, 1]}),
        (("pick", "rank", "skip"), {"kind": "rank", "order": [3, 1, 0, 2]}),
        (("pick", "skip"), {"kind": "pick", "winner": 3}),
    ],
)
def test_a_rater_answers_in_a_kind_that_is_taken(
    kinds: tuple[str, ...], answer: dict[str, object]
) -> None:
    assert Rater("dark").answer(grey(0.6, 0.2, 0.9, 0.1), kinds) == answer


def test_of_an_odd_number_the_larger_part_is_disliked() -> None:
    answer = Rater("dark").answer(grey(0.6, 0.2, 0.9))
    assert answer == {"kind": "rate", "ratings": [-1, 1, -1]}


@pytest.mark.parametrize("kinds", [("rate", "skip"), ("rate",), ("skip",)])
def test_a_lone_image_is_never_compared(kinds: tuple[str, ...]) -> None:
    """There is nothing to compare it with, so a pick would be refused."""
    answer = Rater("dark").answer(grey(0.6), kinds)
    assert answer == {"kind": "skip"}
    assert bool(graded_labels(answer, 1).isnan().all())


def test_an_unknown_taste_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'sweet'.*warm colours, dark, dense detail, symmetric"):
        Rater("sweet")
