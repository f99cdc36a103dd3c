"""Choice models: the posterior against scipy, autograd and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.choice import ChoiceModel
from scipy.optimize import minimize
from torch import Tensor

D = 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Posterior:
    """The negative log posterior over (θ, intercept) once more, written for reading."""

    def __init__(self, l2: float) -> None:
        self.model, self.l2 = ChoiceModel(D, l2), l2
        self.terms: list[Callable[[Tensor], Tensor]] = []

    def pick(self, features: Tensor, winner: int) -> None:
        self.model.observe_choice(features, winner)
        self.terms.append(lambda p: torch.logsumexp(features @ p[:D], 0) - features[winner] @ p[:D])

    def rank(self, features: Tensor, order: list[int]) -> None:
        """Plackett–Luce: the chance of a ranking is a product of picks from what is left."""
        self.model.observe_ranking(features, order)

        def term(p: Tensor) -> Tensor:
            worth = torch.exp(features @ p[:D])
            chance = torch.ones((), dtype=torch.float64)
            for place, best in enumerate(order):
                chance = chance * worth[best] / worth[order[place:]].sum()
            return -chance.log()

        self.terms.append(term)

    def like(self, features: Tensor, likes: list[int]) -> None:
        self.model.observe_likes(features, torch.tensor(likes))

        def term(p: Tensor) -> Tensor:
            chance = 1 / (1 + torch.exp(-(features @ p[:D] + p[D])))
            return -sum(
                (c.log() if liked else (1 - c).log())
                for c, liked in zip(chance, likes, strict=True)
            )

        self.terms.append(term)

    def __call__(self, p: Tensor) -> Tensor:
        prior = self.l2 / 2 * p[:D].square().sum() + 0.01 * self.l2 / 2 * p[D] ** 2
        return prior + sum(term(p) for term in self.terms)

    def optimum(self) -> Tensor:
        def value_and_gradient(p: Any) -> Any:
            at = torch.tensor(p, requires_grad=True)
            value = self(at)
            return value.item(), torch.autograd.grad(value, at)[0].numpy()

        start = torch.zeros(D + 1, dtype=torch.float64).numpy()
        found = minimize(value_and_gradient, start, jac=True, method="BFGS", tol=1e-11)
        return torch.tensor(found.x)


def observed(kind: str, l2: float = 0.5) -> Posterior:
    posterior = Posterior(l2)
    for n in range(6):
        features = random(4, D, seed=n)
        if kind in ("picks", "mixed"):
            posterior.pick(features, n % 4)
        if kind in ("rankings", "mixed"):
            posterior.rank(features + 1, [n % 4, (n + 3) % 4, (n + 1) % 4, (n + 2) % 4])
        if kind in ("likes", "mixed"):
            posterior.like(features - 0.5, [1, n % 2, 1, 0])
    return posterior


KINDS = ("picks", "rankings", "likes", "mixed")


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_fit_is_scipy_s_optimum(kind: str, l2: float) -> None:
    posterior = observed(kind, l2)
    expected = posterior.optimum()
    model = posterior.model.fit()
    assert float(expected[:D].norm()) > 0.05
    torch.testing.assert_close(model.theta, expected[:D], rtol=0, atol=1e-6)
    assert model.intercept == pytest.approx(float(expected[D]), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_posterior_is_flat_at_the_fit(kind: str) -> None:
    """Central differences: no direction climbs, and every direction falls off."""
    posterior = observed(kind)
    model = posterior.model.fit()
    at = torch.cat([model.theta, torch.tensor([model.intercept], dtype=torch.float64)])
    best = float(posterior(at))
    for i in range(D + 1):
        step = torch.zeros(D + 1, dtype=torch.float64)
        step[i] = 1e-3
        above, below = float(posterior(at + step)), float(posterior(at - step))
        assert abs(above - below) / 2e-3 < 1e-5
        assert min(above, below) > best


@pytest.mark.parametrize("kind", KINDS)
def test_the_spread_is_that_of_the_inverse_hessian(kind: str) -> None:
    posterior = observed(kind)
    model = posterior.model.fit()
    at = torch.cat([model.theta, torch.tensor([model.intercept], dtype=torch.float64)])
    hessian = torch.autograd.functional.hessian(posterior, at)
    covariance = torch.linalg.inv(hessian)[:D, :D]
    features = random(30, D, seed=99)
    mean, spread = model.utility(features)
    torch.testing.assert_close(mean, features @ model.theta)
    expected = torch.einsum("ni,ij,nj->n", features, covariance, features).sqrt()
    torch.testing.assert_close(spread, expected, rtol=1e-6, atol=1e-9)


def test_before_any_answer_the_prior_speaks() -> None:
    features = random(5, D)
    for model in (ChoiceModel(D, l2=4.0), ChoiceModel(D, l2=4.0).fit()):
        mean, spread = model.utility(features)
        assert torch.equal(mean, torch.zeros(5, dtype=torch.float64))
        torch.testing.assert_close(spread, features.norm(dim=1) / 2)
        torch.testing.assert_close(
            model.probabilities(features), torch.full((5,), 0.2, dtype=torch.float64)
        )


def test_probabilities_are_the_logit_s() -> None:
    model = observed("picks").model.fit()
    features = random(3, D, seed=50)
    worth = [math.exp(float(row @ model.theta)) for row in features]
    expected = torch.tensor([w / sum(worth) for w in worth], dtype=torch.float64)
    torch.testing.assert_close(model.probabilities(features), expected)
    torch.testing.assert_close(model.probabilities(features + 3.0), expected)


def test_a_pick_of_two_is_a_logistic_regression_in_closed_form() -> None:
    """n picks of φ over −φ, d = 1: θ solves λθ = 2nφ·(1 − s(2θφ))."""
    model = ChoiceModel(1, l2=0.7)
    for _ in range(5):
        model.observe_choice(torch.tensor([[1.0], [-1.0]]), 0)
    theta = float(model.fit().theta)
    assert 0.7 * theta == pytest.approx(10 / (1 + math.exp(2 * theta)), abs=1e-8)


def test_a_ranking_is_a_chain_of_picks() -> None:
    ranked, picked, features = ChoiceModel(D), ChoiceModel(D), random(4, D)
    ranked.observe_ranking(features, [2, 0, 3, 1])
    picked.observe_choice(features, 2)
    picked.observe_choice(features[[0, 1, 3]], 0)
    picked.observe_choice(features[[1, 3]], 1)
    torch.testing.assert_close(ranked.fit().theta, picked.fit().theta)


def test_only_differences_count_in_a_comparison() -> None:
    near, far = ChoiceModel(D), ChoiceModel(D)
    for n in range(5):
        features = random(3, D, seed=n)
        near.observe_choice(features, 1)
        far.observe_choice(features + 10 * n, 1)
    torch.testing.assert_close(near.fit().theta, far.fit().theta, rtol=0, atol=1e-6)


def test_the_order_of_answers_and_of_images_does_not_matter() -> None:
    forward, backward = ChoiceModel(D), ChoiceModel(D)
    queries = [(random(4, D, seed=n), n % 4) for n in range(8)]
    for features, winner in queries:
        forward.observe_choice(features, winner)
    for features, winner in reversed(queries):
        backward.observe_choice(features.flip(0), 3 - winner)
    torch.testing.assert_close(forward.fit().theta, backward.fit().theta)


def test_a_refit_with_more_answers_equals_a_fit_from_scratch() -> None:
    grown, fresh = ChoiceModel(D, 0.01), ChoiceModel(D, 0.01)
    for n in range(12):
        features = random(4, D, seed=n)
        grown.observe_choice(features, n % 4)
        grown.fit()
        fresh.observe_choice(features, n % 4)
    torch.testing.assert_close(grown.theta, fresh.fit().theta, rtol=0, atol=1e-7)


def test_a_known_taste_is_found() -> None:
    theta, model = random(D, seed=1), ChoiceModel(D, 0.1)
    rng = torch.Generator().manual_seed(0)
    for n in range(400):
        features = random(4, D, seed=100 + n)
        chance = torch.softmax(features @ theta, 0)
        model.observe_choice(features, int(torch.multinomial(chance, 1, generator=rng)))
    model.fit()
    assert float(torch.cosine_similarity(model.theta, theta, dim=0)) > 0.97
    _, spread = model.utility(torch.eye(D))
    assert bool(((model.theta - theta).abs() < 4 * spread).all())


def test_the_spread_narrows_as_the_information_of_each_answer_says() -> None:
    """Answers that contradict each other keep θ̂ = 0, where a pick of two informs by ¼·δδᵀ."""
    model, probe = ChoiceModel(D, 2.0), random(10, D, seed=3)
    precision = 2.0 * torch.eye(D, dtype=torch.float64)
    before = model.utility(probe)[1]
    for n in range(4):
        features = random(2, D, seed=n)
        for winner in (0, 1):
            model.observe_choice(features, winner)
            difference = features[0] - features[1]
            precision += torch.outer(difference, difference) / 4
        after = model.fit().utility(probe)[1]
        expected = (probe @ torch.linalg.inv(precision) * probe).sum(1).sqrt()
        torch.testing.assert_close(after, expected)
        assert bool((after < before).all())
        before = after


# Data that leave little to learn, or everything ---------------------------------------------------


def test_twins_teach_nothing() -> None:
    model, row = ChoiceModel(D, 2.0), random(1, D)
    model.observe_choice(row.expand(4, -1), 2)
    model.observe_ranking(row.expand(3, -1), [2, 0, 1])
    model.fit()
    torch.testing.assert_close(model.theta, torch.zeros(D, dtype=torch.float64))
    torch.testing.assert_close(model.utility(row)[1], row.norm(dim=1) / 2**0.5)


def test_contradictions_cancel() -> None:
    model, features = ChoiceModel(D), random(2, D)
    model.observe_choice(features, 0)
    model.observe_choice(features, 1)
    model.fit()
    torch.testing.assert_close(model.probabilities(features), torch.full((2,), 0.5).double())
    # The difference between the two is better known than before all the same.
    assert float(model.utility(features[:1] - features[1:])[1]) < float(
        (features[0] - features[1]).norm()
    )


@pytest.mark.parametrize("liked", [0, 1])
def test_likes_of_one_class_move_the_intercept_not_to_infinity(liked: int) -> None:
    model = ChoiceModel(D)
    model.observe_likes(random(20, D), torch.full((20,), liked))
    model.fit()
    assert math.isfinite(model.intercept)
    assert (model.intercept > 1) if liked else (model.intercept < -1)
    assert bool(torch.isfinite(model.theta).all())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("l2", [1e-6, 1.0, 100.0])
def test_separable_answers_stay_finite(scale: float, l2: float) -> None:
    model = ChoiceModel(D, l2)
    for n in range(30):
        features = random(4, D, seed=n) * scale
        model.observe_choice(features, int(features[:, 0].argmax()))
    model.observe_likes(random(10, D) * scale, (random(10, D)[:, 0] > 0).long())
    model.fit()
    assert model.gradient_norm < 1e-6 * max(1.0, scale)
    mean, spread = model.utility(random(5, D) * scale)
    assert bool(torch.isfinite(mean).all())
    assert bool((torch.isfinite(spread) & (spread >= 0)).all())
    assert float(model.theta[0]) == max(model.theta.tolist())


@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 10),
    images=st.integers(2, 5),
    l2=st.sampled_from([1e-3, 1.0, 50.0]),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
)
@settings(max_examples=40, deadline=None)
def test_the_fit_always_reaches_the_optimum(
    seed: int, queries: int, images: int, l2: float, scale: float
) -> None:
    model = ChoiceModel(D, l2)
    for n in range(queries):
        features = random(images, D, seed=seed + n) * scale
        model.observe_choice(features, (seed + n) % images)
        model.observe_likes(features, (torch.arange(images) + n) % 2)
    assert model.fit().gradient_norm < 1e-6 * max(1.0, scale)


def test_half_precision_features_on_their_way_from_a_model_are_taken() -> None:
    coarse, exact, features = ChoiceModel(D), ChoiceModel(D), random(3, D).half()
    coarse.observe_choice(features.requires_grad_(True), 1)
    exact.observe_choice(features.detach().double(), 1)
    assert torch.equal(coarse.fit().theta, exact.fit().theta)
    assert not coarse.theta.requires_grad


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "l2"), [(0, 1.0), (3, 0.0), (3, -1.0), (3, float("nan"))])
def test_senseless_models_are_refused(dim: int, l2: float) -> None:
    with pytest.raises(ValueError, match="dim"):
        ChoiceModel(dim, l2)


GOOD = random(3, D)


@pytest.mark.parametrize(
    ("observe", "reason"),
    [
        (lambda m: m.observe_choice(GOOD, 3), "winner"),
        (lambda m: m.observe_choice(GOOD, -1), "winner"),
        (lambda m: m.observe_choice(GOOD[:1], 0), "features"),
        (lambda m: m.observe_choice(GOOD[:, :2], 0), "features"),
        (lambda m: m.observe_choice(GOOD[0], 0), "features"),
        (lambda m: m.observe_choice(GOOD * math.nan, 0), "finite"),
        (lambda m: m.observe_ranking(GOOD, [0, 1]), "order"),
        (lambda m: m.observe_ranking(GOOD, [0, 1, 1]), "order"),
        (lambda m: m.observe_ranking(GOOD, [1, 2, 3]), "order"),
        (lambda m: m.observe_likes(GOOD, torch.tensor([0, 1])), "likes"),
        (lambda m: m.observe_likes(GOOD, torch.tensor([0, 1, 0.5])), "likes"),
        (lambda m: m.observe_likes(GOOD * math.inf, torch.tensor([0, 1, 1])), "finite"),
        (lambda m: m.utility(GOOD[:, :1]), "features"),
        (lambda m: m.probabilities(GOOD[:0]), "features"),
    ],
)
def test_malformed_answers_are_refused_and_leave_no_trace(
    observe: Callable[[ChoiceModel], Any], reason: str
) -> None:
    model = ChoiceModel(D)
    with pytest.raises(ValueError, match=reason):
        observe(model)
    assert torch.equal(model.fit().theta, torch.zeros(D, dtype=torch.float64))
