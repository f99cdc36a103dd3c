"""The reward ensemble: learns every kind of answer, stays honest, refuses one-class data."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from palate.core.fkc import sample_fkc
from palate.core.reward import RewardModel
from palate.core.reward.data import RatedLatents, held_out_margins
from safetensors.torch import load, save
from torch import Tensor

SHAPE, K = (4, 8, 8), 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(count: int, seed: int, scale: float = 1.0, offset: float = 0.0) -> Tensor:
    """Smooth latents: a random colour each, and some texture."""
    random = generator(seed)
    colour = torch.randn(count, 4, 1, 1, generator=random)
    return offset + scale * (colour + 0.3 * torch.randn(count, *SHAPE, generator=random))


def taste(x: Tensor) -> Tensor:
    return x[:, 0].mean((1, 2)) - 0.5 * x[:, 2].mean((1, 2))


def answer(x: Tensor, kind: str) -> dict:
    order = taste(x).argsort(descending=True).tolist()
    if kind == "pick":
        return {"kind": "pick", "winner": order[0]}
    if kind == "rank":
        return {"kind": "rank", "order": order}
    if kind == "like":
        liked = order[: len(x) // 2]
        return {"kind": "rate", "ratings": [1.0 if i in liked else -1.0 for i in range(len(x))]}
    stars = {image: 1 - 2 * place / (len(x) - 1) for place, image in enumerate(order)}
    return {"kind": "rate", "ratings": [stars[i] for i in range(len(x))]}


def log(kind: str, queries: int = 12, seed: int = 1, **look) -> list[tuple[Tensor, dict]]:
    every = latents(K * queries, seed, **look).split(K)
    return [(x, answer(x, kind)) for x in every]


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@cache
def fitted(kind: str, queries: int = 12, seed: int = 1) -> RewardModel:
    return RewardModel(SHAPE).fit(log(kind, queries, seed), generator=generator())


@pytest.mark.parametrize("kind", ["pick", "rank", "like", "stars"])
def test_every_kind_of_answer_teaches_the_taste(kind: str) -> None:
    reward = fitted(kind)
    unseen = latents(200, 2)
    assert reward.ready
    assert correlation(reward(unseen), taste(unseen)) > 0.75


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0.0), (50.0, 100.0)])
def test_the_latents_scale_does_not_matter(scale: float, offset: float) -> None:
    look = {"scale": scale, "offset": offset}
    reward = RewardModel(SHAPE).fit(log("rank", **look), generator=generator())
    plain = fitted("rank")
    there, here = reward(latents(50, 2, **look)), plain(latents(50, 2))
    torch.testing.assert_close(there, here, rtol=0.02, atol=0.02)


def test_it_is_deterministic_by_its_generator() -> None:
    models = [
        RewardModel(SHAPE).fit(log("like", 4), generator=generator(s), steps=10) for s in (0, 0, 1)
    ]
    values = [model(latents(5, 3)) for model in models]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_a_refit_starts_from_scratch() -> None:
    """So that the reward is a function of the log alone, however often it was resumed."""
    fresh = RewardModel(SHAPE).fit(log("like", 4), generator=generator(), steps=10)
    again = RewardModel(SHAPE).fit(log("rank", 3, 9), generator=generator(5), steps=10)
    again.fit(log("like", 4), generator=generator(), steps=10)
    assert torch.equal(fresh(latents(5, 3)), again(latents(5, 3)))


def test_the_gradient_points_where_the_taste_grows() -> None:
    reward = fitted("rank")
    x = latents(32, 4).requires_grad_()
    for sigma in (0.0, 0.5, 2.0):
        (gradient,) = torch.autograd.grad(reward(x, sigma).sum(), x)
        by_channel = gradient.mean((0, 2, 3))
        assert by_channel[0] > 0 > by_channel[2]


def test_noise_makes_it_less_sure_of_the_difference() -> None:
    reward = fitted("rank")
    noisy = latents(64, 4) / 26  # the Wiener estimate at σ = 5 of what noise leaves
    assert float(reward(noisy, 5.0).std()) < float(reward(latents(64, 4)).std())


@pytest.mark.parametrize("kind", ["pick", "rank", "like"])
def test_a_query_weighs_as_much_as_its_images_can_differ(kind: str) -> None:
    answers = [*log(kind, queries=3), (latents(8, 5), answer(latents(8, 5), kind))]
    data = RatedLatents.of(answers, SHAPE, folds=5)
    margins, weights = held_out_margins(torch.randn(20, 5, generator=generator()), data)
    assert len(margins) == len(weights)
    assert weights.sum() == pytest.approx(3 * (K - 1) / 2 + 7 / 2)


def test_mean_and_std_are_calibrated() -> None:
    """Over several logs, most unseen images lie within two std, and the std is not idle."""
    inside, widths = [], []
    for seed in range(4):
        answers = log("like", 8, 10 + seed)
        reward = RewardModel(SHAPE).fit(answers, generator=generator(seed))
        unseen = latents(200, 100 + seed)
        mean, std = reward.predict(unseen)
        rated = torch.stack([taste(x) for x, _ in answers])  # (queries, K)
        truth = (taste(unseen) - rated.mean()) / rated.std(1).square().mean().sqrt()
        inside.append(float(((mean - truth).abs() < 2 * std).float().mean()))
        widths.append(float(std.mean()))
    assert 0.8 < sum(inside) / len(inside) <= 1.0
    assert 0.2 < sum(widths) / len(widths) < 1.0


def test_random_answers_are_not_believed() -> None:
    noise = [(x, {"kind": "pick", "winner": n % K}) for n, (x, _) in enumerate(log("pick"))]
    random = RewardModel(SHAPE).fit(noise, generator=generator())
    honest = fitted("pick")
    assert random.accuracy < honest.accuracy
    assert random(latents(64, 2)).std() < 0.6 * honest(latents(64, 2)).std()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "no ratings yet"),
        ([(latents(K, 0), {"kind": "skip"})], "no ratings yet"),
        ([(latents(K, 0), {"kind": "rate", "ratings": [1.0, 1.0, None, 1.0]})], "liked alike"),
        ([(latents(K, n), {"kind": "rate", "ratings": [-1.0] * K}) for n in (0, 1)], "no rated"),
        ([(latents(K, 0), {"kind": "rate", "ratings": [0.0] * K})], "no rated image is liked"),
    ],
)
def test_one_class_data_does_not_steer(answers: list, reason: str) -> None:
    reward = RewardModel(SHAPE).fit(answers, generator=generator())
    assert not reward.ready
    assert reason in reward.reason
    x = latents(6, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(reward(x, 1.0).sum(), x)
    assert not gradient.any()
    assert not reward(x).any()


def test_an_unready_reward_leaves_the_sampler_plain() -> None:
    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma[:, None, None, None] ** 2)

    sigmas, x = torch.tensor([5.0, 1.0, 0.0]), 5 * latents(4, 0)
    tilted = sample_fkc(model, x, sigmas, reward=RewardModel(SHAPE), generator=generator())
    plain = sample_fkc(model, x, sigmas, reward=None, generator=generator())
    torch.testing.assert_close(tilted.x, plain.x)


def test_it_learns_inside_inference_mode() -> None:
    with torch.inference_mode():
        answers = [(x.clone(), answer) for x, answer in log("like", 4)]
        inside = RewardModel(SHAPE).fit(answers, generator=generator(), steps=10)
    outside = RewardModel(SHAPE).fit(log("like", 4), generator=generator(), steps=10)
    assert torch.equal(inside(latents(5, 3)), outside(latents(5, 3)))


def test_liking_the_better_half_of_ever_better_images_is_not_a_contradiction() -> None:
    """Disliked late images are better than liked early ones: only the comparisons must count."""
    answers = []
    for step, (x, _) in enumerate(log("like", 8)):
        better = x.clone()
        better[:, 0] += 0.7 * step
        answers.append((better, answer(better, "like")))
    reward = RewardModel(SHAPE).fit(answers, generator=generator())
    early, late = latents(100, 2), latents(100, 2)
    late[:, 0] += 4.0
    assert float((reward(late) > reward(early)).float().mean()) > 0.9


def test_a_single_image_a_query_can_be_learnt_from() -> None:
    every = latents(40, 1)
    likes = [
        (x[None], {"kind": "rate", "ratings": [1.0 if taste(x[None]) > 0 else -1.0]}) for x in every
    ]
    reward = RewardModel(SHAPE).fit(likes, generator=generator())
    unseen = latents(200, 2)
    assert correlation(reward(unseen), taste(unseen)) > 0.7


@pytest.mark.parametrize("ready", [True, False])
def test_its_state_survives_a_safetensors_file(ready: bool) -> None:
    reward = RewardModel(SHAPE)
    if ready:
        reward.fit(log("like", 4), generator=generator())
    back = RewardModel.from_state_dict(load(save(reward.state_dict())))
    assert back.ready == ready
    assert back.labels == reward.labels
    for mine, its in zip(
        reward.predict(latents(5, 3), 0.7), back.predict(latents(5, 3), 0.7), strict=True
    ):
        assert torch.equal(mine, its)


def test_stable_diffusion_sized_and_oblong_latents_fit() -> None:
    random = generator(0)
    answers = [
        (torch.randn(K, 4, 64, 64, generator=random), {"kind": "pick", "winner": 0})
        for _ in range(2)
    ]
    reward = RewardModel((4, 64, 64)).fit(answers, generator=random, steps=3)
    assert reward(torch.randn(2, 4, 64, 64, generator=random)).shape == (2,)
    assert reward(torch.randn(2, 4, 48, 96, generator=random)).shape == (2,)


def test_stopping_leaves_the_network_as_it_was() -> None:
    reward = fitted("like", 4)
    before = reward(latents(5, 3))
    reward.fit(log("rank", 4, 7), generator=generator(), should_stop=lambda: True)
    assert torch.equal(before, reward(latents(5, 3)))
    assert reward.labels == 16


def test_progress_counts_the_steps() -> None:
    done: list[tuple[int, int]] = []
    RewardModel(SHAPE).fit(
        log("like", 2), generator=generator(), steps=3, progress=lambda *step: done.append(step)
    )
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_bad_latents_are_refused() -> None:
    pick = {"kind": "pick", "winner": 0}
    with pytest.raises(ValueError, match="rated latents must be"):
        RewardModel(SHAPE).fit([(torch.zeros(K, 3, 8, 8), pick)], generator=generator())
    with pytest.raises(ValueError, match="finite"):
        RewardModel(SHAPE).fit([(latents(K, 0) * torch.nan, pick)], generator=generator())
    with pytest.raises(ValueError, match="unknown kind"):
        RewardModel(SHAPE).fit([(latents(K, 0), {"kind": "shrug"})], generator=generator())
