"""Choosing K of N candidates, against brute force."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.design import difference_matrix, information, select_pool
from torch import Tensor


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(features: Tensor, chosen: list[int], precision: Tensor, criterion: str) -> float:
    """The criterion of what is known plus the information of K deterministic policies."""
    policies = [[torch.eye(len(features), dtype=torch.float64)[i]] for i in chosen]
    total = precision + information(policies, [features])
    if criterion == "D":
        return float(torch.logdet(total))
    target = difference_matrix([features]) if criterion == "V" else torch.eye(features.shape[1])
    return -float((target.double() @ torch.linalg.inv(total)).trace())


def known(dim: int, seed: int) -> Tensor:
    root = random(dim, dim, seed=seed)
    return root @ root.T / dim + 0.3 * torch.eye(dim, dtype=torch.float64)


@pytest.mark.parametrize("criterion", ["D", "A", "V"])
@pytest.mark.parametrize("with_precision", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_within_two_percent_of_the_best_there_is(
    criterion: str, with_precision: bool, seed: int
) -> None:
    """In what can be gained: from a random choice's value to the best one's by brute force."""
    features, k = random(11, 4, seed=seed) + 2.0, 3 + seed % 2
    precision = known(4, seed) if with_precision else torch.eye(4, dtype=torch.float64)
    values = [value(features, list(s), precision, criterion) for s in combinations(range(11), k)]
    chosen = select_pool(features, k, precision if with_precision else None, criterion)
    found = value(features, chosen, precision, criterion)
    assert len(set(chosen)) == k
    assert max(values) - found <= 0.02 * (max(values) - sum(values) / len(values))


@given(seed=st.integers(0, 10_000), n=st.integers(2, 9), k=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_no_single_exchange_would_help(seed: int, n: int, k: int) -> None:
    k = min(n, k)
    features, precision = random(n, 3, seed=seed), known(3, seed + 1)
    chosen = select_pool(features, k, precision)
    found = value(features, chosen, precision, "D")
    for place in range(k):
        for other in set(range(n)) - set(chosen):
            swapped = [*chosen[:place], other, *chosen[place + 1 :]]
            assert value(features, swapped, precision, "D") <= found + 1e-9


def test_what_all_candidates_share_does_not_count() -> None:
    features = random(30, 5, seed=2)
    far = features + 1000 * random(1, 5, seed=3)
    assert sorted(select_pool(features, 4)) == sorted(select_pool(far, 4))


def test_a_direction_already_known_is_not_asked_about() -> None:
    features = torch.tensor([[10.0, 0.0], [-10.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert set(select_pool(features, 2)) == {0, 1}
    assert set(select_pool(features, 2, torch.diag(torch.tensor([1e9, 1.0])))) == {2, 3}


def test_twins_and_whole_pools_are_taken_in_stride() -> None:
    twins = torch.ones(6, 3)
    assert len(set(select_pool(twins, 4))) == 4
    assert sorted(select_pool(random(5, 3), 5)) == [0, 1, 2, 3, 4]
    assert len(select_pool(random(5, 3), 1)) == 1


@pytest.mark.parametrize(
    ("features", "k", "precision", "named"),
    [
        (random(3, 2), 4, None, "choose 4"),
        (random(3, 2), 0, None, "choose 0"),
        (random(3), 2, None, "features"),
        (random(3, 2) * torch.nan, 2, None, "finite"),
        (random(3, 2), 2, torch.eye(3), "precision"),
    ],
)
def test_pools_that_cannot_be_chosen_from_are_refused(
    features: Tensor, k: int, precision: Tensor | None, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        select_pool(features, k, precision)
