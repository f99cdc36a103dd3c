"""The particle sampler as a ComfyUI SAMPLER, and as a run of ComfyUI's own sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.fkc import Particles, SamplingStopped, ancestral_kernel, rectified_kernel, sample_fkc
from ...core.papa.blocks import OutOfPlace
from ...core.reward import RewardModel
from .services import interrupted, stop_if_interrupted
from .training import make_trainable

SCHEDULERS = comfy.samplers.SCHEDULER_NAMES


@dataclass(frozen=True)
class Steering:
    """How particles are steered: a reward in the network's latent space, and `sample_fkc`'s own
    settings. ``reward`` None, or strength 0, is the plain ancestral sampler."""

    reward: RewardModel | None
    strength: float
    settings: Mapping[str, Any]
    at_once: int = 0


def particle_sampler(
    steering: Steering, keep: Callable[[Particles], None] | None = None
) -> comfy.samplers.KSAMPLER:
    """A SAMPLER whose batch is the particles; ``keep`` is given them with their weights."""

    def sample(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        extra = dict(extra_args or {})
        patcher = model.inner_model.model_patcher
        flow = isinstance(patcher.get_model_object("model_sampling"), comfy.model_sampling.CONST)
        reward = _fitting(steering.reward, x) if steering.strength else None
        with torch.inference_mode(False), _grads(reward):
            if reward is not None:
                make_trainable(patcher.model.diffusion_model)
                reward.to(x.device)
            if extra.get("denoise_mask") is not None:
                _check_chunk(steering.at_once)
                extra["denoise_mask"] = extra["denoise_mask"].clone()
            try:
                particles = sample_fkc(
                    model,
                    x.clone(),
                    sigmas.clone(),
                    extra,
                    callback,
                    disable,
                    reward=reward,
                    beta_max=steering.strength,
                    alpha=(lambda sigma: 1 - sigma) if flow else None,
                    kernel=rectified_kernel if flow else ancestral_kernel,
                    chunk=steering.at_once or None,
                    noise_sampler=default_noise_sampler(x, seed=extra.get("seed")),
                    generator=torch.Generator().manual_seed(int(extra.get("seed") or 0)),
                    should_stop=interrupted,
                    **steering.settings,
                )
            except SamplingStopped:
                stop_if_interrupted()
                raise
        if keep is not None:
            keep(particles)
        return particles.x

    return comfy.samplers.KSAMPLER(sample)


def _grads(reward: RewardModel | None) -> AbstractContextManager[Any]:
    """Networks written for inference add residuals in place, which gradients can't pass."""
    return nullcontext() if reward is None else OutOfPlace()


def _fitting(reward: RewardModel | None, x: Tensor) -> RewardModel | None:
    if reward is None or not reward.ready:
        return None
    if x.ndim != 4 or x.shape[1] != reward.shape[0]:
        raise ValueError(
            f"FKC Sampler learnt from latents of {reward.shape[0]} channels and is to draw "
            f"{tuple(x.shape[1:])}: use the kind of model that the taste was rated on."
        )
    return reward


def _check_chunk(at_once: int) -> None:
    if at_once:
        raise ValueError(
            "FKC Sampler draws latents with a mask in one batch only: set at_once to 0, and lower "
            "particles if memory is short."
        )


def latent_shape(model: ModelPatcher, latent: dict[str, Any]) -> tuple[int, ...]:
    """(C, H, W) of what the model will make of an empty latent, or of this one."""
    return tuple(comfy.sample.fix_empty_latent_channels(model, latent["samples"]).shape[1:])


def draw(
    model: ModelPatcher,
    sampler: comfy.samplers.KSAMPLER,
    latent: dict[str, Any],
    count: int,
    *,
    seed: int,
    steps: int,
    cfg: float,
    scheduler: str,
    positive: list,
    negative: list,
    noise: Tensor | None = None,
) -> Tensor:
    """``count`` latents by ComfyUI's own sampling, as its KSampler would set it up.

    noise: (count, …) in place of the seed's own.
    """
    start = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    start = comfy.utils.repeat_to_batch_size(start, count)
    mask = latent.get("noise_mask")
    sigmas = comfy.samplers.calculate_sigmas(
        model.get_model_object("model_sampling"), scheduler, steps
    )
    return comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(start, seed) if noise is None else noise,
        cfg,
        sampler,
        sigmas,
        positive,
        negative,
        start,
        noise_mask=mask,
        callback=latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
