"""Learning through guidance: rated images are drawn by a guided prediction, so that one learns."""

from __future__ import annotations

import torch
from torch import Tensor

from .loss import IndexedPredictor


def guided(predict_noise: IndexedPredictor, negative: int, scale: float) -> IndexedPredictor:
    """ε of classifier-free guidance (arXiv 2207.12598), ε₋ + scale·(ε₊ − ε₋), differentiable.

    predict_noise(x_t (n, …), t (n,), index (n,)) -> ε, where the index ``negative`` stands for the
    negative prompt. The likelihood of an image drawn with guidance is that of this prediction: what
    an adapter changes in all prompts alike counts once, what it changes in one prompt alone
    ``scale`` times. Takes two rows of the network for one.
    """
    if scale == 1:
        return predict_noise

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        away = torch.full_like(index, negative)
        both = predict_noise(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([index, away]))
        positive, negatives = both.chunk(2)
        return negatives + scale * (positive - negatives)

    return predict
