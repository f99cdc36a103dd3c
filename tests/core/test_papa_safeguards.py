"""PAPA's estimator, drift meter and what stays whole when any stage of an update fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from palate.core.adapter import LiveAdapter
from palate.core.papa import (
    DriftMeter,
    LossHistory,
    PapaConfig,
    RatedSamples,
    graded_labels,
    papa_update,
)
from palate.core.papa.estimator import BINS, STATE_KEY, Draw
from palate.core.profile import ProfileError, ProfileStore, TasteProfile
from palate.core.schedule import elbo_weights
from torch import Tensor, nn

STEPS = 40
ALPHAS = torch.cumprod(1 - torch.linspace(1e-3, 0.2, STEPS, dtype=torch.float64), 0)
CONFIG = PapaConfig(steps=4, timesteps=4, learning_rate=1e-2, precision="float32")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(torch.cat([x, t[:, None] / STEPS], 1))))


class Studio:
    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = Net()
        self.adapter = LiveAdapter(self.net, rank=2, alpha=2, targets=["first", "second"])
        self.seen: list[tuple[float, Tensor]] = []

    def predict(self, x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        self.seen.append((self.adapter.scale, t))
        return self.net(x_t, t)

    def update(self, config: PapaConfig = CONFIG, **options: Any) -> Any:
        options = {
            "generator": generator(1),
            "predict": self.predict,
            "samples": SAMPLES,
            **options,
        }
        predict, samples = options.pop("predict"), options.pop("samples")
        with self.adapter.attached():
            return papa_update(self.adapter, predict, samples, ALPHAS, config, **options)

    def drift(self) -> float:
        with self.adapter.attached():
            return DriftMeter(self.adapter, self.predict, SAMPLES, ALPHAS, CONFIG).measure(64)


SAMPLES = RatedSamples(
    torch.randn(4, 4, generator=generator(2)), torch.tensor([1.0, -1, 0.5, -0.5]), 4
)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# Estimator ----------------------------------------------------------------------------------------


def test_the_history_of_losses_is_a_running_mean_by_timestep() -> None:
    history = LossHistory()
    history.observe(torch.tensor([[0, 1], [999, 0]]), torch.tensor([[1.0, 3.0], [5.0, 2.0]]), 1000)
    assert history.means[0] == 2.0
    assert history.means[-1] == 5.0
    assert int((history.means > 0).sum()) == 2
    history.observe(torch.tensor([0]), torch.tensor([12.0]), 1000)
    assert float(history.means[0]) == pytest.approx(0.9 * 2 + 0.1 * 12)
    history.observe(torch.tensor([0]), torch.tensor([float("nan")]), 1000)
    assert float(history.means[0]) == pytest.approx(3.0)
    assert torch.equal(LossHistory.from_state(history.state()).means, history.means)
    assert not LossHistory.from_state({STATE_KEY: torch.ones(3)}).means.any()


def test_the_proposal_draws_where_the_summands_are_large_and_everywhere_a_little() -> None:
    weights, history = elbo_weights(ALPHAS), LossHistory()
    elbo = weights / weights.sum()
    torch.testing.assert_close(history.proposal(weights), elbo)
    every = torch.arange(STEPS)
    history.observe(every, torch.where(every < 20, 0.01, 4.0), STEPS)
    proposal = history.proposal(weights)
    assert float(proposal.sum()) == pytest.approx(1.0)
    ratio = (proposal / elbo)[1:]
    assert float(ratio.min()) >= 0.2  # importance weights stay below five
    odds = (ratio[-1] - 0.2) / (ratio[0] - 0.2)
    assert float(odds) == pytest.approx(20.0, rel=0.01)  # √(4/0.01)


@pytest.mark.parametrize("draw", ["elbo", "loss"])
def test_the_drawn_gradient_is_unbiased_over_many_draws(draw: Any) -> None:
    history, samples = LossHistory(), RatedSamples(torch.zeros(1, 1), torch.ones(1), 1)
    history.means = torch.rand(BINS, generator=generator(3)) + 0.01
    weights = elbo_weights(ALPHAS)
    gradient = torch.sin(torch.arange(STEPS, dtype=torch.float64)) + 1.5
    config, rng = replace(CONFIG, draw=draw, timesteps=3), generator(4)
    found = []
    for _ in range(4000):
        drawn = Draw.of(samples, torch.tensor([0]), ALPHAS, config, history, rng)
        t = drawn.timesteps[0]
        found.append((drawn.importance[0].double() * weights[t] * gradient[t]).sum())
    estimates = torch.stack(found)
    error = float(estimates.mean() - (weights * gradient).sum())
    assert abs(error) < 4 * float(estimates.std()) / len(found) ** 0.5


def test_the_history_survives_from_update_to_update() -> None:
    studio = Studio()
    _, state = studio.update()
    assert state[STATE_KEY].shape == (BINS,)
    visited = int((state[STATE_KEY] > 0).sum())
    _, later = studio.update(optimizer_state=state, generator=generator(9))
    assert int((later[STATE_KEY] > 0).sum()) >= visited > 0


def test_the_figure_distils_at_a_timestep_of_its_own_uniform_over_the_noisy_end() -> None:
    config = replace(CONFIG, variant="figure", first_timestep=10, timesteps=4)
    samples = RatedSamples(torch.zeros(600, 1), -torch.ones(600), 600, torch.arange(600))
    draw = Draw.of(samples, torch.arange(600), ALPHAS, config, LossHistory(), generator(5))
    assert draw.timesteps.shape == (600, 5)
    own = draw.timesteps[:, -1]
    assert set(own.tolist()) == set(range(10, STEPS))
    assert float(own.float().mean()) == pytest.approx((10 + STEPS - 1) / 2, abs=1.5)
    assert not draw.importance[:, -1].any()
    labels = torch.cat([torch.ones(200), -torch.ones(400)])
    rows = draw.rows(labels, config)
    assert rows.sample.bincount().tolist() == [4] * 200 + [5] * 400
    assert torch.equal(rows.timesteps[rows.distils], own[200:])
    assert torch.equal(rows.sample[rows.distils], torch.arange(200, 600))


def test_shared_noise_is_one_draw_for_all_timesteps() -> None:
    config = PapaConfig.authors(timesteps=6)
    draw = Draw.of(SAMPLES, torch.arange(4), ALPHAS, config, LossHistory(), generator(5))
    assert torch.equal(draw.noise, draw.noise[:, :1].expand_as(draw.noise))
    assert not torch.equal(draw.noise[0], draw.noise[1])


def test_the_authors_settings_look_at_every_timestep_one_by_one() -> None:
    studio = Studio()
    report, _ = studio.update(PapaConfig.authors(), measure_drift=False)
    learnt = [t for scale, t in studio.seen if scale == 1.0]
    assert all(len(t) == 1 for t in learnt)
    assert sorted(torch.cat(learnt).tolist()) == sorted(list(range(1, STEPS)) * 4)
    distilled = [int(t) for scale, t in studio.seen if scale == 0.0]
    assert distilled == [STEPS - 1] * 2  # liked images, at the last timestep
    assert report.steps == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "pick", "winner": 4},
        {"kind": "rank", "order": [0, 1, 1, 2]},
        {"kind": "rank", "order": [0, 1]},
        {"kind": "rate", "ratings": [1.0]},
        {"kind": "rate", "ratings": [2.0, 0, 0, 0]},
    ],
    ids=str,
)
def test_answers_to_other_questions_are_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"none of 4|ratings"):
        graded_labels(answer, 4)


# Drift --------------------------------------------------------------------------------------------


def test_drift_is_the_squared_distance_to_the_base_over_the_base_s_own_size() -> None:
    studio = Studio()
    assert studio.drift() == 0.0
    with torch.no_grad():
        studio.adapter.parameters()[-1].fill_(0.1)  # the last layer's B
    seen: list[Tensor] = []

    def note(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        seen.append(studio.net(x_t, t))
        return seen[-1]

    with studio.adapter.attached():
        meter = DriftMeter(studio.adapter, note, SAMPLES, ALPHAS, CONFIG)
        drift = meter.measure(5)
        base, moved = torch.cat(seen[: len(seen) // 2]), torch.cat(seen[len(seen) // 2 :])
        assert drift == pytest.approx(float((moved - base).square().sum() / base.square().sum()))
        calls = len(seen)
        assert meter.measure(64) == pytest.approx(drift)
        assert len(seen) == calls + 1  # the base is looked at once
    assert studio.drift() == pytest.approx(drift)  # the probe is always the same


def test_the_report_tells_the_drift() -> None:
    studio = Studio()
    report, _ = studio.update()
    assert report.drift == pytest.approx(studio.drift())
    assert report.summary()["drift"] == report.drift
    assert report.drift > 0
    assert Studio().update(measure_drift=False)[0].drift is None


@pytest.mark.parametrize("limit", [None, 1.0])
def test_predictions_that_are_not_finite_afterwards_undo_the_update(limit: float | None) -> None:
    """The adapter's tensors may all be finite, and the network overflow with them."""
    studio = Studio()
    before = studio.adapter.state_dict()

    def overflow(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        learning = torch.is_grad_enabled() or studio.adapter.scale == 0
        return studio.net(x_t, t) * (1.0 if learning else torch.nan)

    report, _ = studio.update(replace(CONFIG, drift_limit=limit), predict=overflow)
    assert "predictions" in str(report.rolled_back)
    assert report.drift is None
    assert same(studio.adapter.state_dict(), before)


def test_an_update_stops_before_it_passes_the_drift_limit() -> None:
    free, _ = Studio().update(replace(CONFIG, steps=12))
    assert free.drift is not None
    studio, limit = Studio(), free.drift / 4
    report, state = studio.update(replace(CONFIG, steps=12, drift_limit=limit))
    assert 0 < report.steps < 12
    assert report.rolled_back is None
    assert f"{limit:g}" in str(report.early)
    assert studio.drift() <= limit
    # What is kept is exactly an update of that many steps.
    short = Studio()
    _, shorter = short.update(replace(CONFIG, steps=report.steps))
    assert same(short.adapter.state_dict(), studio.adapter.state_dict())
    assert {k: v for k, v in state.items() if k != STATE_KEY}.keys() == {
        k for k in shorter if k != STATE_KEY
    }
    assert all(torch.equal(state[k], shorter[k]) for k in state if k != STATE_KEY)


def test_at_the_limit_nothing_more_is_learnt_and_the_report_says_so() -> None:
    studio = Studio()
    studio.update()
    before = studio.adapter.state_dict()
    report, _ = studio.update(replace(CONFIG, drift_limit=1e-9))
    assert "drift limit" in str(report.rolled_back)
    assert report.steps == 0
    assert same(studio.adapter.state_dict(), before)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_senseless_limit_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="drift_limit"):
        PapaConfig(drift_limit=limit)


