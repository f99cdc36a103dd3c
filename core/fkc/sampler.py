"""`sample_fkc`: ancestral sampling with guidance, weights and resampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .evaluation import Denoiser, Evaluation, GradientOf, Judge, Reward
from .increments import (
    guidance,
    proposal_increment,
    schedule_increment,
    score_of,
    transport_increment,
)
from .kernels import Alpha, BetaSchedule, Kernel, alphas_of, ancestral_kernel
from .particles import Cloud, Particles
from .steps import NoiseSampler, Step, Weights, betas_of, check_arguments, noise_like, seeded

Callback = Callable[[dict[str, Any]], object]

SEED_STEP, SEED_RANGE = 0.1, (0.1, 10.0)  # the draft's clips of dw and of w


def sample_fkc(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    *,
    reward: Reward | None,
    beta_max: float = 1.0,
    weights: Weights = "twisted",
    ess_threshold: float = 0.5,
    alpha: Alpha = None,
    generator: torch.Generator | None = None,
    beta_schedule: BetaSchedule = "log",
    jacobian: bool = True,
    data_std: float = 1.0,
    max_shift: float | None = None,
    active: tuple[float, float] = (0.0, float("inf")),
    chunk: int | None = None,
    noise_sampler: NoiseSampler | None = None,
    kernel: Kernel = ancestral_kernel,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Particles:
    """Weighted samples of q(x0)·exp(β_max·r(x0)), q being what the ancestral sampler draws.

    model(x (n, …), sigma (n,), **extra_args) → x̂0. x: (N, …), noisy latents at ``sigmas[0]``.
    sigmas: (steps+1,), falling, usually to 0. reward(x̂0 (n, …), sigma (n,)) → (n,), differentiable;
    None or β_max = 0 gives the plain ancestral sampler, bit for bit. ``callback`` gets
    k-diffusion's dict with "log_weights" and "ess" added; ``disable`` is not used.

    weights: "twisted" is exact at any number of steps: potentials β·r(x̂0), evaluated with the model
    call that the step makes anyway, and the proposal's density ratio. "continuous" is arXiv
    2503.02819, Prop. D.6, with r of the noisy x/α itself: exact in the limit of many steps.
    "seed" is the draft's Algorithm 2 to the letter, an ablation: dw clipped to ±0.1, w to
    [0.1, 10], never resampled.

    alpha: None, or α at each sigma (a function of the sigmas, or a tensor): flow models have 1−σ.
    beta_schedule: see `beta_fractions`. jacobian: the proposal follows r's gradient through the
    model, or, cheaper, scales that at x̂0 by the Wiener gain of latents of std ``data_std``.
    max_shift: at most so many std, in root mean square over dimensions, may a step be pushed; this
    too leaves "twisted" exact. active: the (low, high) interval of σ in which particles are guided
    and resampled. ess_threshold: resample below this share of N; 0 never. chunk: particles in one
    model call (None: all); noise is drawn for all before, so results are those of one batch.
    noise_sampler(σ, σ_next) → (N, …) replaces the generator's noise. generator: None means one
    seeded with ``extra_args["seed"]``, or 0. kernel: the base sampler's own step.

    A particle whose reward or gradient is not finite is killed (log-weight −inf). Raises ValueError
    for bad arguments, NoParticleLeft when all are dead, SamplingStopped when ``should_stop`` says
    so; it is asked before each model call.
    """
    check_arguments(x, sigmas, weights, beta_max, ess_threshold, chunk)
    guided = reward is not None and beta_max != 0
    steps = len(sigmas) - 1
    alphas = alphas_of(alpha, sigmas)
    betas = betas_of(beta_schedule, sigmas, alphas, weights, beta_max if guided else 0.0)
    generator = seeded(extra_args) if generator is None else generator
    draw_noise = noise_like(x, generator) if noise_sampler is None else noise_sampler
    judge = Judge(model, reward, extra_args or {}, chunk, should_stop)
    cloud = Cloud(x)

    for i in range(steps):
        step = Step(sigmas, alphas, betas, i)
        steering = guided and active[0] <= float(step.sigma) <= active[1]
        found = _evaluate(judge, cloud.x, step, weights, guided, steering, jacobian)
        if weights == "twisted":
            cloud.replace_potential(step.beta * found.reward)
        if i > 0:
            parents = cloud.close_step(ess_threshold if steering else 0.0, generator)
            found = found[parents]
        if callback is not None:
            callback(_news(cloud, found, step, i))

        mean, std = kernel(cloud.x, found.x0_hat, *step.ends)
        noise = draw_noise(step.sigma, step.sigma_next) if std > 0 else torch.zeros_like(mean)
        if weights == "twisted":
            if steering and std > 0:
                shift = _twisted_shift(found.gradient, step, std, jacobian, data_std, max_shift)
                cloud.add(proposal_increment(shift, noise, std))
                mean = mean + shift
        elif step.beta_next != 0:
            change = _continuous_change(judge, cloud.x, found, step)
            if weights == "continuous":
                cloud.add(change)
            else:
                cloud.add_clipped(change, SEED_STEP, SEED_RANGE)
            mean = mean + step.clean_next * guidance(found.gradient, step.beta, step.diffusion)
        cloud.x = mean + noise * std if std > 0 else mean
        if progress is not None:
            progress(i + 1, steps)

    rewards = _final_rewards(judge, cloud.x, sigmas[-1], guided)
    if weights == "twisted":
        cloud.replace_potential(betas[-1] * rewards)
    cloud.close_step(0.0, generator)
    return cloud.particles(rewards)


def _evaluate(
    judge: Judge,
    x: Tensor,
    step: Step,
    weights: Weights,
    guided: bool,
    steering: bool,
    jacobian: bool,
) -> Evaluation:
    if not guided:
        return judge.denoise(x, step.sigma)
    if weights == "twisted":
        source: GradientOf = "noisy" if jacobian else "denoised"
        return judge.evaluate(x, step.sigma, source if steering else "nothing")
    if step.beta_next == 0:
        return judge.denoise(x, step.sigma)
    return judge.evaluate_noisy(x, step.clean, step.sigma)


def _twisted_shift(
    gradient: Tensor,
    step: Step,
    std: Tensor,
    jacobian: bool,
    data_std: float,
    max_shift: float | None,
) -> Tensor:
    """δ = v·β·∇r by x at the step's end, where the potential will be evaluated next: (N, …)."""
    if jacobian:
        gain = step.clean / step.clean_next
    else:
        signal = (step.clean_next * data_std) ** 2
        gain = signal / (signal + step.sigma_next**2) / step.clean_next
    shift = std**2 * step.beta_next * gain * gradient
    if max_shift is None:
        return shift
    size = shift.flatten(1).square().mean(1).sqrt() / std
    limit = (max_shift / size.clamp(min=1e-12)).clamp(max=1.0)
    return shift * limit.view(-1, *[1] * (shift.ndim - 1))


def _continuous_change(judge: Judge, x: Tensor, found: Evaluation, step: Step) -> Tensor:
    """dw of Prop. D.6 in x/α, where f = 0 and g² dt is the fall of (σ/α)²."""
    scaled = x / step.clean
    later = judge.score(scaled, step.sigma_next)
    score = score_of(scaled, found.x0_hat, step.sigma / step.clean)
    return schedule_increment(found.reward, later, step.beta, step.beta_next) + transport_increment(
        score, found.gradient, step.beta, step.diffusion
    )


def _final_rewards(judge: Judge, x: Tensor, sigma: Tensor, guided: bool) -> Tensor:
    if not guided:
        return torch.zeros(len(x), dtype=torch.float64)
    if sigma == 0:
        return judge.score(x, sigma)
    return judge.evaluate(x, sigma, "nothing").reward


def _news(cloud: Cloud, found: Evaluation, step: Step, i: int) -> dict[str, Any]:
    return {
        "x": cloud.x,
        "i": i,
        "sigma": step.sigma,
        "sigma_hat": step.sigma,
        "denoised": found.x0_hat,
        "log_weights": cloud.log_weights,
        "ess": cloud.ess[-1] if cloud.ess else float(len(cloud.x)),
    }
