"""The sampler's machinery: base case bit for bit, chunks, killed particles, ancestry, callbacks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from fkc_targets import BETA, Mixture, first_coordinate, karras, start
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.fkc import (
    NoParticleLeft,
    Particles,
    SamplingStopped,
    ancestral_kernel,
    effective_sample_size,
    rectified_kernel,
    sample_fkc,
    systematic_resample,
)
from torch import Tensor

TARGET, STEPS = Mixture(), 20


def run(count: int = 64, seed: int = 0, **given) -> Particles:
    x, generator = start(count, seed)
    given = {"reward": first_coordinate, "beta_max": BETA, "generator": generator} | given
    return sample_fkc(TARGET.denoise, x, karras(STEPS), **given)


def ancestral_euler(count: int, seed: int) -> Tensor:
    """The stock sampler (η = 1), written out as k-diffusion computes it."""
    x, generator = start(count, seed)
    sigmas = karras(STEPS)
    for sigma, following in pairwise(sigmas):
        denoised = TARGET.denoise(x, sigma * x.new_ones(count))
        up = min(following, (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
        down = (following**2 - up**2) ** 0.5
        if down == 0:
            return denoised
        x = x + (x - denoised) / sigma * (down - sigma)
        x = x + torch.randn(x.shape, generator=generator) * 1.0 * up
    return x


@pytest.mark.parametrize("weights", ["twisted", "continuous", "seed"])
@pytest.mark.parametrize("untilted", [{"reward": None}, {"beta_max": 0.0}], ids=str)
def test_without_a_tilt_it_is_the_ancestral_sampler_bit_for_bit(
    weights: str, untilted: dict
) -> None:
    found = run(33, 4, weights=weights, **untilted)
    assert torch.equal(found.x, ancestral_euler(33, 4))
    assert torch.equal(found.log_weights, torch.zeros(33, dtype=torch.float64))
    assert torch.equal(found.lineage, torch.arange(33))


def test_a_noise_sampler_takes_the_generators_place_and_is_not_asked_for_the_last_step() -> None:
    asked: list[tuple[float, float]] = []

    def silent(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        asked.append((float(sigma), float(sigma_next)))
        return torch.zeros(5, 2)

    run(5, reward=None, noise_sampler=silent)
    sigmas = karras(STEPS).tolist()
    assert asked == list(pairwise(sigmas[:-1]))


@pytest.mark.parametrize("weights", ["twisted", "continuous", "seed"])
def test_a_zero_reward_leaves_samples_and_weights_alone(weights: str) -> None:
    found = run(40, 2, weights=weights, reward=lambda x, s: torch.zeros(len(x)))
    torch.testing.assert_close(found.x, ancestral_euler(40, 2))
    torch.testing.assert_close(found.log_weights, torch.zeros(40, dtype=torch.float64))


@pytest.mark.parametrize("chunk", [1, 7, 63, 64, 1000])
@pytest.mark.parametrize("weights", ["twisted", "continuous"])
def test_chunks_change_nothing(chunk: int, weights: str) -> None:
    whole, parts = run(weights=weights), run(weights=weights, chunk=chunk)
    assert torch.equal(whole.ancestors, parts.ancestors)
    torch.testing.assert_close(whole.x, parts.x)
    torch.testing.assert_close(whole.log_weights, parts.log_weights)


def test_the_model_never_sees_more_than_a_chunk() -> None:
    sizes = set()

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        sizes.add((len(x), len(sigma)))
        return TARGET.denoise(x, sigma)

    x, generator = start(10, 0)
    sample_fkc(model, x, karras(4), reward=first_coordinate, generator=generator, chunk=4)
    assert sizes == {(4, 4), (2, 2)}


def test_one_particle_is_a_guided_sample_of_weight_one() -> None:
    found = run(1)
    assert found.x.shape == (1, 2)
    torch.testing.assert_close(found.weights, torch.ones(1, dtype=torch.float64))
    assert torch.equal(found.ess, torch.ones(STEPS, dtype=torch.float64))


def test_the_same_generator_gives_the_same_particles() -> None:
    assert torch.equal(run(seed=3).x, run(seed=3).x)
    assert not torch.equal(run(seed=3).x, run(seed=4).x)


def test_nothing_reads_or_moves_the_global_generator() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("weights", ["twisted", "continuous", "seed"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_particle_without_a_finite_reward_is_killed(weights: str, bad: float) -> None:
    def reward(x0_hat: Tensor, sigma: Tensor) -> Tensor:
        return torch.where(x0_hat[:, 1] < 0, bad, x0_hat[:, 0])

    found = run(400, weights=weights, reward=reward, ess_threshold=0.0)
    killed = found.x[:, 1] < 0
    assert bool(killed.any())
    assert bool((found.weights[killed] == 0).all())
    assert not bool(found.weights.isnan().any())
    assert float(found.mean(found.x)[1]) > 0
    resampled = run(400, weights=weights, reward=reward)
    assert bool(torch.isfinite(resampled.mean(resampled.x)).all())


@pytest.mark.parametrize("weights", ["twisted", "continuous", "seed"])
def test_a_reward_that_is_never_finite_is_an_error_that_says_so(weights: str) -> None:
    with pytest.raises(NoParticleLeft, match="reward was not a finite number"):
        run(weights=weights, reward=lambda x, s: x[:, 0] * float("nan"))


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_gradient_that_is_not_finite_kills_too(value: float) -> None:
    def reward(x0_hat: Tensor, sigma: Tensor) -> Tensor:
        return (x0_hat[:, 0] - x0_hat[:, 0].detach()).clamp(min=0).sqrt() * value

    with pytest.raises(NoParticleLeft):
        run(8, reward=reward)


def test_ancestry_leads_back_to_the_start() -> None:
    """Replaying the recorded parents on tags gives the lineage, and dead lines stay dead."""
    found = run(50)
    assert found.ancestors.shape == (STEPS, 50)
    assert found.ess.shape == (STEPS,)
    tags = list(range(50))
    for parents in found.ancestors.tolist():
        tags = [tags[parent] for parent in parents]
    assert found.lineage.tolist() == tags
    assert len(set(tags)) < 50


def test_resampling_moves_all_state_together() -> None:
    """Each particle carries a tag that model and reward read: a stray row would mix them up."""

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        x0_hat = TARGET.denoise(x[:, :2], sigma)
        return torch.cat([x0_hat, x[:, 2:].round(decimals=3)], dim=1)

    x, generator = start(32, 0)
    tagged = torch.cat([x, torch.arange(32.0)[:, None] / 8], dim=1)

    def quiet(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        noise = torch.randn(32, 2, generator=generator)
        return torch.cat([noise, torch.zeros(32, 1)], dim=1)

    found = sample_fkc(
        model, tagged, karras(STEPS), reward=first_coordinate, beta_max=BETA,
        generator=generator, noise_sampler=quiet,
    )  # fmt: skip
    assert len(set(found.lineage.tolist())) < 32
    torch.testing.assert_close(found.x[:, 2], found.lineage / 8.0)


def test_outside_the_active_interval_nothing_is_guided_or_resampled() -> None:
    found = run(64, active=(0.5, 2.0))
    for i, sigma in enumerate(karras(STEPS)[1:-1].tolist()):
        if not 0.5 <= sigma <= 2.0:
            assert torch.equal(found.ancestors[i], torch.arange(64))
    nowhere = run(64, active=(100.0, 200.0))
    assert torch.equal(nowhere.x, ancestral_euler(64, 0))


def test_leftover_noise_ends_on_the_last_sigma() -> None:
    x, generator = start(2000, 0)
    found = sample_fkc(
        TARGET.denoise, x, karras(STEPS)[:15], reward=first_coordinate, beta_max=BETA,
        generator=generator,
    )  # fmt: skip
    assert found.ess.shape == (14,)
    assert bool(torch.isfinite(found.log_weights).all())


def test_callbacks_tell_every_step() -> None:
    seen: list[dict] = []
    done: list[tuple[int, int]] = []
    run(8, callback=seen.append, progress=lambda i, n: done.append((i, n)))
    assert [news["i"] for news in seen] == list(range(STEPS))
    assert {"x", "sigma", "sigma_hat", "denoised", "log_weights", "ess"} <= set(seen[0])
    assert done == [(i + 1, STEPS) for i in range(STEPS)]


def test_a_stop_is_heard_between_chunks() -> None:
    calls = []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(len(x))
        return TARGET.denoise(x, sigma)

    x, generator = start(10, 0)
    with pytest.raises(SamplingStopped):
        sample_fkc(
            model, x, karras(4), reward=first_coordinate, generator=generator, chunk=2,
            should_stop=lambda: len(calls) == 3,
        )  # fmt: skip
    assert calls == [2, 2, 2]


def test_extra_args_reach_the_model_and_seed_the_noise() -> None:
    def model(x: Tensor, sigma: Tensor, seed: int, gain: float) -> Tensor:
        assert gain == 2.0
        return TARGET.denoise(x, sigma)

    x, _ = start(6, 0)
    first, second, other = (
        sample_fkc(model, x, karras(5), {"seed": seed, "gain": 2.0}, reward=None).x
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_it_works_inside_inference_mode() -> None:
    with torch.inference_mode():
        inside = run(16)
    torch.testing.assert_close(inside.x, run(16).x)


def test_the_ancestral_kernel_of_a_flow_model_is_that_of_x_over_alpha() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x0_hat = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    sigma, following = torch.tensor([0.7, 0.4], dtype=torch.float64)
    mean, std = ancestral_kernel(x, x0_hat, sigma, following, 1 - sigma, 1 - following)
    scaled_mean, scaled_std = ancestral_kernel(
        x / (1 - sigma), x0_hat, sigma / (1 - sigma), following / (1 - following)
    )
    torch.testing.assert_close(mean, (1 - following) * scaled_mean)
    torch.testing.assert_close(std, (1 - following) * scaled_std)


def test_the_rectified_kernel_is_the_stock_flow_step() -> None:
    x, x0_hat = torch.full((2, 1), 0.9), torch.full((2, 1), 0.2)
    sigma, following = torch.tensor([0.8, 0.5])
    mean, std = rectified_kernel(x, x0_hat, sigma, following)
    down = following**2 / sigma
    euler = x + (x - x0_hat) / sigma * (down - sigma)
    torch.testing.assert_close(mean, (1 - following) / (1 - down) * euler)
    scale = (1 - following) / (1 - down)
    torch.testing.assert_close(std**2 + (scale * down) ** 2, following**2)


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(-30, 30) | st.just(float("-inf")), min_size=1, max_size=40),
    seed=st.integers(0, 2**31),
)
def test_systematic_resampling_keeps_expected_counts(weights: list[float], seed: int) -> None:
    log_weights = torch.tensor(weights, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    if not bool(torch.isfinite(log_weights).any()):
        with pytest.raises(NoParticleLeft):
            systematic_resample(log_weights, generator)
        assert effective_sample_size(log_weights) == 0.0
        return
    parents = systematic_resample(log_weights, generator)
    expected = len(weights) * log_weights.softmax(0)
    counts = torch.bincount(parents, minlength=len(weights)).double()
    assert bool(((counts - expected).abs() < 1 + 1e-6).all())
    assert bool((counts[expected == 0] == 0).all())
    again = systematic_resample(log_weights + 5, torch.Generator().manual_seed(seed))
    assert int((again != parents).sum()) <= 1  # rounding at an edge


def test_equal_weights_resample_to_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(systematic_resample(torch.zeros(17), generator), torch.arange(17))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": "best"}, "'twisted', 'continuous' or 'seed'"),
        ({"beta_max": float("nan")}, "beta_max"),
        ({"ess_threshold": 1.5}, "share of the particles"),
        ({"chunk": 0}, "chunk"),
        ({"beta_schedule": "cosine"}, "beta schedule 'cosine'"),
        ({"alpha": torch.ones(3)}, "one value a sigma"),
        ({"alpha": lambda s: s * 0}, "may be 0 at the first sigma only"),
        ({"reward": lambda x, s: x}, "one number a particle"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(4, **wrong)


def test_sigmas_must_fall() -> None:
    for sigmas in (torch.tensor([1.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.5, 0.5])):
        with pytest.raises(ValueError, match="fall"):
            sample_fkc(TARGET.denoise, torch.zeros(2, 2), sigmas, reward=None)
