"""Designs: information, criteria and the optimiser against scipy, differences and closed forms."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.design import (
    PromptSpace,
    design_queries,
    difference_matrix,
    exact_information,
    information,
    objective_value,
)
from palate.core.design.frank_wolfe import maximise
from palate.core.design.information import criterion_matrix
from palate.core.design.interior_point import curvature
from palate.core.design.objective import Objective, duality_gap
from palate.core.design.weighing import comparison_weights
from scipy.optimize import minimize
from torch import Tensor

CRITERIA = ("V", "A", "D")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def space_of(*sizes: int, dim: int = 3, seed: int = 0) -> PromptSpace:
    names = [[f"w{h}.{i}" for i in range(n)] for h, n in enumerate(sizes)]
    return PromptSpace(names, [random(n, dim, seed=seed + h) for h, n in enumerate(sizes)])


def random_policies(space: PromptSpace, arms: int, seed: int) -> list[list[Tensor]]:
    return [
        [torch.softmax(3 * random(len(f), seed=seed + 31 * q + h), 0)
         for h, f in enumerate(space.features)]
        for q in range(arms)
    ]  # fmt: skip


def objective_of(space: PromptSpace, criterion: str, rho: float = 0.01) -> Objective:
    ones = [torch.ones(len(f), dtype=torch.float64) for f in space.features]
    base = rho * torch.eye(space.dim, dtype=torch.float64)
    return Objective(space.features, ones, base, criterion_matrix(criterion, space.features))


# Information --------------------------------------------------------------------------------------


def test_the_exact_information_is_the_expected_fisher_information_of_a_pick() -> None:
    """By enumeration of all pairs that two policies over one slot can show, at θ = 0."""
    space, arms = space_of(4, dim=3), 2
    policies = random_policies(space, arms, 5)
    phi, expected = space.features[0], torch.zeros(3, 3, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            shown = torch.stack([phi[i], phi[j]])
            centred = shown - shown.mean(0)
            expected += policies[0][0][i] * policies[1][0][j] * centred.T @ centred / 2
    torch.testing.assert_close(exact_information(policies, space.features), expected)


def test_the_surrogate_is_the_covariance_of_the_mean_policy() -> None:
    space = space_of(5, 4)
    policies = random_policies(space, 3, 1)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for h, phi in enumerate(space.features):
        second = sum((p[h][:, None] * phi).T @ phi for p in policies) / 3
        mean = sum(p[h] @ phi for p in policies) / 3
        expected += second - torch.outer(mean, mean)
    torch.testing.assert_close(information(policies, space.features), expected)


@given(seed=st.integers(0, 10_000), arms=st.integers(2, 6), slots=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_the_surrogate_bounds_the_exact_information_on_both_sides(
    seed: int, arms: int, slots: int
) -> None:
    """(1 − 1/K)·Ĩ ⪯ I ⪯ Ĩ in the order of positive semidefinite matrices."""
    space = space_of(*[3, 5, 2][:slots], dim=4, seed=seed)
    policies = random_policies(space, arms, seed + 1)
    surrogate = information(policies, space.features)
    exact = exact_information(policies, space.features)
    for difference in (surrogate - exact, exact - (1 - 1 / arms) * surrogate):
        assert float(torch.linalg.eigvalsh(difference)[0]) >= -1e-9


@pytest.mark.parametrize("sizes", [(3, 5, 2), (4,)])
def test_v_sums_all_differences_within_the_lists_but_the_first(sizes: tuple[int, ...]) -> None:
    space = space_of(*sizes)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for phi in space.features[1:] or space.features:
        for a in phi:
            for b in phi:
                expected += torch.outer(a - b, a - b)
    torch.testing.assert_close(difference_matrix(space.features), expected)


def test_the_value_of_each_criterion() -> None:
    space, info = space_of(3, 4), torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    total = info + torch.eye(3, dtype=torch.float64) * 2.0 / (2 * 25)
    v = difference_matrix(space.features)
    expected = {
        "V": -float((v @ torch.linalg.inv(total)).trace()),
        "A": -float(torch.linalg.inv(total).trace()),
        "D": float(torch.logdet(total)),
    }
    for criterion, value in expected.items():
        found = objective_value(info, space, criterion, l2=2.0, episodes=25)
        assert found == pytest.approx(value, rel=1e-9)


# The optimiser ------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA)
def test_rewards_and_curvature_are_the_derivatives_of_the_objective(criterion: str) -> None:
    """Central differences in every token's chance, masses free to leave the simplex."""
    space = space_of(4, 3)
    objective = objective_of(space, criterion, 0.5)
    means = [torch.softmax(random(n, seed=n), 0) for n in (4, 3)]
    _, rewards = objective(means)
    hessian, step = curvature(objective, means), 1e-5
    for i in range(7):
        moved = []
        for sign in (1, -1):
            flat = torch.cat(means)
            flat[i] += sign * step
            moved.append(objective(list(flat.split([4, 3]))))
        slope = (moved[0][0] - moved[1][0]) / (2 * step)
        assert float(torch.cat(rewards)[i]) == pytest.approx(slope, rel=1e-5, abs=1e-6)
        curve = (torch.cat(moved[0][1]) - torch.cat(moved[1][1])) / (2 * step)
        torch.testing.assert_close(hessian[i], curve, rtol=1e-4, atol=1e-5)


