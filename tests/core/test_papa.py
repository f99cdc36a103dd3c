"""PAPA's objective against an independent derivation, and the updater on a small network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from palate.core.adapter import LiveAdapter, read_safetensors, write_safetensors
from palate.core.papa import (
    Guidance,
    PapaConfig,
    RatedSamples,
    Rows,
    diffuse,
    graded_labels,
    guided,
    optimizer_tensors,
    papa_loss,
    papa_parts,
    papa_update,
    restore_optimizer,
)
from palate.core.schedule import elbo_weights, sample_timesteps
from torch import Tensor, nn

STEPS = 40
ALPHAS = torch.cumprod(1 - torch.linspace(1e-3, 0.2, STEPS, dtype=torch.float64), 0)
PLAIN = PapaConfig(attraction=0.1, distillation=0.0, bound="none")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only get slower by waiting for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_predictor(seed: int, size: float = 0.5) -> Callable[[Tensor, Tensor], Tensor]:
    """A random network on (n, 2, 3, 3) in float64: two mixed channels and a timestep."""
    draws = torch.randn(3, 2, 2, generator=generator(seed), dtype=torch.float64) * size

    def predict(x: Tensor, t: Tensor) -> Tensor:
        assert x.shape[1:] == (2, 3, 3)
        assert t.shape == x.shape[:1]
        time = (t.double() / STEPS)[:, None, None, None]
        hidden = torch.tanh(torch.einsum("ij,njhw->nihw", draws[0], x) + time * draws[1, 0, 0])
        return torch.einsum("ij,njhw->nihw", draws[2], hidden)

    return predict


def reference_loss(
    predict: Any, base: Any, x0: Tensor, y: Tensor, t: Tensor, eps: Tensor, config: PapaConfig,
    importance: Tensor,
) -> Tensor:  # fmt: skip
    """The objective once more, from the paper's formulas, one image and one timestep at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(x0)):
        for m in range(t.shape[1]):
            bar, bar_before = ALPHAS[t[b, m]], ALPHAS[t[b, m] - 1]
            alpha = bar / bar_before
            c = (1 - alpha) / (alpha * (1 - bar_before))
            x_t = bar.sqrt() * x0[b] + (1 - bar).sqrt() * eps[b, m]
            seen = predict(x_t[None], t[b, m][None])[0]
            frozen = base(x_t[None], t[b, m][None])[0]
            error = ((eps[b, m] - seen) ** 2).mean()
            if config.bound == "hinge" and y[b] < 0:
                ceiling = config.bound_ratio * ((eps[b, m] - frozen) ** 2).mean()
                error = torch.minimum(error, ceiling + config.bound_margin)
            total = total + y[b] * config.attraction * importance[b, m] * c * error
        if (y[b] > 0) if config.variant == "code" else (y[b] < 0):
            total = total + config.distillation * ((seen - frozen) ** 2).mean()
    return total / len(x0)


