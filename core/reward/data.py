"""Answers as training data of the reward ensemble: who was preferred to whom, and how likely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RatedLatents:
    """All answers as one batch.

    latents: (N, C, H, W) float32, of query (N,). contests: rows (M, K), the first of each preferred
    to the rest; −1 fills up. contest_fold: (M,). rated: (R,) indices with ratings (R,) in [−1, 1],
    rated_fold (R,) and rated_query (R,) in 0..queries−1. A query belongs to one fold, which the
    head of that number is not trained on. compared: the share of pairs within queries that the
    answers tell apart. refusal: why nothing can be learnt, or "".
    """

    latents: Tensor
    query: Tensor
    contests: Tensor
    contest_fold: Tensor
    rated: Tensor
    ratings: Tensor
    rated_fold: Tensor
    rated_query: Tensor
    queries: int
    labels: int
    compared: float
    refusal: str

    @classmethod
    def of(
        cls,
        answers: Sequence[tuple[Tensor, Mapping[str, Any]]],
        shape: tuple[int, int, int],
        folds: int,
    ) -> RatedLatents:
        """Raises ValueError for latents of another shape or not finite, or an unknown answer."""
        latents: list[Tensor] = []
        contests: list[tuple[int, list[int]]] = []
        rated: list[tuple[int, int, int, float]] = []
        start = labels = pairs = 0
        useful = [(x, answer) for x, answer in answers if answer["kind"] != "skip"]
        for number, (x, answer) in enumerate(useful):
            if x.ndim != 4 or tuple(x.shape[1:]) != shape:
                raise ValueError(f"rated latents must be (K, {shape}), not {tuple(x.shape)}")
            if not bool(torch.isfinite(x).all()):
                raise ValueError("rated latents must be finite")
            # A lone query cannot be held out: no head has its number.
            fold = number % folds if len(useful) > 1 else folds
            ratings = _ratings(answer, len(x))
            rated += [(fold, number, start + i, r) for i, r in ratings]
            contests += [
                (fold, [start + i for i in row]) for row in _contests(answer, ratings, len(x))
            ]
            seen = len(ratings) or len(x)
            labels, pairs = labels + seen, pairs + seen * (seen - 1) // 2
            latents.append(x.detach().float().cpu())
            start += len(x)
        width = max((len(row) for _, row in contests), default=2)
        return cls(
            torch.cat(latents) if latents else torch.zeros(0, *shape),
            torch.tensor([n for n, (x, _) in enumerate(useful) for _ in x], dtype=torch.int64),
            torch.tensor([r + [-1] * (width - len(r)) for _, r in contests]).view(-1, width),
            torch.tensor([fold for fold, _ in contests], dtype=torch.int64),
            torch.tensor([i for _, _, i, _ in rated], dtype=torch.int64),
            torch.tensor([r for *_, r in rated], dtype=torch.float32),
            torch.tensor([fold for fold, *_ in rated], dtype=torch.int64),
            torch.tensor([number for _, number, *_ in rated], dtype=torch.int64),
            len(useful),
            labels,
            sum(len(row) - 1 for _, row in contests) / max(1, pairs),
            _refusal(labels, bool(contests), {r for *_, r in rated}),
        )


def choice_loss(utility: Tensor, data: RatedLatents, intercept: Tensor, mood: Tensor) -> Tensor:
    """Negative log-likelihood of the answers by utility (N, heads), summed over heads: a scalar.

    Plackett–Luce for comparisons, logistic for ratings (a rating r is a like with probability
    (1+r)/2), with ``intercept`` (heads,) and a random effect of the query, ``mood`` (queries,
    heads) of unit variance: who likes the better half of whatever is shown does not thereby dislike
    what came close. Head h leaves out the queries of fold h.
    """
    heads = torch.arange(utility.shape[1])
    total = utility.new_zeros(())
    if len(data.contests):
        scores = utility[data.contests.clamp(min=0)]  # (M, K, heads)
        scores = scores.masked_fill((data.contests < 0)[..., None], -torch.inf)
        surprise = torch.logsumexp(scores, 1) - scores[:, 0]
        total = total + _mean_seen(surprise, data.contest_fold[:, None] != heads)
    if len(data.rated):
        target = ((1 + data.ratings) / 2)[:, None].expand(-1, len(heads))
        surprise = F.binary_cross_entropy_with_logits(
            utility[data.rated] + intercept + mood[data.rated_query], target, reduction="none"
        )
        total = total + mood.square().sum() / (2 * len(data.rated))
        total = total + _mean_seen(surprise, data.rated_fold[:, None] != heads)
    return total


def held_out_margins(utility: Tensor, data: RatedLatents) -> tuple[Tensor, Tensor]:
    """Preferred minus other, by the head that has not seen the query, for each pair told apart.

    utility: (N, heads). Returns margins (pairs,) and weights (pairs,), both empty where there is
    only one query. K images hold K−1 differences, and one head's error runs through all of them:
    the pairs of a query weigh (K−1)/2 in all.
    """
    margins, queries = [utility.new_zeros(0)], [data.query.new_zeros(0)]
    for row, fold in zip(data.contests.tolist(), data.contest_fold.tolist(), strict=True):
        if fold < utility.shape[1]:
            rest = [i for i in row[1:] if i >= 0]
            margins.append(utility[row[0], fold] - utility[rest, fold])
            queries.append(data.query[rest])
    query = torch.cat(queries)
    images, pairs = torch.bincount(data.query), torch.bincount(query, minlength=data.queries)
    return torch.cat(margins), (images[query] - 1) / (2 * pairs[query])


def spread_within_queries(utility: Tensor, data: RatedLatents) -> Tensor:
    """Standard deviation of (N, heads) within queries, pooled, or over all if they are of one."""
    count = torch.bincount(data.query)[data.query][:, None]
    means = torch.zeros(data.queries, utility.shape[1]).index_add(0, data.query, utility)
    away = utility - means[data.query] / count
    if not bool((count > 1).any()):
        return utility.std(0).clamp(min=1e-6)
    within = away.square().sum(0) / (1 - 1 / count).sum()
    return within.sqrt().clamp(min=1e-6)


def _mean_seen(surprise: Tensor, seen: Tensor) -> Tensor:
    return ((surprise * seen).sum(0) / seen.sum(0).clamp(min=1)).sum()


def _ratings(answer: Mapping[str, Any], count: int) -> list[tuple[int, float]]:
    if answer["kind"] != "rate":
        return []
    return [(i, float(r)) for i, r in enumerate(answer["ratings"][:count]) if r is not None]


def _contests(
    answer: Mapping[str, Any], ratings: list[tuple[int, float]], count: int
) -> list[list[int]]:
    """Rows of image numbers, the first preferred to all others of the row."""
    kind = answer["kind"]
    if kind == "pick":
        winner = int(answer["winner"])
        return [[winner, *(i for i in range(count) if i != winner)]] if count > 1 else []
    if kind == "rank":
        order = [int(i) for i in answer["order"]]
        return [order[n:] for n in range(len(order) - 1)]
    if kind != "rate":
        raise ValueError(f"unknown kind of answer {kind!r}")
    rows = [[i, *(j for j, worse in ratings if worse < r)] for i, r in ratings]
    return [row for row in rows if len(row) > 1]


def _refusal(labels: int, compared: bool, ratings: set[float]) -> str:
    if not labels:
        return "there are no ratings yet: rate some images first"
    if compared or len(ratings) > 1:
        return ""
    if ratings and max(ratings) > 0:
        return "every rated image is liked alike: dislike some, so that there is a direction"
    return "no rated image is liked better than another: like some, so that there is a direction"
