"""The particle sampler on analytic targets: exact estimates, signs, offsets and the base case."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from fkc_targets import (
    BETA,
    TILTED_MEAN,
    TILTED_RIGHT,
    Mixture,
    estimate,
    first_coordinate,
    karras,
    start,
)
from palate.core.fkc import (
    Particles,
    effective_sample_size,
    rectified_kernel,
    sample_fk_steering,
    sample_fkc,
    systematic_resample,
)
from palate.core.fkc import increments as signs
from palate.core.fkc import sampler as sampler_module
from torch import Tensor

TARGET = Mixture()


def tilted(steps: int, count: int, seed: int = 0, flow: bool = False, **settings) -> Particles:
    sigmas = torch.linspace(1, 0, steps + 1) if flow else karras(steps)
    x, generator = start(count, seed, float(sigmas[0]))
    settings = {"reward": first_coordinate, "beta_max": BETA, "generator": generator} | settings
    if flow:
        settings["alpha"] = lambda sigma: 1 - sigma
    return sample_fkc(TARGET.denoise_flow if flow else TARGET.denoise, x, sigmas, **settings)


@cache
def reweighted_base(steps: int, flow: bool = False, **settings) -> tuple[float, float]:
    """E[x] under the base sampler's output · exp(βr), by importance weights, and its error."""
    base = tilted(steps, 50_000, 99, flow, reward=None, **settings)
    return estimate(base.x[:, 0], BETA * base.x[:, 0].double())


# Exactness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [False, True])
def test_continuous_weights_reach_the_closed_form(flow: bool) -> None:
    found = tilted(1000, 1500, flow=flow, weights="continuous")
    mean, error = estimate(found.x[:, 0], found.log_weights)
    assert abs(mean - TILTED_MEAN) < 3 * error + 0.02  # 0.02: the bias of 1,000 Euler steps
    right, error = estimate((found.x[:, 0] > 0).float(), found.log_weights)
    assert abs(right - TILTED_RIGHT) < 3 * error + 0.003


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"jacobian": False},
        {"beta_schedule": "linear"},
        {"beta_schedule": "early"},
        {"beta_schedule": "explained", "max_shift": 0.3},
        {"active": (0.1, 5.0)},
        {"ess_threshold": 0.0},
        {"ess_threshold": 1.0},
    ],
    ids=str,
)
def test_twisted_weights_are_exact_at_twenty_steps(settings: dict, flow: bool) -> None:
    """Runs of independent seeds, so that their spread is an honest standard error."""
    expected, its_error = reweighted_base(20, flow)
    runs = [tilted(20, 1000, seed, flow, **settings) for seed in range(8)]
    means = torch.tensor([estimate(run.x[:, 0], run.log_weights)[0] for run in runs])
    error = float(means.std() / len(means) ** 0.5)
    assert abs(float(means.mean()) - expected) < 3 * (error**2 + its_error**2) ** 0.5
    assert error < 0.04  # so that the comparison means something


def test_twisted_weights_are_exact_for_comfyui_own_flow_step() -> None:
    expected, its_error = reweighted_base(20, flow=True, kernel=rectified_kernel)
    runs = [tilted(20, 2000, seed, flow=True, kernel=rectified_kernel) for seed in range(8)]
    means = torch.tensor([estimate(run.x[:, 0], run.log_weights)[0] for run in runs])
    error = float(means.std() / 8**0.5)
    assert abs(float(means.mean()) - expected) < 3 * (error**2 + its_error**2) ** 0.5


def test_guidance_without_weights_is_biased() -> None:
    found = tilted(20, 4000, ess_threshold=0.0)
    assert float(found.x[:, 0].mean()) < 1.0
    assert abs(estimate(found.x[:, 0], found.log_weights)[0] - 1.61) < 0.06


@pytest.mark.parametrize(("potential", "beta"), [("difference", 2.0), ("max", 0.1), ("sum", 0.03)])
def test_fk_steering_targets_the_same_tilt(potential: str, beta: float) -> None:
    """Gentle enough a tilt that resampling by max and sum leaves particles to estimate from."""
    means = []
    for seed in range(8):
        x, generator = start(1500, seed)
        found = sample_fk_steering(
            TARGET.denoise, x, karras(20), reward=first_coordinate, beta_max=beta,
            potential=potential, generator=generator,
        )  # fmt: skip
        means.append(estimate(found.x[:, 0], found.log_weights)[0])
    base = tilted(20, 50_000, 99, reward=None)
    expected, its_error = estimate(base.x[:, 0], beta * base.x[:, 0].double())
    error = float(torch.tensor(means).std() / 8**0.5)
    assert abs(sum(means) / 8 - expected) < 3 * (error**2 + its_error**2) ** 0.5
    assert error < 0.05


