"""The label budget: ε, counting, selection, and resuming from the answers on record."""

from __future__ import annotations

import pytest
import torch
from palate.core.budget import LabelBudget, spend_budget
from palate.core.fkc import Particles
from palate.core.reward import RewardModel
from torch import Tensor

SHAPE = (2, 4, 4)


def query(count: int, kind: str = "pick") -> tuple[Tensor, dict]:
    answers = {
        "pick": {"kind": "pick", "winner": 0},
        "skip": {"kind": "skip"},
        "rate": {"kind": "rate", "ratings": [1.0] + [None] * (count - 1)},
    }
    return torch.zeros(count, *SHAPE), answers[kind]


def cloud(count: int, log_weights: Tensor | None = None) -> Particles:
    x = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(count, dtype=torch.float64) if log_weights is None else log_weights
    return Particles(x, weights, torch.ones(1), torch.arange(count)[None], torch.zeros(count))


class Known(RewardModel):
    """A reward that is ready, with mean = the first entry of a latent and std = the second."""

    def __init__(self) -> None:
        super().__init__(SHAPE)
        self.reason = ""

    def predict(self, x0_hat: Tensor, sigma: object = 0.0) -> tuple[Tensor, Tensor]:
        return x0_hat[:, 0, 0, 0], x0_hat[:, 0, 0, 1].abs()


def test_epsilon_falls_from_four_fifths_to_a_tenth() -> None:
    budget = LabelBudget(total=16, per_query=4)
    states = [budget.state([query(4)] * n) for n in range(6)]
    assert [s.epsilon for s in states] == pytest.approx([0.8, 0.625, 0.45, 0.275, 0.1, 0.1])
    assert [s.left for s in states] == [16, 12, 8, 4, 0, 0]
    assert [s.cold for s in states] == [True, False, False, False, False, False]


def test_a_skip_costs_nothing_and_a_rating_counts_itself_only() -> None:
    state = LabelBudget(8, 4).state([query(4, "skip"), query(4, "rate")])
    assert (state.spent, state.left, state.asked, state.step) == (1, 7, 2, 1)


def test_the_last_query_is_as_small_as_the_labels_left() -> None:
    assert LabelBudget(10, 4).state([query(4)] * 2).count == 2
    assert LabelBudget(10, 4).steps == 3


@pytest.mark.parametrize("seed", range(5))
def test_the_best_are_shown_with_random_others(seed: int) -> None:
    budget, particles = LabelBudget(32, 8), cloud(40)
    state = budget.state([query(8)] * 2)  # ε = 0.45: three random ones of eight
    chosen = budget.choose(state, particles, Known(), torch.Generator().manual_seed(seed))
    best = particles.x[:, 0, 0, 0].argsort(descending=True)[:5]
    assert chosen[:5].tolist() == best.tolist()
    assert len(set(chosen.tolist())) == 8


def test_random_others_are_not_always_the_same() -> None:
    budget, particles = LabelBudget(32, 8), cloud(40)
    state = budget.state([query(8)])
    picks = {
        tuple(
            budget.choose(state, particles, Known(), torch.Generator().manual_seed(s))[-3:].tolist()
        )
        for s in range(6)
    }
    assert len(picks) == 6


def test_ucb_prefers_the_uncertain_and_weight_the_heavy() -> None:
    particles = cloud(30, torch.randn(30, generator=torch.Generator().manual_seed(1)).double())
    mean, std = Known().predict(particles.x)
    for selection, worth in (
        ("mean", mean),
        ("ucb", mean + 2 * std),
        ("weight", particles.log_weights),
    ):
        budget = LabelBudget(8, 4, selection, confidence=2.0)
        state = budget.state([query(4)])
        chosen = budget.choose(state, particles, Known(), torch.Generator().manual_seed(0))
        assert int(chosen[0]) == int(worth.argmax())


def test_killed_particles_are_never_shown() -> None:
    weights = torch.zeros(10, dtype=torch.float64)
    weights[:5] = -torch.inf
    budget = LabelBudget(8, 4)
    for answers in ([], [query(4)]):
        state = budget.state(answers)
        chosen = budget.choose(state, cloud(10, weights), Known(), torch.Generator().manual_seed(0))
        assert bool((chosen >= 5).all())


class Quick(RewardModel):
    """A reward that learns in a few steps."""

    def fit(self, answers: list, **settings) -> RewardModel:
        return super().fit(answers, steps=15, **settings)


def taste(x: Tensor) -> Tensor:
    return x[:, 0].mean((1, 2))


def spend(answers: list, stop_after: int | None = None) -> tuple[list, RewardModel]:
    asked = []

    def ask(x: Tensor) -> dict | None:
        if stop_after is not None and len(asked) == stop_after:
            return None
        asked.append(x)
        return {"kind": "rank", "order": taste(x).argsort(descending=True).tolist()}

    def sample(reward: RewardModel | None, generator: torch.Generator) -> Particles:
        x = torch.randn(12, *SHAPE, generator=generator)
        push = 0 if reward is None else 0.5
        x[:, 0] += push
        return Particles(
            x, torch.zeros(12).double(), torch.ones(1), torch.arange(12)[None], x.sum((1, 2, 3))
        )

    reward = spend_budget(
        LabelBudget(16, 4, seed=3), answers, sample=sample, ask=ask, reward=Quick(SHAPE)
    )
    return answers, reward


def test_the_whole_budget_is_spent_and_the_first_query_is_unguided() -> None:
    answers, reward = spend([])
    assert [len(x) for x, _ in answers] == [4, 4, 4, 4]
    assert reward.ready
    assert reward.labels == 16
    assert float(taste(answers[-1][0]).mean()) > float(taste(answers[0][0]).mean())


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_resuming_gives_what_an_unbroken_run_gives(stop_after: int) -> None:
    unbroken, reward = spend([])
    broken, _ = spend([], stop_after)
    assert len(broken) == stop_after
    resumed, again = spend(broken)
    for (x, answer), (y, other) in zip(unbroken, resumed, strict=True):
        assert torch.equal(x, y)
        assert answer == other
    probe = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(8))
    assert torch.equal(reward(probe), again(probe))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total": 0}, "at least one label"),
        ({"total": 8, "per_query": 0}, "at least one label"),
        ({"total": 8, "selection": "luck"}, "'luck'"),
        ({"total": 8, "explore": (1.2, 0.0)}, "shares"),
    ],
)
def test_impossible_budgets_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelBudget(**settings)