def scipy_optimum(space: PromptSpace, criterion: str, rho: float) -> float:
    """The same problem for a generic solver, written without the package's functions."""
    phi = [f.numpy() for f in space.features]
    v = sum(
        np.outer(a - b, a - b) for f in (phi[1:] or phi) for a in f for b in f
    )  # fmt: skip
    ends = np.cumsum([len(f) for f in phi])

    def cost(d: Any) -> float:
        total = rho * np.eye(space.dim)
        for f, part in zip(phi, np.split(d, ends[:-1]), strict=True):
            total = total + (f.T * part) @ f - np.outer(part @ f, part @ f)
        if criterion == "D":
            return -np.linalg.slogdet(total)[1]
        return np.trace(np.linalg.solve(total, v if criterion == "V" else np.eye(space.dim)))

    starts = [0, *ends[:-1]]
    sums = [
        {"type": "eq", "fun": lambda d, a=a, b=b: d[a:b].sum() - 1}
        for a, b in zip(starts, ends, strict=True)
    ]
    begin = np.concatenate([np.full(len(f), 1 / len(f)) for f in phi])
    found = minimize(
        cost, begin, method="SLSQP", bounds=[(0, 1)] * len(begin), constraints=sums,
        options={"maxiter": 1000, "ftol": 1e-12},
    )  # fmt: skip
    return -float(found.fun)


@pytest.mark.parametrize("sizes", [(4, 5), (6,), (3, 4, 4)])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_small_design_is_the_optimum_of_a_generic_solver(
    criterion: str, sizes: tuple[int, ...]
) -> None:
    space = space_of(*sizes, seed=len(sizes))
    expected = scipy_optimum(space, criterion, 2.0 / (len(sizes) * 10))
    design = design_queries(space, 3, episodes=10, l2=2.0, criterion=criterion)
    assert design.objective == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert design.objective + design.gap >= expected - 1e-6 * abs(expected)
    assert design.relative_gap < 1e-6


@pytest.mark.parametrize("criterion", CRITERIA)
def test_frank_wolfe_s_vertices_alone_lead_to_the_same_optimum(criterion: str) -> None:
    space = space_of(6, 5)
    objective = objective_of(space, criterion, 0.1)
    uniform = [torch.full((len(f),), 1 / len(f), dtype=torch.float64) for f in space.features]
    by_vertices = maximise(objective, uniform, 200, 1e-2, vertices_only=True)
    by_faces = maximise(objective, uniform, 100, 1e-4)
    assert by_vertices.objective == pytest.approx(by_faces.objective, rel=2e-2)
    assert by_vertices.objective <= by_faces.objective + by_faces.gap
    assert all(after >= before for before, after in pairwise(by_vertices.history))


@given(seed=st.integers(0, 1000), criterion=st.sampled_from(CRITERIA))
@settings(max_examples=25, deadline=None)
def test_no_design_beats_the_certificate(seed: int, criterion: str) -> None:
    space = space_of(4, 6, dim=3, seed=seed)
    objective = objective_of(space, criterion)
    design = maximise(objective, [p.new_ones(len(p)) for p in space.features], 3)
    for other in range(20):
        rival = [torch.softmax(4 * random(n, seed=seed + other), 0) for n in (4, 6)]
        assert objective.value(rival) <= design.objective + design.gap + 1e-9
    assert duality_gap(design.means, objective(design.means)[1]) >= design.gap - 1e-9


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_design_reports_the_value_of_its_policies_and_how_it_climbed(criterion: str) -> None:
    space = space_of(7, 5, 6, dim=4)
    design = design_queries(space, 4, 20, 0.5, criterion)
    value = objective_value(information(design.policies, space.features), space, criterion, 0.5, 20)
    assert value == pytest.approx(design.objective, rel=1e-9)
    assert design.history[-1] == pytest.approx(design.objective)
    assert all(after >= before for before, after in pairwise(design.history))
    assert design.history[0] < design.history[-1]
    for policy in design.policies:
        for slot, chances in enumerate(policy):
            assert len(chances) == len(space.slots[slot])
            assert bool((chances >= 0).all())
            assert float(chances.sum()) == pytest.approx(1)


