"""A few images of given conditionings, drawn by ComfyUI's own sampling and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .steering import draw

Interrupted = comfy.model_management.InterruptProcessingException
SCHEDULER = "simple"  # even steps over the model's own σ table, which suit every family


def draw_images(
    model: ModelPatcher,
    vae: Any,
    conditionings: Sequence[list],
    shape: Sequence[int],
    *,
    steps: int,
    cfg: float,
) -> Tensor:
    """Images (P, H, W, 3) in [0, 1] of P conditionings, image i from the noise of seed i.

    shape: of one latent, as nodes pass it. Each is guided away from its zeroed conditioning, as
    ConditioningZeroOut's. Of a video, the first frame. Those of one kind are drawn together.
    """
    kinds = [_kind(*conditioning[0]) for conditioning in conditionings]
    images: dict[int, Tensor] = {}
    for kind in kinds:
        seeds = [seed for seed, own in enumerate(kinds) if own == kind and seed not in images]
        if seeds:
            positive = _together([conditionings[seed][0] for seed in seeds])
            drawn = _draw_alike(model, vae, positive, shape, seeds, steps, cfg)
            images.update(zip(seeds, drawn, strict=True))
    return torch.stack([images[seed] for seed in range(len(kinds))])


def _draw_alike(
    model: ModelPatcher,
    vae: Any,
    positive: list,
    shape: Sequence[int],
    seeds: list[int],
    steps: int,
    cfg: float,
) -> Tensor:
    empty = torch.zeros((1, *shape))
    latents = draw(
        model,
        comfy.samplers.sampler_object("euler"),
        {"samples": empty},
        len(seeds),
        seed=seeds[0],
        steps=steps,
        cfg=cfg,
        scheduler=SCHEDULER,
        positive=positive,
        negative=_zeroed(positive),
        noise=torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds]),
    )
    pixels = vae.decode(latents)
    frames = pixels.reshape(len(seeds), -1, *pixels.shape[-3:])
    return frames[:, 0, ..., :3].float().cpu()


def _kind(embedding: Tensor, options: dict[str, Any]) -> tuple[Any, ...]:
    """What conditionings must share to be drawn together."""
    parts = {"": embedding, **options}
    return tuple((k, v.shape if isinstance(v, Tensor) else v) for k, v in sorted(parts.items()))


def _together(conditionings: Sequence[Sequence[Any]]) -> list:
    """Conditionings of one kind as one of that many rows: [[embedding, options]]."""
    embeddings, options = zip(*conditionings, strict=True)
    joined = {
        key: torch.cat([own[key] for own in options])
        for key, value in options[0].items()
        if isinstance(value, Tensor)
    }
    return [[torch.cat(embeddings), {**options[0], **joined}]]


def _zeroed(conditioning: list) -> list:
    zeroed = ("pooled_output", "conditioning_lyrics")
    return [
        [
            torch.zeros_like(embedding),
            {k: torch.zeros_like(v) if k in zeroed else v for k, v in options.items()},
        ]
        for embedding, options in conditioning
    ]