def test_twisted_keeps_ten_times_the_effective_particles_of_continuous() -> None:
    share = {
        weights: tilted(20, 4000, weights=weights, ess_threshold=0.0).ess[-1] / 4000
        for weights in ("twisted", "continuous")
    }
    assert share["twisted"] > 0.15
    assert share["continuous"] < 0.01
    assert share["twisted"] > 10 * share["continuous"]


# Signs --------------------------------------------------------------------------------------------


def flipped(increment):
    """The increment with the wrong sign."""

    def wrong(*values, **named):
        return -increment(*values, **named)

    return wrong


@pytest.mark.parametrize("weights", ["continuous", "twisted"])
@pytest.mark.parametrize(
    "name", ["schedule_increment", "transport_increment", "guidance", "proposal_increment"]
)
def test_a_wrong_sign_in_the_sampler_misses_the_target(
    monkeypatch: pytest.MonkeyPatch, weights: str, name: str
) -> None:
    used = {"twisted": ["proposal_increment"]}.get(
        weights, ["schedule_increment", "transport_increment", "guidance"]
    )
    steps, expected = (200, 1.80) if weights == "continuous" else (20, 1.61)
    monkeypatch.setattr(sampler_module, name, flipped(getattr(signs, name)))
    found = tilted(steps, 1500, weights=weights)
    mean, error = estimate(found.x[:, 0], found.log_weights)
    if name in used:
        assert abs(mean - expected) > max(0.1, 3 * error)
    else:
        assert abs(mean - expected) < 0.1


def variance_preserving(
    steps: int, count: int, drift: int = 1, transport: int = 1, schedule: int = 1
) -> float:
    """E[x] by Prop. D.6 in VP time, Euler, β linear; a −1 flips that term's sign."""
    low, high = 0.1, 20.0
    x, generator = start(count, 0, 1.0)
    log_weights = torch.zeros(count, dtype=torch.float64)
    gradient, dt = torch.tensor([[1.0, 0.0]]).expand(count, 2), 1 / steps
    for n in range(steps):
        tau = 1 - n * dt  # time towards noise
        rate = low + (high - low) * tau
        kept = torch.tensor(-(low * tau + (high - low) * tau**2 / 2)).exp().item()
        fall, beta, diffusion = drift * -rate / 2 * x * dt, BETA * n * dt, rate * dt
        score = TARGET.score(x, kept**0.5, (1 - kept) ** 0.5)
        reward = x[:, 0].double()
        log_weights += schedule * signs.schedule_increment(reward, reward, beta, beta + BETA * dt)
        log_weights += transport * signs.transport_increment(score, gradient, beta, diffusion, fall)
        noise = torch.randn(x.shape, generator=generator)
        x = x - fall + diffusion * score + diffusion**0.5 * noise
        x = x + signs.guidance(gradient, beta, diffusion)
        if effective_sample_size(log_weights) < 0.5 * count and n < steps - 1:
            x = x[systematic_resample(log_weights, generator)]
            log_weights = torch.zeros_like(log_weights)
    return estimate(x[:, 0], log_weights)[0]


def test_proposition_d6_in_vp_time_gives_the_closed_form() -> None:
    assert abs(variance_preserving(1000, 4000) - TILTED_MEAN) < 0.02


@pytest.mark.parametrize(
    ("wrong", "gives"),
    [("drift", 0.38), ("schedule", -0.07), ("transport", None)],
)
def test_each_wrong_sign_of_proposition_d6_is_told_apart(wrong: str, gives: float | None) -> None:
    mean = variance_preserving(500, 2000, **{wrong: -1})
    assert abs(mean - TILTED_MEAN) > 0.15
    assert gives is None or abs(mean - gives) < 0.2


# Invariances --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["twisted", "continuous"])
@pytest.mark.parametrize("offset", [3.0, -3.0])
def test_an_offset_of_the_reward_changes_nothing(weights: str, offset: float) -> None:
    def shifted(x0_hat: Tensor, sigma: Tensor) -> Tensor:
        return x0_hat[:, 0] + offset

    plain = tilted(20, 500, weights=weights)
    moved = tilted(20, 500, weights=weights, reward=shifted)
    assert torch.equal(plain.ancestors, moved.ancestors)
    torch.testing.assert_close(plain.x, moved.x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.log_weights, moved.log_weights, rtol=0, atol=1e-3)


def test_the_drafts_weights_do_depend_on_the_offset() -> None:
    """The defect that the ablation keeps: at −3 every weight ends on its lower limit or near."""
    low = tilted(20, 500, weights="seed", reward=lambda x, s: x[:, 0] - 3)
    plain = tilted(20, 500, weights="seed")
    assert not torch.allclose(low.weights, plain.weights, atol=1e-4)
    for found in (low, plain):
        assert float(found.log_weights.exp().min()) >= 0.1 - 1e-9
        assert float(found.log_weights.exp().max()) <= 10 + 1e-9
        assert torch.equal(found.ancestors, torch.arange(500).expand(20, -1))
