"""Answers as graded labels: how picks, rankings and ratings become likes and dislikes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def graded_labels(answer: Mapping[str, object], count: int) -> Tensor:
    """An answer as graded labels in [−1, 1], (count,); NaN marks an image without influence.

    pick: the winner +1, every other image −1/(count−1), so that likes and dislikes weigh the same.
    rank: best to worst, evenly from +1 to −1. rate: as given. skip: no influence at all.
    Raises ValueError for an answer that is not one on ``count`` images.
    """
    labels = torch.full((count,), float("nan"))
    kind = answer["kind"]
    if kind == "pick":
        winner = int(str(answer["winner"]))
        if not 0 <= winner < count:
            raise ValueError(f"the pick {winner} is none of {count} images")
        labels.fill_(-1 / max(1, count - 1))
        labels[winner] = 1.0
    elif kind == "rank":
        order = torch.tensor(answer["order"])
        if sorted(order.tolist()) != list(range(count)):
            raise ValueError(f"the ranking {order.tolist()} is none of {count} images")
        labels[order] = torch.linspace(1, -1, count)
    elif kind == "rate":
        ratings: list[float | None] = answer["ratings"]  # type: ignore[assignment]
        labels = torch.tensor([float("nan") if r is None else float(r) for r in ratings])
        if len(labels) != count or bool((labels.abs() > 1).any()):
            raise ValueError(f"ratings must be {count} numbers in [−1, 1] or None, not {ratings}")
    elif kind != "skip":
        raise ValueError(f"unknown kind of answer {kind!r}")
    return labels
