"""FK steering (arXiv 2501.06848): resampling by the reward of x̂0, without its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from .evaluation import Denoiser, Judge, Reward
from .kernels import Alpha, Kernel, alphas_of, ancestral_kernel
from .particles import Cloud, Particles

Potential = Literal["difference", "max", "sum"]


def sample_fk_steering(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None = None,
    *,
    reward: Reward,
    beta_max: float = 1.0,
    potential: Potential = "difference",
    resample_every: int = 4,
    ess_threshold: float = 1.0,
    alpha: Alpha = None,
    generator: torch.Generator,
    chunk: int | None = None,
    kernel: Kernel = ancestral_kernel,
    should_stop: Callable[[], bool] | None = None,
) -> Particles:
    """Weighted samples of q(x0)·exp(β_max·r(x0)) from the base sampler's own steps.

    Arguments as in `sample_fkc`. Each step multiplies a particle's weight by exp(β_max·…) of

    - "difference": the rise of r(x̂0) since the step before,
    - "max": the largest r(x̂0) so far,
    - "sum": the sum of all r(x̂0) so far,

    and the last step by whatever makes the product exp(β_max·r(x0)). Resampled every
    ``resample_every`` steps if the ESS is below ``ess_threshold``·N. Raises as `sample_fkc`.
    """
    if potential not in ("difference", "max", "sum"):
        raise ValueError(f"potential must be 'difference', 'max' or 'sum', not {potential!r}")
    if resample_every < 1:
        raise ValueError(f"resample_every must be at least 1 step, not {resample_every}")
    alphas = alphas_of(alpha, sigmas)
    judge = Judge(model, reward, extra_args or {}, chunk, should_stop)
    cloud = Cloud(x)
    total = product = torch.zeros(len(x), dtype=torch.float64)
    best = torch.full_like(total, -torch.inf)

    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        found = judge.evaluate(cloud.x, sigma, "nothing")
        best = torch.maximum(best, found.reward)
        total = total + found.reward
        if potential == "difference":
            product = found.reward
        else:
            product = product + (best if potential == "max" else total)
        cloud.replace_potential(beta_max * product)
        if i > 0:
            due = i % resample_every == 0
            parents = cloud.close_step(ess_threshold if due else 0.0, generator)
            found, best, total, product = (
                found[parents], best[parents], total[parents], product[parents],
            )  # fmt: skip

        ends = (None, None) if alphas is None else (alphas[i], alphas[i + 1])
        mean, std = kernel(cloud.x, found.x0_hat, sigma, sigma_next, *ends)
        noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        cloud.x = mean + noise.to(x.device) * std if std > 0 else mean

    rewards = judge.score(cloud.x, sigmas[-1])
    cloud.replace_potential(beta_max * rewards)
    cloud.close_step(0.0, generator)
    return cloud.particles(rewards)
