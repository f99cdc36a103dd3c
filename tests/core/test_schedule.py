"""Noise schedules: ELBO weights, σ tables and the unbiased draw of timesteps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.schedule import (
    NoiseSchedule,
    alphas_cumprod_of,
    boundary_sigma,
    elbo_weights,
    sample_timesteps,
    sigmas_of,
)
from torch import Tensor


def linear(steps: int = 1000) -> Tensor:
    """DDPM's linear β schedule: ᾱ in float64."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64), 0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ELBO weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "expected", "digits"),
    [(1, 1.20, 2), (2, 0.64, 2), (10, 0.16, 2), (100, 0.020, 3), (400, 0.010, 3), (999, 0.020, 3)],
)
def test_elbo_weight_of_the_linear_schedule(t: int, expected: float, digits: int) -> None:
    assert round(float(elbo_weights(linear())[t]), digits) == expected


def test_elbo_weights_add_up_as_the_paper_s_do() -> None:
    weights = elbo_weights(linear())
    assert weights[0] == 0
    assert round(float(weights.sum()), 1) == 20.3
    assert round(float(weights[:10].sum()), 1) == 3.7
    assert round(float(weights[400:].sum()), 1) == 8.8


def test_elbo_weights_from_beta_directly() -> None:
    beta = torch.rand(50, generator=generator(), dtype=torch.float64) * 0.1 + 1e-3
    cumulative = torch.cumprod(1 - beta, 0)
    expected = [float(beta[t] / ((1 - beta[t]) * (1 - cumulative[t - 1]))) for t in range(1, 50)]
    torch.testing.assert_close(elbo_weights(cumulative)[1:].tolist(), expected)


def test_float32_table_loses_no_more_than_its_own_rounding() -> None:
    single = elbo_weights(linear().float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, elbo_weights(linear()).float(), rtol=5e-3, atol=0)


@pytest.mark.parametrize(
    "bad",
    [
        torch.tensor([0.9]),
        torch.full((2, 2), 0.5),
        torch.tensor([0.5, 0.9, 0.3]),
        torch.tensor([1.0, 0.9]),
        torch.tensor([0.9, 0.5, 0.0]),
        torch.tensor([0.9, float("nan")]),
    ],
    ids=["one step", "matrix", "rising", "begins at 1", "ends at 0", "nan"],
)
def test_elbo_weights_refuse_what_is_no_schedule(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="alphas_cumprod"):
        elbo_weights(bad)


# σ ------------------------------------------------------------------------------------------------


def test_sigma_and_alpha_bar_are_inverse() -> None:
    alphas = linear()
    sigmas = sigmas_of(alphas)
    assert bool((sigmas.diff() > 0).all())
    torch.testing.assert_close(alphas_cumprod_of(sigmas), alphas, rtol=1e-12, atol=0)


def test_sigma_is_the_ratio_of_noise_to_signal() -> None:
    alphas = torch.tensor([0.8, 0.5, 0.2])
    torch.testing.assert_close(sigmas_of(alphas), torch.tensor([0.5, 1.0, 2.0]))


def test_boundary_sigma_is_the_sigma_of_its_timestep() -> None:
    alphas = linear()
    assert boundary_sigma(alphas, 0) == 0.0
    assert boundary_sigma(alphas, 400) == float(sigmas_of(alphas)[400])
    for outside in (-1, 1000):
        with pytest.raises(ValueError, match="boundary"):
            boundary_sigma(alphas, outside)


# Drawing timesteps --------------------------------------------------------------------------------


