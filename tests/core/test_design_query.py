"""The prompt space, the next question, what it is worth, and the best prompts."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.choice import ChoiceModel
from palate.core.design import (
    ADAPTIVE_CRITERIA,
    PromptSpace,
    best_prompts,
    best_utility,
    design_queries,
    expected_gain,
    information_gain,
    next_query,
    stopping_advice,
)
from palate.core.design.choosers import expected_best, mutual_information
from torch import Tensor

DIM = 5
SHARED = [["red", "fox", "sea"], ["red", "blue", "sea", ""], ["fox", "red", "old", ""]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def space_of(slots: list[list[str]], seed: int = 0) -> PromptSpace:
    return PromptSpace(slots, [random(len(s), DIM, seed=seed + h) for h, s in enumerate(slots)])


def wide_space(*sizes: int) -> PromptSpace:
    return space_of([[f"w{h}.{i}" for i in range(n)] for h, n in enumerate(sizes)])


def taught(space: PromptSpace, answers: int, l2: float = 1.0) -> ChoiceModel:
    model, theta = ChoiceModel(space.dim, l2), 2 * random(space.dim, seed=42)
    for n in range(answers):
        features = space.prompt_features(space.random_prompts(4, rng(n)))
        model.observe_choice(features, int((features @ theta).argmax()))
    return model.fit()


def repeats(space: PromptSpace, prompt: list[int]) -> bool:
    words = [space.slots[h][a] for h, a in enumerate(prompt) if space.slots[h][a]]
    return len(set(words)) < len(words)


# The prompt space ---------------------------------------------------------------------------------


def test_a_prompt_is_the_sum_of_its_tokens_and_reads_in_slot_order() -> None:
    space = space_of(SHARED)
    prompt = [1, 3, 2]
    assert space.text(prompt) == "fox, old"
    parts = [space.features[h][a] for h, a in enumerate(prompt)]
    torch.testing.assert_close(space.prompt_features([prompt])[0], sum(parts))
    prefixes = space.prefix_features([prompt])[0]
    torch.testing.assert_close(prefixes, torch.stack(parts).cumsum(0))


def test_later_slots_may_stay_empty_at_no_utility() -> None:
    space = PromptSpace.with_empty([["a", "b"], ["c"]], [random(2, DIM), random(1, DIM)])
    assert space.slots == [["a", "b"], ["c", ""]]
    assert not space.features[1][1].any()


@given(seed=st.integers(0, 10_000), sharp=st.floats(0, 50))
@settings(max_examples=60, deadline=None)
def test_no_prompt_uses_a_token_twice_whatever_the_policy(seed: int, sharp: float) -> None:
    space = space_of(SHARED)
    weights = [torch.softmax(sharp * random(len(s), seed=seed), 0) for s in SHARED]
    assert not repeats(space, space.draw(weights, rng(seed)))
    for prompt in space.random_prompts(3, rng(seed)):
        assert not repeats(space, prompt)


def test_samples_of_a_design_follow_its_policies() -> None:
    space = wide_space(4, 3)
    design = design_queries(space, 3, criterion="D")
    generator, counts = rng(), torch.zeros(3, 4)
    for _ in range(600):
        for arm, prompt in enumerate(design.sample(generator)):
            counts[arm, prompt[0]] += 1
    expected = torch.stack([policy[0] for policy in design.policies]).float()
    torch.testing.assert_close(counts / 600, expected, rtol=0, atol=0.08)


@pytest.mark.parametrize(
    ("slots", "features", "named"),
    [
        ([], [], "slots"),
        ([["a"]], [], "one"),
        ([["a", "b"]], [random(3, 2)], "slot 0"),
        ([["a"], []], [random(1, 2), random(0, 2)], "slot 1"),
        ([["a"], ["b"]], [random(1, 2), random(1, 3)], "encoder"),
        ([["a", ""]], [random(2, 2)], "first word"),
        ([["a"], ["b", "b"]], [random(1, 2), random(2, 2)], "'b'"),
        ([["a"], ["a"]], [random(1, 2), random(1, 2)], "slot 1"),
        ([["a"]], [random(1, 2) * torch.inf], "finite"),
    ],
)
def test_spaces_without_prompts_are_refused_by_slot(
    slots: list[list[str]], features: list[Tensor], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        PromptSpace(slots, features)


# Best prompts -------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), shared=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_best_prompts_are_those_of_brute_force(seed: int, shared: bool) -> None:
    space = space_of(SHARED, seed) if shared else wide_space(4, 3, 4)
    theta, texts = random(DIM, seed=seed + 7), {}
    for prompt in product(*[range(len(s)) for s in space.slots]):
        if not repeats(space, list(prompt)):
            worth = float(space.prompt_features([prompt])[0] @ theta)
            text = space.text(prompt)
            texts[text] = max(worth, texts.get(text, worth))
    found = best_prompts(space, theta, n=5, beam=16)
    values = (space.prompt_features(found) @ theta).tolist()
    assert values == pytest.approx(sorted(texts.values(), reverse=True)[:5])
    assert len({space.text(prompt) for prompt in found}) == 5


def test_no_more_prompts_come_back_than_there_are() -> None:
    assert len(best_prompts(wide_space(2, 2), random(DIM), n=50)) == 4


def test_the_best_utility_is_that_of_the_best_prompt() -> None:
    space, thetas = wide_space(6, 5, 4), random(7, DIM, seed=1)
    for theta, best in zip(thetas, best_utility(space, thetas), strict=True):
        prompt = best_prompts(space, theta, n=1)
        assert float(space.prompt_features(prompt)[0] @ theta) == pytest.approx(float(best))


@pytest.mark.parametrize("theta", [torch.zeros(3), torch.full((DIM,), torch.nan)])
def test_a_foreign_theta_is_refused(theta: Tensor) -> None:
    with pytest.raises(ValueError, match="theta"):
        best_prompts(wide_space(2, 2), theta)


# The next question --------------------------------------------------------------------------------

MODES = [("random", None), ("static", "V"), ("static", "A"), ("static", "D")]
MODES += [("adaptive", criterion) for criterion in ADAPTIVE_CRITERIA]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("mode", "criterion"), MODES)
def test_a_query_shows_different_valid_prompts_and_says_what_it_needs(
    mode: str, criterion: str | None, shared: bool
) -> None:
    space = space_of(SHARED) if shared else wide_space(5, 4, 6)
    for answers in (0, 6):
        model = taught(space, answers)
        query = next_query(space, model, 3, mode, criterion, rng(1))
        assert len({tuple(prompt) for prompt in query.prompts}) == 3
        assert not any(repeats(space, prompt) for prompt in query.prompts)
        assert query.texts == [space.text(prompt) for prompt in query.prompts]
        torch.testing.assert_close(query.features, space.prompt_features(query.prompts))
        assert float(query.probabilities.sum()) == pytest.approx(1)
        assert query.expected_gain >= 0
        assert query.information_gain > 0
        again = next_query(space, model, 3, mode, criterion, rng(1))
        assert again.prompts == query.prompts


def test_a_static_design_is_made_once_and_an_adaptive_one_goes_on() -> None:
    space = wide_space(5, 4, 6)
    first = next_query(space, taught(space, 0), mode="static", generator=rng())
    second = next_query(
        space, taught(space, 3), mode="static", generator=rng(), design=first.design
    )
    assert second.design is first.design
    adaptive = next_query(
        space, taught(space, 3), mode="adaptive", criterion="D", design=first.design
    )
    assert adaptive.design is not first.design


def test_the_place_of_a_prompt_does_not_tell_its_arm() -> None:
    """Every arm of a static design is shown at every place, about equally often."""
    space = wide_space(8, 6)
    model, generator = taught(space, 0), rng(3)
    design = design_queries(space, 2, criterion="D", generator=rng())
    mine = design.policies[0][0] > design.policies[1][0]
    first = 0
    for _ in range(200):
        query = next_query(space, model, 2, "static", "D", generator, design=design)
        first += bool(mine[query.prompts[0][0]]) - bool(mine[query.prompts[1][0]])
    assert abs(first) < 60


def test_mutual_information_is_that_of_its_definition() -> None:
    candidates, others = 2 * random(50, 3), 2 * random(50, 2, seed=1)
    for i, found in enumerate(mutual_information(candidates, others).tolist()):
        picks = torch.softmax(torch.cat([candidates[:, [i]], others], 1), 1)
        mean = picks.mean(0)
        expected = (picks * picks.log()).sum(1).mean() - (mean * mean.log()).sum()
        assert found == pytest.approx(float(expected))
    best = torch.cat([candidates[:, [1]], others], 1).amax(1).mean()
    assert float(expected_best(candidates, others)[1]) == pytest.approx(float(best))


@pytest.mark.parametrize("criterion", ["information", "best option", "transductive"])
def test_chosen_questions_inform_more_than_random_ones(criterion: str) -> None:
    space = wide_space(12, 12, 12)
    model = taught(space, 8)
    chosen = next_query(space, model, criterion=criterion, generator=rng())
    blind = [next_query(space, model, mode="random", generator=rng(n)) for n in range(20)]
    mean = sum(query.expected_gain for query in blind) / 20
    assert chosen.expected_gain > mean


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"mode": "clever"}, "mode"),
        ({"criterion": "G"}, "criterion"),
        ({"mode": "static", "criterion": "thompson"}, "criterion"),
        ({"arms": 1}, "at least 2"),
        ({"model": ChoiceModel(3)}, "dimensions"),
    ],
)
def test_senseless_questions_are_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    space = wide_space(3, 3)
    with pytest.raises(ValueError, match=named):
        next_query(**{"space": space, "model": ChoiceModel(DIM), **arguments})


# What a question is worth -------------------------------------------------------------------------


def test_the_information_gain_is_that_of_the_precision() -> None:
    space = wide_space(5, 5)
    model, features = taught(space, 5), random(4, DIM, seed=11)
    after = model.precision() + model.information(features)
    expected = (torch.logdet(after) - torch.logdet(model.precision())) / 2
    assert information_gain(model, features) == pytest.approx(float(expected))


def test_the_expected_gain_is_that_of_one_newton_step_for_each_answer() -> None:
    space = wide_space(5, 4, 6)
    model, features = taught(space, 5), random(4, DIM, seed=11)
    p = model.probabilities(features)
    after = torch.linalg.inv(model.precision() + model.information(features))
    expected = -float(best_utility(space, model.theta[None]))
    for i in range(4):
        moved = model.theta + after @ (features[i] - p @ features)
        expected += float(p[i] * best_utility(space, moved[None]))
    assert expected_gain(space, model, features) == pytest.approx(expected, abs=1e-9)


def test_twins_are_worth_nothing() -> None:
    space = wide_space(4, 4)
    model, features = taught(space, 4), random(1, DIM).expand(4, -1)
    assert expected_gain(space, model, features) == pytest.approx(0, abs=1e-9)
    assert information_gain(model, features) == pytest.approx(0, abs=1e-9)


def test_advice_asks_on_at_first_and_stops_when_the_taste_is_known() -> None:
    space = wide_space(10, 10, 10)
    fresh = stopping_advice(space, taught(space, 0), wanted=0.8)
    some = stopping_advice(space, taught(space, 6), wanted=0.8)
    known = stopping_advice(space, taught(space, 300, l2=0.1), wanted=0.8)
    assert fresh.confidence < some.confidence < known.confidence <= 1
    assert fresh.further is None or fresh.further >= 1
    assert known.further == 0
    assert known.gain < fresh.gain


def test_more_confidence_takes_more_questions() -> None:
    space = wide_space(10, 10, 10)
    model = taught(space, 4)
    asked = [stopping_advice(space, model, wanted=w).further for w in (0.5, 0.7, 0.85)]
    counted = [1000 if further is None else further for further in asked]
    assert counted == sorted(counted)


@pytest.mark.parametrize("wanted", [0.0, 1.0, -1.0])
def test_impossible_confidence_is_refused(wanted: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        stopping_advice(wide_space(3, 3), ChoiceModel(DIM), wanted=wanted)
