"""Learning through guidance: rated images are drawn by a guided prediction, so that one learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .loss import IndexedPredictor


@dataclass(frozen=True)
class Guidance:
    """How rated images were drawn: the index of the negative prompt, and the scale (cfg)."""

    negative: int
    scale: float


def guided(predict_noise: IndexedPredictor, guidance: Guidance) -> IndexedPredictor:
    """ε of classifier-free guidance (arXiv 2207.12598), ε₋ + scale·(ε₊ − ε₋), differentiable.

    predict_noise(x_t (n, …), t (n,), index (n,)) -> ε, where the index ``guidance.negative`` stands
    for the negative prompt. The likelihood of an image drawn with guidance is that of this
    prediction: what an adapter changes in all prompts alike counts once, what it changes in one
    prompt alone scale times. Takes two rows of the network for one; at scale 1 it is
    ``predict_noise`` itself.
    """
    if guidance.scale == 1:
        return predict_noise

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        away = torch.full_like(index, guidance.negative)
        both = predict_noise(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([index, away]))
        positive, negatives = both.chunk(2)
        return negatives + guidance.scale * (positive - negatives)

    return predict
