"""Text features of a connected CLIP, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.sd1_clip
import comfy.sdxl_clip
import torch
from torch import Tensor

from .services import stop_if_interrupted

BATCH = 32


def encoder_kind(clip: Any) -> str:
    """The class of the text encoder, as part of its name."""
    return type(clip.cond_stage_model).__name__


def read_texts(clip: Any, texts: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Each text with its feature (d,): the pooled output, else the mean over the tokens' outputs.

    Encodes in batches where the encoder is one that can; the person may stop in between.
    """
    for start in range(0, len(texts), BATCH):
        stop_if_interrupted()
        batch = list(texts[start : start + BATCH])
        features = _together(clip, batch)
        if features is None:
            features = torch.stack([_alone(clip, text) for text in batch])
        with torch.inference_mode(False):  # what is kept may be learnt with
            rows = features.float().cpu().clone()
        yield from zip(batch, rows, strict=True)


def _alone(clip: Any, text: str) -> Tensor:
    stop_if_interrupted()
    outputs, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    return (outputs.mean(1) if pooled is None else pooled)[0]


def _together(clip: Any, texts: list[str]) -> Tensor | None:
    """(N, d) in one pass; None where texts must be encoded alone: emphasis, long texts, embeddings,
    and encoders made of several parts that are not known here."""
    part = _pooling_part(clip.cond_stage_model)
    if part is None:
        return None
    encoder, name = part
    rows = []
    for text in texts:
        sections = clip.tokenize(text).get(name, [])
        if len(sections) != 1 or not all(_is_plain(token) for token in sections[0]):
            return None
        rows.append([token[0] for token in sections[0]])
    if len({len(row) for row in rows}) > 1:
        return None
    model = clip.cond_stage_model
    model.reset_clip_options()
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    clip.load_model()
    outputs, pooled = encoder.encode(rows)[:2]
    return outputs.mean(1) if pooled is None else pooled


def _pooling_part(model: Any) -> tuple[Any, str] | None:
    """The part of a text encoder that its pooled output comes from, and its tokens' name."""
    if isinstance(model, comfy.sdxl_clip.SDXLClipModel):
        return model.clip_g, "g"
    if isinstance(model, comfy.sd1_clip.SD1ClipModel):
        return getattr(model, model.clip), model.clip_name
    return None


def _is_plain(token: tuple[Any, ...]) -> bool:
    return isinstance(token[0], int) and token[1] == 1.0