def test_the_arms_inform_more_than_equal_arms_would() -> None:
    """Equal arms give the lower bound (1 − 1/K)·Ĩ exactly; arms that differ give more."""
    space = space_of(40, 30, dim=4)
    design = design_queries(space, 4)
    equal = (1 - 1 / 4) * information(design.policies, space.features)
    exact = exact_information(design.policies, space.features)
    assert float(torch.linalg.eigvalsh(exact - equal)[0]) > -1e-9
    assert float((exact - equal).trace()) > 0.3 * float((equal / 3).trace())


def test_the_paper_s_size_is_certified_to_a_thousandth() -> None:
    """H = 6, 2,502 tokens with cosines of 0.8, d = 768, K = 4 (arXiv 2512.19057)."""
    rows = [random(1, 768, seed=9) + 0.5 * random(417, 768, seed=h) for h in range(6)]
    rows = [torch.nn.functional.normalize(f, dim=1) for f in rows]
    space = PromptSpace([[f"{h}.{i}" for i in range(417)] for h in range(6)], rows)
    design = design_queries(space, tolerance=1e-3)
    assert design.gap <= 1e-3 * abs(design.objective)


# Adaptive designs ---------------------------------------------------------------------------------


def test_what_is_known_already_is_not_asked_again() -> None:
    """Two slots of orthogonal differences; the first is known, so its spread no longer counts."""
    axes = torch.eye(2, dtype=torch.float64)
    rows = [torch.stack([axes[h], -axes[h], 0 * axes[h]]) for h in range(2)]
    space = PromptSpace([["a", "b", "c"], ["d", "e", "f"]], rows)
    known = 1e6 * torch.outer(axes[0], axes[0])
    fresh = design_queries(space, criterion="A")
    after = design_queries(space, criterion="A", collected=known)
    assert fresh.objective < after.objective
    for slot in range(2):  # the extremes are worth asking about, the middle is not
        assert float(fresh.means[slot][2]) < 1e-3
    assert float(after.means[1][2]) < 1e-3


def test_prompts_that_surely_win_or_lose_are_worth_less() -> None:
    phi = torch.tensor([[-9.0], [-1.0], [0.0], [1.0], [9.0]], dtype=torch.float64)
    (weights,) = comparison_weights([phi], torch.ones(1), arms=2, reference=[torch.tensor(
        [0.0, 0.3, 0.4, 0.3, 0.0], dtype=torch.float64)])  # fmt: skip
    assert float(weights[0]) < 0.01 > float(weights[4])
    assert bool((weights[1:4] > 0.6).all())
    (neutral,) = comparison_weights([phi], torch.zeros(1), arms=4)
    torch.testing.assert_close(neutral, torch.ones(5, dtype=torch.float64))


def test_a_design_at_an_estimate_avoids_hopeless_tokens() -> None:
    space = space_of(8, 8, dim=3)
    theta = 12 * random(3, seed=5)
    at_zero = design_queries(space, criterion="D")
    at_theta = design_queries(space, criterion="D", theta=theta)
    worst = [int((f @ theta).argmin()) for f in space.features]
    before = sum(float(at_zero.means[h][w]) for h, w in enumerate(worst))
    after = sum(float(at_theta.means[h][w]) for h, w in enumerate(worst))
    assert after < before


def test_a_warm_start_arrives_where_a_cold_one_does_in_fewer_steps() -> None:
    space = space_of(250, 200, 200, dim=150)
    first = design_queries(space, tolerance=1e-3)
    collected = torch.outer(random(150, seed=1), random(150, seed=1)) / 150
    cold = design_queries(space, collected=collected, tolerance=1e-3)
    warm = design_queries(space, collected=collected, tolerance=1e-3, start=first)
    assert warm.objective == pytest.approx(cold.objective, rel=2e-3)
    assert len(warm.history) < len(cold.history)


def test_feedback_at_every_prefix_counts_early_slots_more() -> None:
    """A slot's tokens stand in all later prefixes: Σ_h (H − h)·Ĩ_h."""
    space = space_of(3, 3, dim=2)
    dense = design_queries(space, criterion="D", dense=True)
    weights = [torch.full((3,), 2.0), torch.ones(3)]
    info = information(dense.policies, space.features, weights)
    assert objective_value(info, space, "D") == pytest.approx(dense.objective)
    by_hand = 2 * information([[p[0]] for p in dense.policies], space.features[:1])
    by_hand += information([[p[1]] for p in dense.policies], space.features[1:])
    torch.testing.assert_close(info, by_hand)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"arms": 1}, "arms"),
        ({"criterion": "G"}, "criterion"),
        ({"l2": 0.0}, "l2"),
        ({"episodes": 0}, "episodes"),
        ({"theta": torch.zeros(2)}, "theta"),
        ({"collected": torch.zeros(2, 2)}, "collected"),
        ({"rounds": -1}, "rounds"),
    ],
)
def test_senseless_designs_are_refused_by_name(settings_: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        design_queries(space_of(3, 3), **settings_)