@pytest.fixture(params=[0, 1, 2])
def batch(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    rng = generator(request.param)
    return {
        "x0": torch.randn(5, 2, 3, 3, generator=rng, dtype=torch.float64),
        "timesteps": torch.randint(1, STEPS, (5, 4), generator=rng),
        "noise": torch.randn(5, 4, 2, 3, 3, generator=rng, dtype=torch.float64),
        "importance": torch.rand(5, 4, generator=rng, dtype=torch.float64) * 3,
    }


# The objective ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["code", "figure"])
@pytest.mark.parametrize("bound", ["none", "hinge"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize(
    "labels", [[1.0, -1, 1, -1, -1], [0.25, -0.5, 0, 1, -1], [1.0] * 5, [-1.0] * 5], ids=str
)
def test_the_loss_equals_an_independent_derivation(
    batch: dict[str, Tensor], variant: Any, bound: Any, weighted: bool, labels: list[float]
) -> None:
    config = PapaConfig(0.1, 0.9, variant=variant, bound=bound, bound_ratio=1.1)
    y = torch.tensor(labels, dtype=torch.float64)
    importance = batch.pop("importance") if weighted else torch.ones(5, 4, dtype=torch.float64)
    batch.pop("importance", None)
    predict, base = random_predictor(7, 1.0), random_predictor(8)
    loss = papa_loss(
        predict, base, labels=y, alphas_cumprod=ALPHAS, config=config,
        importance=importance if weighted else None, **batch,
    )  # fmt: skip
    expected = reference_loss(predict, base, y=y, t=batch["timesteps"], eps=batch["noise"],
                              x0=batch["x0"], config=config, importance=importance)  # fmt: skip
    assert loss.shape == ()
    assert abs(float(expected)) > 1e-3
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variant", ["code", "figure"])
def test_the_parts_are_of_likes_of_dislikes_and_of_distillation(
    batch: dict[str, Tensor], variant: Any
) -> None:
    y = torch.tensor([0.25, -0.5, 0, 1, -1], dtype=torch.float64)
    config = PapaConfig(0.1, 0.9, variant=variant, bound_ratio=1.1)
    networks = random_predictor(7, 1.0), random_predictor(8)
    given = {"alphas_cumprod": ALPHAS, **batch}
    rows = Rows.of(y, batch["timesteps"], batch["noise"], config, batch["importance"])
    indexed = [lambda x, t, sample, net=net: net(x, t) for net in networks]
    parts, errors = papa_parts(*indexed, batch["x0"], y, rows, ALPHAS, config)
    assert errors.shape == rows.sample.shape == (20,)
    plain = dataclasses.replace(config, distillation=0.0)
    of_likes = papa_loss(*networks, labels=y.clamp(min=0), config=plain, **given)
    of_dislikes = papa_loss(*networks, labels=y.clamp(max=0), config=plain, **given)
    whole = papa_loss(*networks, labels=y, config=config, **given)
    expected = torch.stack([of_likes, of_dislikes, whole - of_likes - of_dislikes])
    torch.testing.assert_close(parts / 5, expected)
    assert bool((parts[[0, 2]] > 0).all())
    assert parts[1] < 0


def test_single_precision_agrees_to_one_in_a_million(batch: dict[str, Tensor]) -> None:
    y = torch.tensor([1.0, -1, 0.5, -0.5, 1])
    config = PapaConfig(0.1, 0.9, bound_ratio=1.1)
    single = papa_loss(
        random_predictor(7, 1.0),
        random_predictor(8),
        batch["x0"],
        y,
        batch["timesteps"],
        batch["noise"],
        ALPHAS.float(),
        config,
        batch["importance"].float(),
    )
    double = papa_loss(
        random_predictor(7, 1.0),
        random_predictor(8),
        alphas_cumprod=ALPHAS,
        labels=y.double(),
        config=config,
        **batch,
    )
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-6)


def test_diffusion_mixes_signal_and_noise() -> None:
    x0, noise = torch.randn(2, 3, 3, 2, dtype=torch.float64)
    timesteps = torch.tensor([0, 7, 39])
    mixed = diffuse(x0, noise, timesteps, ALPHAS)
    for row, t in enumerate(timesteps):
        expected = ALPHAS[t].sqrt() * x0[row] + (1 - ALPHAS[t]).sqrt() * noise[row]
        torch.testing.assert_close(mixed[row], expected)


@pytest.mark.parametrize("first", [0, 15])
def test_all_timesteps_are_the_full_sum(first: int) -> None:
    rng = generator(3)
    x0 = torch.randn(2, 2, 3, 3, generator=rng, dtype=torch.float64)
    noise_of = torch.randn(2, STEPS, 2, 3, 3, generator=rng, dtype=torch.float64)
    y = torch.tensor([1.0, -0.7], dtype=torch.float64)
    every = torch.arange(max(1, first), STEPS).expand(2, -1)
    drawn, importance = sample_timesteps(elbo_weights(ALPHAS), 1000, 2, rng, first)
    predict, base = random_predictor(1), random_predictor(2)
    loss = papa_loss(
        predict, base, x0, y, drawn, noise_of[:, every[0]], ALPHAS, PapaConfig(), importance
    )
    full = reference_loss(
        predict, base, x0, y, every, noise_of[:, every[0]], PapaConfig(), torch.ones(every.shape)
    )
    torch.testing.assert_close(loss, full, rtol=1e-9, atol=1e-12)


def scaling_predictor(theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """ε_θ(x_t) = θ·x_t with one θ a sample (B,), the same for all its rows."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        own = theta.repeat_interleave(len(x) // len(theta))
        return own.view(-1, *[1] * (x.ndim - 1)) * x

    return predict


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("first", [0, 15])
def test_the_subsampled_gradient_is_unbiased(count: int, first: int) -> None:
    rng, draws = generator(4), 20_000
    x0 = torch.randn(2, generator=rng, dtype=torch.float64)
    noise_of = torch.randn(STEPS, 2, generator=rng, dtype=torch.float64)

    def gradients(timesteps: Tensor, importance: Tensor) -> Tensor:
        """d loss/dθ of each row of ``timesteps``, as if it were the only sample."""
        rows = len(timesteps)
        theta = torch.full((rows,), 0.4, dtype=torch.float64, requires_grad=True)
        loss = papa_loss(
            scaling_predictor(theta), scaling_predictor(theta), x0.expand(rows, -1),
            torch.ones(rows, dtype=torch.float64), timesteps, noise_of[timesteps], ALPHAS, PLAIN,
            importance,
        )  # fmt: skip
        return torch.autograd.grad(loss * rows, theta)[0]

    every = torch.arange(max(1, first), STEPS)[None]
    exact = gradients(every, torch.ones(every.shape))
    sampled = gradients(*sample_timesteps(elbo_weights(ALPHAS), count, draws, rng, first))
    assert abs(float(sampled.mean() - exact)) < 4 * float(sampled.std()) / draws**0.5
    assert float(sampled.std()) > 0


def loss_of_theta(theta: float, label: float, config: PapaConfig, base: float = 0.4) -> Tensor:
    """d loss/dθ for one sample with ε_θ = θ·x_t, base θ = ``base``, at fixed noise."""
    x0 = torch.tensor([[0.5, -0.3]], dtype=torch.float64)
    noise = torch.randn(1, 3, 2, generator=generator(5), dtype=torch.float64)
    at = torch.tensor([theta], dtype=torch.float64, requires_grad=True)
    frozen = torch.tensor([base], dtype=torch.float64, requires_grad=True)
    loss = papa_loss(
        scaling_predictor(at), scaling_predictor(frozen), x0, torch.tensor([label]),
        torch.tensor([[5, 20, 35]]), noise, ALPHAS, config,
    )  # fmt: skip
    gradient, from_base = torch.autograd.grad(loss, [at, frozen], allow_unused=True)
    assert from_base is None  # the base is a constant, never trained
    return gradient


def test_likes_descend_and_dislikes_ascend() -> None:
    liked, disliked = (loss_of_theta(3.0, label, PLAIN) for label in (1.0, -1.0))
    assert float(liked) > 0  # θ = 3 is far too large: the error grows with θ, descending lowers it
    torch.testing.assert_close(disliked, -liked)
    torch.testing.assert_close(loss_of_theta(3.0, 0.25, PLAIN), liked / 4)
    assert float(loss_of_theta(3.0, 0.0, PLAIN)) == 0.0


def test_the_hinge_stops_the_ascent_at_its_ceiling_exactly() -> None:
    hinge = dataclasses.replace(PLAIN, bound="hinge")
    assert float(loss_of_theta(9.0, -1.0, hinge)) == 0.0
    assert float(loss_of_theta(9.0, -1.0, PLAIN)) < 0
    torch.testing.assert_close(loss_of_theta(0.41, -1.0, hinge), loss_of_theta(0.41, -1.0, PLAIN))
    torch.testing.assert_close(loss_of_theta(9.0, 1.0, hinge), loss_of_theta(9.0, 1.0, PLAIN))


@pytest.mark.parametrize(("variant", "pulled"), [("code", 1.0), ("figure", -1.0)])
def test_distillation_pulls_towards_the_base_on_its_own_samples_only(
    variant: Any, pulled: float
) -> None:
    config = PapaConfig(attraction=0.0, distillation=0.5, variant=variant, bound="none")
    assert float(loss_of_theta(0.7, pulled, config)) > 0
    assert float(loss_of_theta(0.1, pulled, config)) < 0
    assert float(loss_of_theta(0.4, pulled, config)) == 0.0
    assert float(loss_of_theta(0.7, -pulled, PLAIN)) == float(
        loss_of_theta(0.7, -pulled, dataclasses.replace(PLAIN, distillation=0.5, variant=variant))
    )


def test_distillation_is_zero_while_the_adapter_is_the_base(batch: dict[str, Tensor]) -> None:
    y = torch.tensor([1.0, -1, 1, -1, 0], dtype=torch.float64)
    same = random_predictor(1)
    for variant in ("code", "figure"):
        config = PapaConfig(0.1, 0.0, variant=variant)
        without = papa_loss(same, same, labels=y, alphas_cumprod=ALPHAS, config=config, **batch)
        config = dataclasses.replace(config, distillation=100.0)
        loss = papa_loss(same, same, labels=y, alphas_cumprod=ALPHAS, config=config, **batch)
        assert torch.equal(loss, without)


# Settings and labels ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"variant": "paper"}, {"bound": "softplus"}, {"steps": 0}, {"timesteps": 0}, {"rows": 0},
        {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"clip_norm": 0.0},
        {"first_timestep": -1}, {"replay": -1}, {"attraction": -0.1},
        {"distillation": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_senseless_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PapaConfig(**wrong)


NAN = float("nan")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"kind": "pick", "winner": 2}, [-1 / 3, -1 / 3, 1.0, -1 / 3]),
        ({"kind": "rank", "order": [3, 0, 1, 2]}, [1 / 3, -1 / 3, -1.0, 1.0]),
        ({"kind": "rate", "ratings": [1, None, -0.5, 0]}, [1.0, NAN, -0.5, 0.0]),
        ({"kind": "skip"}, [NAN] * 4),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
def test_answers_become_graded_labels(answer: dict[str, object], expected: list[float]) -> None:
    labels = graded_labels(answer, 4)
    torch.testing.assert_close(labels, torch.tensor(expected), equal_nan=True)


@pytest.mark.parametrize("answer", [{"kind": "pick", "winner": 0}, {"kind": "rank"}])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_comparisons_weigh_likes_and_dislikes_alike(answer: dict[str, Any], count: int) -> None:
    if answer["kind"] == "rank":
        answer = {**answer, "order": list(range(count))}
    assert abs(float(graded_labels(answer, count).sum())) < 1e-6


def test_an_unknown_kind_of_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="stars"):
        graded_labels({"kind": "stars"}, 2)


@pytest.mark.parametrize(
    ("latents", "labels", "fresh"),
    [
        (torch.zeros(2, 1), torch.zeros(3), 1),
        (torch.zeros(2, 1), torch.zeros(2), 0),
        (torch.zeros(2, 1), torch.zeros(2), 3),
        (torch.zeros(2, 1), torch.tensor([1.0, NAN]), 1),
        (torch.full((2, 1), math.inf), torch.zeros(2), 1),
    ],
)
def test_unusable_samples_are_refused(latents: Tensor, labels: Tensor, fresh: int) -> None:
    with pytest.raises(ValueError, match=r"latents|finite"):
        RatedSamples(latents, labels, fresh)
    with pytest.raises(ValueError, match="groups"):
        RatedSamples(torch.zeros(3, 1), torch.zeros(3), 1, torch.zeros(2))


# The updater --------------------------------------------------------------------------------------


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.time = nn.Linear(1, 8)
        self.leave = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.float()[:, None] / STEPS
        x = torch.cat([x, torch.ones_like(x) * t[:, :, None, None]], 1)
        x = torch.relu(self.enter(x))
        x = torch.relu(self.middle(x) + self.time(t)[:, :, None, None])
        return self.leave(x)


BRIGHT, DARK = torch.ones(1, 4, 4), -torch.ones(1, 4, 4)


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """Weights of a denoiser that knows two kinds of images: bright and dark ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Denoiser()
    rng = generator(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in range(120):
        kind = torch.randint(0, 2, (64, 1, 1, 1), generator=rng) * 2.0 - 1
        x0 = kind + 0.1 * torch.randn(64, 1, 4, 4, generator=rng)
        t = torch.randint(0, STEPS, (64,), generator=rng)
        noise = torch.randn(x0.shape, generator=rng)
        x_t = diffuse(x0, noise, t, ALPHAS.float())
        optimizer.zero_grad()
        (net(x_t, t) - noise).square().mean().backward()
        optimizer.step()
    return net.state_dict()


class Studio:
    """The trained denoiser with a live adapter, and what its predictor saw."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.net = Denoiser()
        self.net.load_state_dict(weights)
        self.adapter = LiveAdapter(self.net, rank=4, targets=["enter", "middle", "time", "leave"])
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        self.scales: list[float] = []

    def predict(self, x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        assert self.adapter.is_attached
        self.calls.append((x_t.detach(), t, index))
        self.scales.append(self.adapter.scale)
        return self.net(x_t, t)

    def update(
        self, samples: RatedSamples, config: PapaConfig, seed: int = 0, **options: Any
    ) -> Any:
        options.setdefault("generator", generator(seed))
        options.setdefault("measure_drift", False)
        if config.precision == "auto":
            config = dataclasses.replace(config, precision="float32")
        predict = options.pop("predict", self.predict)
        with self.adapter.attached():
            return papa_update(self.adapter, predict, samples, ALPHAS.float(), config, **options)

    def moved(self) -> Studio:
        """Away from B = 0, so that A has a gradient too."""
        with torch.no_grad():
            for parameter in self.adapter.parameters():
                parameter.add_(0.02)
        return self

    def error(self, x0: Tensor, adapted: bool = True) -> float:
        """The ELBO-weighted mean error over all timesteps and 8 draws of noise."""
        every = torch.arange(1, STEPS).repeat(8)
        noise = torch.randn(len(every), *x0.shape, generator=generator(9))
        x_t = diffuse(x0.expand_as(noise), noise, every, ALPHAS.float())
        with torch.no_grad(), self.adapter.attached(), self.adapter.scaled(float(adapted)):
            errors = (noise - self.net(x_t, every)).square().flatten(1).mean(1)
        c = elbo_weights(ALPHAS.float())[every]
        return float((errors * c).sum() / c.sum())


@pytest.fixture
def studio(trained: dict[str, Tensor]) -> Studio:
    return Studio(trained)


LIKED = RatedSamples(BRIGHT[None], torch.tensor([1.0]), 1)
DISLIKED = RatedSamples(DARK[None], torch.tensor([-1.0]), 1)
BOTH = RatedSamples(torch.stack([BRIGHT, DARK]), torch.tensor([1.0, -1.0]), 2)
FAST = PapaConfig(learning_rate=3e-3, steps=4, timesteps=6, rows=64, bound="hinge")
NEGATIVE = 7  # the index of a negative prompt


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_base_denoises(studio: Studio) -> None:
    """The fixture is a model, not noise: it predicts most of what can be predicted."""
    assert studio.error(BRIGHT) < 0.35
    assert studio.error(DARK) < 0.35


def test_a_liked_image_becomes_likelier(studio: Studio) -> None:
    before = studio.error(BRIGHT)
    report, _ = studio.update(LIKED, dataclasses.replace(FAST, steps=60))
    assert studio.error(BRIGHT) < 0.85 * before
    assert report.steps == 60
    assert report.rolled_back is None
    assert len(report.loss) == len(report.gradient_norm) == 60


def test_a_disliked_image_becomes_unlikelier_within_bounds(trained: dict[str, Tensor]) -> None:
    errors: dict[str, list[float]] = {"hinge": [], "none": []}
    for bound, found in errors.items():
        studio, moments, rng = Studio(trained), None, generator(0)
        before = studio.error(DARK)
        config = dataclasses.replace(FAST, learning_rate=1e-3, steps=30, bound=bound)
        for _ in range(2):
            _, moments = studio.update(DISLIKED, config, generator=rng, optimizer_state=moments)
            found.append(studio.error(DARK))
    ceiling = FAST.bound_ratio * before + FAST.bound_margin
    assert before * 1.1 < errors["hinge"][0]
    assert errors["hinge"][1] < 3 * ceiling
    assert errors["none"][1] > 3 * errors["hinge"][1]


def test_beyond_the_ceiling_nothing_moves_not_even_by_momentum(studio: Studio) -> None:
    _, moments = studio.update(DISLIKED, FAST)
    with torch.no_grad():
        for parameter in studio.adapter.parameters()[1::2]:
            parameter.mul_(100)
    before = studio.adapter.state_dict()
    report, _ = studio.update(DISLIKED, FAST, optimizer_state=moments)
    assert report.gradient_norm == [0.0] * FAST.steps
    assert same(studio.adapter.state_dict(), before)


def test_likes_and_dislikes_together_part_the_two_kinds(studio: Studio) -> None:
    studio.update(BOTH, dataclasses.replace(FAST, steps=30))
    assert studio.error(BRIGHT) < studio.error(BRIGHT, adapted=False)
    assert studio.error(DARK) > studio.error(DARK, adapted=False)


def test_the_base_is_not_touched(studio: Studio, trained: dict[str, Tensor]) -> None:
    flags = [p.requires_grad for p in studio.net.parameters()]
    studio.update(BOTH, FAST)
    assert same(studio.net.state_dict(), trained)
    assert [p.requires_grad for p in studio.net.parameters()] == flags
    assert all(p.grad is None for p in studio.net.parameters())
    assert all(p.grad is None for p in studio.adapter.parameters())


def many(count: int, fresh: int) -> RatedSamples:
    rng = generator(11)
    labels = torch.linspace(1, -1, count)
    return RatedSamples(torch.randn(count, 1, 4, 4, generator=rng), labels, fresh)


ONE_STEP = PapaConfig(
    0.1, 0.5, bound="hinge", bound_ratio=1.05, steps=1, timesteps=6, clip_norm=math.inf
)


def first_gradients(moments: dict[str, Tensor]) -> list[Tensor]:
    """Adam's first moment after one step is a tenth of the gradient."""
    return [10 * value for key, value in moments.items() if key.endswith("exp_avg")]


@pytest.mark.parametrize("rows", [1, 4, 7, 13])
@pytest.mark.parametrize("variant", ["code", "figure"])
@pytest.mark.parametrize("common_noise", [True, False])
def test_rows_only_cut_the_work_into_passes(
    trained: dict[str, Tensor], rows: int, variant: Any, common_noise: bool
) -> None:
    gradients, losses, passes = [], [], []
    config = dataclasses.replace(ONE_STEP, variant=variant, common_noise=common_noise)
    for at_once in (10_000, rows):
        studio = Studio(trained).moved()
        report, moments = studio.update(many(5, 5), dataclasses.replace(config, rows=at_once))
        passes.append(len(studio.calls))
        assert max(len(t) for _, t, _ in studio.calls) <= at_once
        losses.append(report.loss)
        gradients.append(first_gradients(moments))
    assert passes[0] < passes[1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for one, parts in zip(*gradients, strict=True):
        assert float(one.norm()) > 0
        torch.testing.assert_close(parts, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 10.0])
def test_long_gradients_are_clipped_to_their_norm(trained: dict[str, Tensor], share: float) -> None:
    report, moments = Studio(trained).moved().update(BOTH, ONE_STEP)
    whole = torch.cat([gradient.flatten() for gradient in first_gradients(moments)])
    norm = report.gradient_norm[0]
    assert norm == pytest.approx(float(whole.norm()), rel=1e-4)
    clip = dataclasses.replace(ONE_STEP, clip_norm=share * norm)
    report, moments = Studio(trained).moved().update(BOTH, clip)
    clipped = torch.cat([gradient.flatten() for gradient in first_gradients(moments)])
    assert report.gradient_norm[0] == pytest.approx(norm, rel=1e-4)  # told as it was
    torch.testing.assert_close(clipped, min(share, 1.0) * whole, rtol=1e-3, atol=1e-5)


def noise_in(x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
    """The ε that was mixed into x0."""
    bar = ALPHAS.float()[t].view(-1, 1, 1, 1)
    return (x_t - bar.sqrt() * x0) / (1 - bar).sqrt()


@pytest.mark.parametrize("variant", ["code", "figure"])
def test_a_step_follows_the_gradient_of_the_whole_objective(studio: Studio, variant: Any) -> None:
    """At all timesteps; the updater's noise is read off what the network was shown."""
    samples = many(5, 5)
    config = dataclasses.replace(ONE_STEP, variant=variant, timesteps=1000, rows=50)
    report, moments = studio.moved().update(samples, config)
    seen: dict[int, list[tuple[int, Tensor]]] = {i: [] for i in range(5)}
    for (x_t, t, index), scale in zip(studio.calls, studio.scales, strict=True):
        if scale:
            for i, row in enumerate(index.tolist()):
                x0 = samples.latents[index[i : i + 1]]
                seen[row].append((int(t[i]), noise_in(x_t[i : i + 1], t[i : i + 1], x0)[0]))
    for rows in seen.values():
        assert [t for t, _ in rows[: STEPS - 1]] == list(range(1, STEPS))
    # The paper's figure distils disliked samples at one more timestep, which counts for no more.
    extra = {i: rows[STEPS - 1 :] for i, rows in seen.items()}
    disliked = variant == "figure" and samples.labels < 0
    assert [len(rows) for rows in extra.values()] == (torch.ones(5) * disliked).tolist()
    columns = torch.tensor(
        [[*range(1, STEPS), extra[i][0][0] if extra[i] else STEPS - 1] for i in range(5)]
    )
    noise = torch.stack(
        [torch.stack([n for _, n in (seen[i] + seen[i][-1:])[:STEPS]]) for i in range(5)]
    )
    importance = torch.ones(columns.shape)
    importance[:, -1] = 0

    fresh = Studio(studio.net.state_dict()).moved()
    with fresh.adapter.attached():

        def base(x_t: Tensor, t: Tensor) -> Tensor:
            with fresh.adapter.scaled(0.0):
                return fresh.net(x_t, t)

        loss = papa_loss(
            fresh.net, base, samples.latents, samples.labels, columns, noise, ALPHAS.float(),
            config, importance,
        )  # fmt: skip
        expected = torch.autograd.grad(loss, fresh.adapter.parameters())
    assert report.loss == [pytest.approx(float(loss.detach()), rel=1e-4)]
    assert [sum(parts) for parts in report.parts] == pytest.approx(report.loss)
    for own, whole in zip(first_gradients(moments), expected, strict=True):
        torch.testing.assert_close(own, whole, rtol=1e-3, atol=1e-5)


def test_common_noise_is_shared_by_the_samples_of_a_step_only(studio: Studio) -> None:
    samples = many(4, 4)
    for common in (True, False):
        steps: list[set[str]] = [set() for _ in range(3)]
        config = dataclasses.replace(
            FAST, steps=3, rows=6, bound="none", distillation=0.0, common_noise=common
        )
        studio.calls.clear()
        studio.update(samples, config)
        for n, (x_t, t, index) in enumerate(studio.calls):
            noise = noise_in(x_t, t, samples.latents[index])
            steps[n // 4].add(str((t.tolist(), (noise[0, 0, 0] * 100).round().int().tolist())))
        assert [len(found) for found in steps] == ([1] * 3 if common else [4] * 3)
        assert len(set.union(*steps)) == (3 if common else 12)


@pytest.mark.parametrize(
    ("variant", "bound", "distillation", "asked"),
    [
        ("code", "hinge", 0.5, [0, 1, 1]),  # a like's last timestep, all of a dislike's
        ("code", "none", 0.5, [0]),
        ("code", "hinge", 0.0, [1, 1]),
        ("figure", "none", 0.5, [1]),
        ("figure", "hinge", 0.5, [1, 1, 1]),  # the timestep that distils as well
        ("code", "none", 0.0, []),
    ],
)
def test_the_base_is_asked_only_where_a_row_needs_it(
    studio: Studio, variant: Any, bound: Any, distillation: float, asked: list[int]
) -> None:
    config = dataclasses.replace(
        FAST, steps=1, timesteps=2, variant=variant, bound=bound, distillation=distillation
    )
    studio.update(BOTH, config)
    of_base = [call for call, scale in zip(studio.calls, studio.scales, strict=True) if scale == 0]
    assert [i for _, _, index in of_base for i in index.tolist()] == asked
    learning = [call for call, scale in zip(studio.calls, studio.scales, strict=True) if scale]
    assert len(learning) == 1  # likes and dislikes together


def test_with_guidance_the_guided_prediction_learns_and_drift_is_the_plain_one_s(
    studio: Studio,
) -> None:
    def predictor(studio: Studio) -> Any:
        return lambda x_t, t, index: (
            studio.predict(x_t, t, index) * (1 - 0.1 * (index == NEGATIVE)[:, None, None, None])
        )

    negative, config = Guidance(NEGATIVE, 3.0), dataclasses.replace(FAST, steps=1)
    report, moments = studio.update(
        BOTH, config, predict=predictor(studio), guidance=negative, measure_drift=True
    )
    drift = studio.calls[-2:]
    assert all(NEGATIVE in index for _, _, index in studio.calls[:-2])
    assert not any(NEGATIVE in index for _, _, index in drift)
    assert report.drift > 0
    fresh = Studio(studio.net.state_dict())
    _, expected = fresh.update(BOTH, config, predict=guided(predictor(fresh), negative))
    assert all(torch.equal(moments[key], expected[key]) for key in expected)


def test_each_row_goes_with_its_own_sample_and_timestep(studio: Studio) -> None:
    samples = RatedSamples(
        (1000.0 * torch.arange(5)).view(5, 1, 1, 1).expand(5, 1, 4, 4), torch.ones(5), 5
    )
    config = dataclasses.replace(FAST, steps=2, rows=20)  # passes end within an image
    studio.update(samples, config)
    for x_t, t, index in studio.calls:
        brightness = x_t.mean((1, 2, 3)) / ALPHAS[t].sqrt() / 1000
        assert torch.equal(brightness.round().long(), index)


def test_every_step_sees_the_fresh_samples_and_some_earlier_ones(studio: Studio) -> None:
    steps: list[set[int]] = []

    def note(*_: int) -> None:
        steps.append({i for _, _, index in studio.calls for i in index.tolist()})
        studio.calls.clear()

    config = dataclasses.replace(FAST, steps=12, replay=2)
    studio.update(many(8, fresh=3), config, progress=note)
    assert len(steps) == 12
    assert all({5, 6, 7} <= seen and len(seen) == 5 for seen in steps)
    assert set.union(*steps) == set(range(8))
    studio.update(many(8, fresh=3), dataclasses.replace(config, replay=0))
    assert all(set(index.tolist()) <= {5, 6, 7} for _, _, index in studio.calls)


def test_replay_brings_back_whole_queries(studio: Studio) -> None:
    groups = torch.tensor([7, 7, 3, 3, 3, 9, 9, 1, 1])
    samples = dataclasses.replace(many(9, fresh=2), groups=groups)
    steps: list[set[int]] = []

    def note(*_: int) -> None:
        steps.append({i for _, _, index in studio.calls for i in index.tolist()})
        studio.calls.clear()

    studio.update(samples, dataclasses.replace(FAST, steps=15, replay=3), progress=note)
    queries = [{0, 1}, {2, 3, 4}, {5, 6}]
    for seen in steps:
        earlier = seen - {7, 8}
        assert {7, 8} <= seen
        assert earlier == set().union(*(query for query in queries if query & earlier))
        assert 3 <= len(earlier) <= 5  # as many queries as it takes to reach three images
    assert set.union(*steps) == set(range(9))


def test_common_noise_is_shared_within_a_query(studio: Studio) -> None:
    groups = torch.tensor([4, 4, 2, 2, 2])
    samples = dataclasses.replace(many(5, fresh=5), groups=groups)
    config = dataclasses.replace(FAST, steps=1, rows=6, bound="none", distillation=0.0)
    studio.update(samples, config)
    drawn: dict[int, set[str]] = {4: set(), 2: set()}
    for x_t, t, index in studio.calls:
        noise = noise_in(x_t, t, samples.latents[index])
        found = str((t.tolist(), (noise[0, 0, 0] * 100).round().int().tolist()))
        drawn[int(groups[index[0]])].add(found)
    assert [len(found) for found in drawn.values()] == [1, 1]
    assert not drawn[4] & drawn[2]


@pytest.mark.parametrize("first", [0, 16, 39])
def test_epapa_never_looks_below_its_boundary(studio: Studio, first: int) -> None:
    studio.update(BOTH, dataclasses.replace(FAST, first_timestep=first, steps=8))
    seen = torch.cat([t for _, t, _ in studio.calls])
    assert int(seen.min()) >= max(1, first)
    assert int(seen.max()) <= STEPS - 1
    assert {0.0, 1.0} == set(studio.scales)  # both the adapter and the base have looked


def test_a_boundary_behind_the_last_timestep_is_refused(studio: Studio) -> None:
    with pytest.raises(ValueError, match="timestep"):
        studio.update(BOTH, dataclasses.replace(FAST, first_timestep=STEPS))


# When something goes wrong ------------------------------------------------------------------------


def began(studio: Studio) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The adapter and the optimiser's state after a first good update."""
    _, moments = studio.update(BOTH, FAST)
    studio.calls.clear()
    return studio.adapter.state_dict(), moments


def at_call(studio: Studio, call: int, spoil: Callable[[Tensor], Tensor]) -> Any:
    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        predicted = studio.predict(x_t, t, index)
        return spoil(predicted) if len(studio.calls) == call else predicted

    return predict


def not_a_number(predicted: Tensor) -> Tensor:
    return predicted * float("nan")


def endless(predicted: Tensor) -> Tensor:
    return predicted / 0


def no_slope(predicted: Tensor) -> Tensor:
    """Finite, but with a gradient that is not."""
    return predicted + (predicted * 0).sqrt()


@pytest.mark.parametrize("spoil", [not_a_number, endless, no_slope])
@pytest.mark.parametrize("call", [1, 4, 10])
def test_a_loss_that_is_not_finite_changes_nothing(studio: Studio, spoil: Any, call: int) -> None:
    config = dataclasses.replace(FAST, bound="none", distillation=0.0)  # one call a step
    before, moments = began(studio)
    report, state = studio.update(
        LIKED,
        dataclasses.replace(config, steps=10),
        predict=at_call(studio, call, spoil),
        optimizer_state=moments,
    )
    assert report.rolled_back == f"the loss was not finite at step {call}"
    assert not report.stopped
    assert report.steps == call - 1
    assert len(studio.calls) == call
    assert same(studio.adapter.state_dict(), before)
    assert same(state, moments)
    assert all(p.grad is None for p in studio.adapter.parameters())
    assert report.summary()["rolled_back"] == report.rolled_back


def test_an_optimiser_gone_wrong_cannot_spoil_the_adapter(studio: Studio) -> None:
    before, moments = began(studio)
    moments = {k: v * NAN if k.endswith("exp_avg") else v for k, v in moments.items()}
    report, _ = studio.update(BOTH, FAST, optimizer_state=moments)
    assert report.rolled_back is not None
    assert same(studio.adapter.state_dict(), before)


@pytest.mark.parametrize("where", ["predict", "progress", "should_stop"])
def test_an_exception_passes_through_and_changes_nothing(studio: Studio, where: str) -> None:
    before, moments = began(studio)

    def fail(*_: object) -> Any:
        if len(studio.calls) > 5:
            raise MemoryError(where)

    def predict(*rows: Tensor) -> Tensor:
        fail()
        return studio.predict(*rows)

    options: dict[str, Any] = {where: predict if where == "predict" else fail}
    with pytest.raises(MemoryError, match=where):
        studio.update(BOTH, FAST, optimizer_state=moments, **options)
    assert same(studio.adapter.state_dict(), before)
    assert studio.adapter.scale == 1.0
    assert not studio.adapter.is_attached
    assert all(p.grad is None for p in studio.adapter.parameters())


@pytest.mark.parametrize("call", [0, 1, 5, 9])
def test_a_stop_is_heard_before_the_next_pass(studio: Studio, call: int) -> None:
    before, moments = began(studio)
    report, state = studio.update(
        many(4, 4),
        dataclasses.replace(FAST, bound="none", distillation=0.0, rows=4),  # 8 passes a step
        optimizer_state=moments,
        should_stop=lambda: len(studio.calls) >= call,
    )
    assert len(studio.calls) == call
    assert report.stopped
    assert report.rolled_back == "the update was interrupted"
    assert same(studio.adapter.state_dict(), before)
    assert same(state, moments)


def test_progress_counts_the_steps(studio: Studio) -> None:
    seen: list[tuple[int, int]] = []
    studio.update(BOTH, FAST, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


# Continuing ---------------------------------------------------------------------------------------


def test_the_optimiser_s_state_continues_from_a_file(
    trained: dict[str, Tensor], tmp_path: Path
) -> None:
    whole = Studio(trained)
    _, expected = whole.update(BOTH, dataclasses.replace(FAST, steps=6))

    rng = generator(0)
    first = Studio(trained)
    _, moments = first.update(BOTH, dataclasses.replace(FAST, steps=2), generator=rng)
    write_safetensors(first.adapter.state_dict(), tmp_path / "adapter")
    write_safetensors(moments, tmp_path / "moments")

    second = Studio(trained)
    second.adapter.load_state_dict(read_safetensors(tmp_path / "adapter")[0])
    _, state = second.update(
        BOTH,
        dataclasses.replace(FAST, steps=4),
        generator=rng,
        optimizer_state=read_safetensors(tmp_path / "moments")[0],
    )
    assert same(second.adapter.state_dict(), whole.adapter.state_dict())
    assert same(state, expected)


def test_without_its_state_the_optimiser_starts_anew(studio: Studio) -> None:
    optimizer = torch.optim.Adam(studio.adapter.parameters())
    assert optimizer_tensors(optimizer, studio.adapter) == {}
    _, moments = studio.update(BOTH, FAST)
    name = next(iter(studio.adapter.state_dict()))
    assert float(moments[f"{name}.step"]) == FAST.steps
    partial = {key: t for key, t in moments.items() if key.startswith(name)}
    restore_optimizer(optimizer, studio.adapter, partial)
    assert same(optimizer_tensors(optimizer, studio.adapter), partial)


def test_an_update_depends_on_its_generator_alone(trained: dict[str, Tensor]) -> None:
    results = []
    for seed, ambient in ((0, 1), (0, 2), (3, 1)):
        torch.manual_seed(ambient)
        before = torch.get_rng_state()
        studio = Studio.__new__(Studio)
        with torch.random.fork_rng():
            studio.__init__(trained)  # type: ignore[misc]
        studio.update(many(6, 3), FAST, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(studio.adapter.state_dict())
    assert same(results[0], results[1])
    assert not same(results[0], results[2])