# Failures -----------------------------------------------------------------------------------------


STAGES = ["forward", "base forward", "backward", "optimiser step", "commit"]


class Spoiler(torch.autograd.Function):
    """Lets its input through, and fails or spoils the gradient on the way back."""

    @staticmethod
    def forward(context: Any, x: Tensor, fault: str) -> Tensor:
        context.fault = fault
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        if context.fault == "memory":
            raise torch.OutOfMemoryError("out of memory in the backward pass")
        return gradient * float("nan"), None


def sabotaged(studio: Studio, stage: str, fault: str, after: int, patch: pytest.MonkeyPatch) -> Any:
    """A predictor, or a patched optimiser, that fails at ``stage`` from its call ``after`` on."""
    calls = {"forward": 0, "base forward": 0, "optimiser step": 0}

    def fail(x: Tensor) -> Tensor:
        if fault == "memory":
            raise torch.OutOfMemoryError(f"out of memory: {stage}")
        return x * float("nan")

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        kind = "base forward" if studio.adapter.scale == 0 else "forward"
        seen = studio.net(x_t, t)
        calls[kind] += 1
        if calls[kind] <= after:
            return seen
        if stage == "backward" and kind == "forward":
            return Spoiler.apply(seen, fault)  # type: ignore[no-any-return]
        return fail(seen) if kind == stage else seen

    step = torch.optim.Adam.step

    def spoilt_step(self: torch.optim.Adam, closure: Any = None) -> Any:
        calls["optimiser step"] += 1
        parameters = self.param_groups[0]["params"]
        if calls["optimiser step"] > after:
            with torch.no_grad():
                parameters[0].fill_(float("nan"))  # half of the work is done
            if fault == "memory":
                fail(parameters[0])
        return step(self, closure)

    if stage == "optimiser step":
        patch.setattr(torch.optim.Adam, "step", spoilt_step)
    return predict


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("fault", ["memory", "nan"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_at_any_stage_leaves_the_last_good_revision(
    profile: TasteProfile, monkeypatch: pytest.MonkeyPatch, stage: str, fault: str, after: int
) -> None:
    studio = Studio()
    _, moments = studio.update()
    profile.commit_revision(
        studio.adapter.state_dict(), moments, used=[], report={}, parent=0, metadata={}
    )
    good = studio.adapter.state_dict()
    query = profile.ask(
        torch.rand(4, 8, 8, 3, generator=generator()), {"latents": SAMPLES.latents},
        ["prompt"] * 4, kinds=("pick",), generator=generator(),
    )  # fmt: skip
    profile.answer(query.id, {"kind": "pick", "winner": 1})
    predict = sabotaged(studio, stage, fault, after, monkeypatch)

    def attempt() -> Any:
        with studio.adapter.restored_on_error():
            report, moments = studio.update(predict=predict, optimizer_state=moments_before)
            if report.rolled_back is None:
                if stage == "commit":
                    monkeypatch.setattr("os.replace", broken)
                profile.commit_revision(
                    studio.adapter.state_dict(), moments, used=[query.id], report=report.summary(),
                    parent=1, metadata={},
                )  # fmt: skip
            return report

    def broken(*_: object, **__: object) -> None:
        raise MemoryError("commit") if fault == "memory" else OSError("no space left on device")

    moments_before = profile.load_revision(1)[1]
    if fault == "memory" or stage == "commit":
        with pytest.raises((MemoryError, RuntimeError, ProfileError), match=r"memory|commit|space"):
            attempt()
    else:
        assert attempt().rolled_back is not None
    monkeypatch.undo()

    assert same(studio.adapter.state_dict(), good)
    assert all(p.grad is None for p in studio.adapter.parameters())
    profile.close()
    again = ProfileStore(profile.folder.parent).open("Warm colours")
    assert again.active.number == 1
    assert same(again.load_revision(1)[0], good)
    assert [waiting.id for waiting in again.waiting()] == [query.id]
    assert again.query(query.id).answer == {"kind": "pick", "winner": 1}
    report, _ = studio.update(optimizer_state=again.load_revision(1)[1])
    assert report.rolled_back is None  # and the next attempt learns
    again.close()
