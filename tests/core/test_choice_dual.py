"""Choices in more dimensions than answers, the saved state, and what designs need of it all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.choice import ChoiceModel
from palate.core.choice import posterior as choice_posterior
from safetensors.torch import load_file, save_file
from torch import Tensor


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answered(
    dim: int, picks: int, l2: float = 0.5, likes: int = 0, fit: bool = True
) -> ChoiceModel:
    model, theta = ChoiceModel(dim, l2), random(dim, seed=777)
    for n in range(picks):
        features = random(4, dim, seed=n) / dim**0.5
        model.observe_choice(features, int((features @ theta).argmax()))
    if likes:
        features = random(likes, dim, seed=501) / dim**0.5
        model.observe_likes(features, (features @ theta > 0).long())
    return model.fit() if fit else model


@pytest.mark.parametrize(("picks", "likes"), [(1, 0), (9, 0), (0, 5), (7, 6)])
def test_the_span_of_the_answers_gives_what_the_full_space_gives(
    picks: int, likes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dual against primal: θ̂, intercept, spreads and precision are equal to rounding."""
    dual = answered(40, picks, likes=likes)
    monkeypatch.setattr("palate.core.choice.model.row_space", lambda rows: None)
    primal = answered(40, picks, likes=likes)
    probe = random(25, 40, seed=9)
    torch.testing.assert_close(dual.theta, primal.theta, rtol=0, atol=1e-9)
    assert dual.intercept == pytest.approx(primal.intercept, abs=1e-9)
    for one, other in zip(dual.utility(probe), primal.utility(probe), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dual.precision(), primal.precision(), rtol=1e-8, atol=1e-9)


def test_few_answers_never_build_a_matrix_of_the_dimensions() -> None:
    """At d = 50,000 one d×d matrix would be 20 GB."""
    model = ChoiceModel(50_000)
    for n in range(3):
        model.observe_choice(random(4, 50_000, seed=n), 1)
    mean, spread = model.fit().utility(random(2, 50_000, seed=9))
    assert bool(torch.isfinite(mean).all() & (spread > 200).all())
    assert model.sample(2, torch.Generator().manual_seed(0)).shape == (2, 50_000)


def test_the_span_is_used_exactly_while_the_rows_are_fewer() -> None:
    assert choice_posterior.row_space(random(5, 6)) is not None
    assert choice_posterior.row_space(random(6, 6)) is None


@pytest.mark.parametrize("picks", [2, 30])
def test_precision_is_the_inverse_of_the_covariance(picks: int) -> None:
    model = answered(12, picks, likes=3)
    eye = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(model.precision() @ model.covariance_product(eye), eye)


def test_precision_is_the_prior_s_plus_the_information_of_each_pick_at_the_estimate() -> None:
    model, queries = ChoiceModel(6, 0.8), [random(4, 6, seed=n) for n in range(5)]
    for n, features in enumerate(queries):
        model.observe_choice(features, n % 4)
    model.fit()
    expected = 0.8 * torch.eye(6, dtype=torch.float64)
    for features in queries:
        expected += model.information(features)
    torch.testing.assert_close(model.precision(), expected)


def test_information_is_the_covariance_of_the_features_under_the_pick() -> None:
    model, features = answered(5, 10), random(4, 5, seed=3)
    p = model.probabilities(features)
    second = sum(p[i] * torch.outer(features[i], features[i]) for i in range(4))
    torch.testing.assert_close(
        model.information(features), second - torch.outer(p @ features, p @ features)
    )


@pytest.mark.parametrize("picks", [0, 3, 30])
def test_draws_have_the_posterior_s_mean_and_covariance(picks: int) -> None:
    model = answered(8, picks)
    draws = model.sample(40_000, torch.Generator().manual_seed(1))
    covariance = model.covariance_product(torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(draws.mean(0), model.theta, rtol=0, atol=0.04)
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0, atol=0.06)


def test_equal_generators_draw_equally() -> None:
    model = answered(8, 3)
    a, b = (model.sample(3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize(("dim", "picks"), [(30, 4), (5, 12), (4, 0)])
def test_a_saved_model_says_the_same_and_learns_on(dim: int, picks: int, tmp_path: Path) -> None:
    model = answered(dim, picks, likes=2)
    save_file(model.state_dict(), tmp_path / "utility.safetensors")
    loaded = ChoiceModel.load_state_dict(load_file(tmp_path / "utility.safetensors"))
    probe = random(7, dim, seed=4)
    for one, other in zip(model.utility(probe), loaded.utility(probe), strict=True):
        torch.testing.assert_close(one, other)
    assert loaded.intercept == pytest.approx(model.intercept)
    assert loaded.observations == model.observations
    for either in (model, loaded):
        either.observe_choice(random(3, dim, seed=8), 2)
        either.fit()
    torch.testing.assert_close(model.theta, loaded.theta)


@pytest.mark.parametrize(
    "damage",
    [lambda s: s.pop("rows"), lambda s: s.update(rows=s["rows"][:, :2]), lambda s: s.clear()],
)
def test_foreign_tensors_are_refused(damage: object) -> None:
    state = answered(5, 3).state_dict()
    damage(state)  # type: ignore[operator]
    with pytest.raises(ValueError, match="state"):
        ChoiceModel.load_state_dict(state)


@given(
    kind=st.sampled_from(["twins", "one winner", "two classes", "one class", "huge", "tiny"]),
    seed=st.integers(0, 99),
    dim=st.sampled_from([1, 3, 40]),
)
@settings(max_examples=40, deadline=None)
def test_degenerate_answers_give_finite_answers(kind: str, seed: int, dim: int) -> None:
    model = ChoiceModel(dim, 0.1)
    scale = {"huge": 1e4, "tiny": 1e-8}.get(kind, 1.0)
    for n in range(6):
        features = random(4, dim, seed=seed + (0 if kind == "one winner" else n)) * scale
        if kind == "twins":
            features = features[:1].expand(4, -1)
        model.observe_choice(features, 0 if kind == "one winner" else n % 4)
        model.observe_ranking(features, [3, 1, 0, 2])
        if "class" in kind:
            likes = torch.ones(4) if kind == "one class" else torch.arange(4) % 2
            model.observe_likes(features, likes)
    model.fit()
    probe = random(4, dim, seed=3) * scale
    mean, spread = model.utility(probe)
    assert bool(torch.isfinite(model.theta).all() & torch.isfinite(mean).all())
    assert bool((torch.isfinite(spread) & (spread >= 0)).all())
    assert float(model.probabilities(probe).sum()) == pytest.approx(1)
    assert model.gradient_norm < 1e-5 * max(1.0, scale)


def test_a_warm_start_does_not_repeat_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model, hessians = answered(20, 15, fit=False), []
    original = choice_posterior.Answers._hessian

    def counted(self: choice_posterior.Answers, p: Tensor) -> Tensor:
        hessians.append(1)
        return original(self, p)

    monkeypatch.setattr(choice_posterior.Answers, "_hessian", counted)
    model.fit()
    cold = len(hessians)
    model.fit()
    assert cold > 3
    assert len(hessians) - cold <= 2