@given(
    weights=st.lists(st.floats(0, 10), min_size=1, max_size=30).filter(lambda w: sum(w) > 1e-3),
    count=st.integers(1, 40),
    batch=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_every_draw_is_valid(weights: list[float], count: int, batch: int, seed: int) -> None:
    table = torch.tensor(weights, dtype=torch.float64)
    timesteps, importance = sample_timesteps(table, count, batch, generator(seed))
    assert timesteps.shape == importance.shape
    assert timesteps.shape == (batch, min(count, int((table > 0).sum())))
    assert timesteps.dtype == torch.int64
    assert bool((table[timesteps] > 0).all())
    assert bool((timesteps.diff(dim=1) >= 0).all())
    # The estimate of Σ w_t·1 has no variance at all: importance·w is the same for every draw.
    estimate = (importance.double() * table[timesteps]).sum(1)
    torch.testing.assert_close(estimate, table.sum().expand(batch), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_estimate_of_a_sum_is_unbiased(count: int, first: int) -> None:
    weights = elbo_weights(linear(40))
    value = torch.sin(torch.arange(40, dtype=torch.float64)) + 0.3
    exact = float((weights * value)[first:].sum())
    timesteps, importance = sample_timesteps(weights, count, 40_000, generator(1), first)
    estimates = (importance.double() * weights[timesteps] * value[timesteps]).sum(1)
    error = float(estimates.mean()) - exact
    assert abs(error) < 4 * float(estimates.std()) / 40_000**0.5


def test_stratification_lowers_the_variance() -> None:
    weights = elbo_weights(linear(200))
    value = torch.linspace(0, 1, 200, dtype=torch.float64)

    def variance(timesteps: Tensor, importance: Tensor) -> float:
        return float((importance.double() * weights[timesteps] * value[timesteps]).sum(1).var())

    stratified = variance(*sample_timesteps(weights, 8, 4_000, generator(2)))
    single, weight = sample_timesteps(weights, 1, 32_000, generator(3))
    independent = variance(single.view(-1, 8), weight.view(-1, 8) / 8)
    assert stratified < independent / 20


def test_each_stratum_of_equal_mass_is_drawn_once() -> None:
    timesteps, _ = sample_timesteps(torch.ones(40), 4, 500, generator())
    assert torch.equal(timesteps // 10, torch.arange(4).expand(500, 4))


@pytest.mark.parametrize("count", [32, 33, 1000])
def test_as_many_draws_as_timesteps_is_the_full_sum(count: int) -> None:
    weights = elbo_weights(linear(40))
    timesteps, importance = sample_timesteps(weights, count, 3, generator(), first=8)
    assert torch.equal(timesteps, torch.arange(8, 40).expand(3, -1))
    assert torch.equal(importance, torch.ones(3, 32))


def test_the_weightless_first_timestep_is_never_drawn() -> None:
    timesteps, _ = sample_timesteps(elbo_weights(linear(5)), 4, 1, generator())
    assert timesteps.tolist() == [[1, 2, 3, 4]]


def test_draws_depend_on_the_generator_alone() -> None:
    weights = elbo_weights(linear(40))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (sample_timesteps(weights, 4, 5, generator(7))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, sample_timesteps(weights, 4, 5, generator(8))[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("weights", "count", "first"),
    [([1.0, 2.0], 0, 0), ([0.0, 0.0], 1, 0), ([1.0, 2.0], 1, 2), ([1.0, 2.0, 3.0], 1, -1)],
    ids=["no draw", "no weight", "behind the end", "before the beginning"],
)
def test_an_impossible_draw_is_refused(weights: list[float], count: int, first: int) -> None:
    with pytest.raises(ValueError, match="timestep"):
        sample_timesteps(torch.tensor(weights), count, 1, generator(), first)


# A model's own table ------------------------------------------------------------------------------


def flow_table(steps: int = 1000, shift: float = 3.0) -> Tensor:
    """SD3's σ_t, t = 1 … T, as its sampler tabulates them; the last is 1."""
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return shift * t / (1 + (shift - 1) * t)


@pytest.mark.parametrize("flow", [False, True], ids=["variance", "flow"])
def test_elbo_weights_are_ratios_of_signal_to_noise(flow: bool) -> None:
    schedule = NoiseSchedule(flow_table() if flow else sigmas_of(linear()), flow)
    alpha = 1 - schedule.sigmas if flow else torch.ones(len(schedule))
    snr = (alpha / schedule.sigmas) ** 2
    weights = elbo_weights(schedule.alphas_cumprod)
    torch.testing.assert_close(weights[1:], snr[:-1] / snr[1:] - 1, rtol=1e-6, atol=0)
    assert weights[0] == 0


@pytest.mark.parametrize("flow", [False, True], ids=["variance", "flow"])
def test_coefficients_take_one_notation_to_the_other(flow: bool) -> None:
    schedule = NoiseSchedule(flow_table() if flow else sigmas_of(linear()), flow)
    t = torch.tensor([0, 5, 400, len(schedule) - 1])
    x0, noise = torch.randn(2, 4, generator=generator(), dtype=torch.float64)
    alpha, sigma, scale = schedule.coefficients(t)
    bar = schedule.alphas_cumprod[t]
    in_ddpm = bar.sqrt() * x0 + (1 - bar).sqrt() * noise
    torch.testing.assert_close(scale * in_ddpm, alpha * x0 + sigma * noise)
    torch.testing.assert_close((scale * in_ddpm - alpha * x0) / sigma, noise)


def test_a_flow_s_pure_noise_is_left_out() -> None:
    schedule = NoiseSchedule(flow_table(), flow=True)
    assert len(schedule) == 999
    assert float(schedule.sigmas[-1]) < 1
    assert bool(torch.isfinite(elbo_weights(schedule.alphas_cumprod)).all())


@pytest.mark.parametrize("flow", [False, True], ids=["variance", "flow"])
def test_a_boundary_means_the_same_in_every_unit(flow: bool) -> None:
    schedule = NoiseSchedule(flow_table() if flow else sigmas_of(linear()), flow)
    gate = float(schedule.sigmas[400])
    for at, unit in ((400, "timestep"), (400.5 / len(schedule), "fraction"), (gate, "sigma")):
        assert schedule.boundary(at, unit) == (400, gate)  # type: ignore[arg-type]
    assert schedule.boundary(0.0, "fraction") == (0, 0.0)
    assert schedule.boundary(0.0, "sigma") == (0, 0.0)
    for at, unit in ((1.0, "fraction"), (1e9, "sigma"), (len(schedule), "timestep"), (-1, "sigma")):
        with pytest.raises(ValueError, match="boundary"):
            schedule.boundary(at, unit)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unit"):
        schedule.boundary(1, "percent")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [[1.0], [0.0, 1.0], [2.0, 1.0], [1.0, float("inf")]], ids=str)
def test_a_table_that_does_not_rise_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="sigmas"):
        NoiseSchedule(torch.tensor(bad))


@pytest.mark.parametrize("count", [2, 8])
def test_any_proposal_is_unbiased(count: int) -> None:
    weights = elbo_weights(linear(40))
    value = torch.cos(torch.arange(40, dtype=torch.float64)) + 0.3
    proposal = torch.rand(40, generator=generator(5), dtype=torch.float64) + 0.05
    timesteps, importance = sample_timesteps(weights, count, 40_000, generator(6), 0, proposal)
    estimates = (importance.double() * weights[timesteps] * value[timesteps]).sum(1)
    error = float(estimates.mean()) - float((weights * value).sum())
    assert abs(error) < 4 * float(estimates.std()) / 40_000**0.5
    with pytest.raises(ValueError, match="proposal"):
        sample_timesteps(weights, count, 1, generator(), 0, torch.zeros(40))
