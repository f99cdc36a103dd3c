"""Direct choosers of one query: no policies, but the K prompts themselves, from the posterior.

The utility of a prompt is a sum over its slots, so each posterior draw of θ knows its own best
prompt by a per-slot arg-max, and any objective of K prompts can be climbed one token at a time over
the whole prompt space. Sources: expected utility of the best option, arXiv 2303.15746 (qEUBO);
mutual information of the answer and θ, arXiv 1112.5745 (BALD); Thompson arms, arXiv 1707.02038;
transductive design, arXiv 1906.08399.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..choice import ChoiceModel
from .pool import select_pool
from .search import best_prompts
from .space import PromptSpace

DRAWS = 96  # of θ that stand for the posterior
PASSES = 2  # of coordinate ascent over all tokens of a query
PLAUSIBLE = 96  # prompts that stand for those still plausibly best


def thompson_prompts(space: PromptSpace, thetas: Tensor) -> list[list[int]]:
    """The best prompt of each draw of θ (S, d), as token indices."""
    if space.has_shared_tokens:
        return [best_prompts(space, theta, n=1)[0] for theta in thetas]
    best = torch.stack([(thetas @ rows.to(thetas).T).argmax(1) for rows in space.features], 1)
    return [list(prompt) for prompt in best.tolist()]


def distinct(prompts: list[list[int]]) -> list[list[int]]:
    """The prompts without repeats, in order."""
    return [list(prompt) for prompt in dict.fromkeys(map(tuple, prompts))]


def thompson_arms(
    space: PromptSpace, model: ChoiceModel, arms: int, generator: torch.Generator
) -> list[list[int]]:
    """K different prompts, each the best of one posterior draw; random ones if draws agree."""
    found = distinct(thompson_prompts(space, model.sample(8 * arms, generator)))
    return fill_up(space, found, arms, generator)


def fill_up(
    space: PromptSpace, prompts: list[list[int]], arms: int, generator: torch.Generator
) -> list[list[int]]:
    """The first K of the prompts, with random ones added where they are too few or repeat."""
    found = distinct(prompts)[:arms]
    for _ in range(20 * arms):
        if len(found) == arms:
            break
        found = distinct(found + space.random_prompts(1, generator))
    return (found * arms)[:arms] if len(found) < arms else found


def best_option_arms(
    space: PromptSpace, model: ChoiceModel, arms: int, generator: torch.Generator
) -> list[list[int]]:
    """K prompts that maximise E[max_i θᵀφ_i] over posterior draws (EUBO)."""
    return climb(space, model, arms, generator, expected_best)


def information_arms(
    space: PromptSpace, model: ChoiceModel, arms: int, generator: torch.Generator
) -> list[list[int]]:
    """K prompts whose pick shares most information with θ, over posterior draws."""
    return climb(space, model, arms, generator, mutual_information)


def expected_best(candidates: Tensor, others: Tensor) -> Tensor:
    """E[max utility] when each candidate (S, n) joins the other arms (S, K−1): (n,)."""
    return torch.maximum(candidates, others.amax(1, keepdim=True)).mean(0)


def mutual_information(candidates: Tensor, others: Tensor) -> Tensor:
    """Nats that a pick among a candidate (S, n) and the other arms (S, K−1) tells of θ: (n,).

    Entropy of the mean pick less the mean entropy of the picks of each draw.
    """
    among = torch.softmax(others, 1)
    p = torch.sigmoid(candidates - others.logsumexp(1, keepdim=True))
    entropies = _plogp(p) + _plogp(1 - p) + (1 - p) * _plogp(among).sum(1, keepdim=True)
    rest = (1 - p).T @ among / len(p)
    return _plogp(p.mean(0)) + _plogp(rest).sum(1) - entropies.mean(0)


def _plogp(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p.clamp(min=1e-30))


def climb(
    space: PromptSpace,
    model: ChoiceModel,
    arms: int,
    generator: torch.Generator,
    value: Callable[[Tensor, Tensor], Tensor],
) -> list[list[int]]:
    """Coordinate ascent of ``value``: every token of a slot of one prompt is tried at a time.

    Starts from Thompson arms; the posterior is represented by DRAWS draws, in single precision.
    """
    thetas = model.sample(DRAWS, generator).float()
    slots = [thetas @ rows.float().T for rows in space.features]  # (S, n_h) each
    index = torch.tensor(fill_up(space, thompson_prompts(space, thetas), arms, generator))
    worth = torch.stack([sum_of_tokens(slots, prompt) for prompt in index.tolist()], 1)  # (S, K)
    for _ in range(PASSES):
        before = index.clone()
        for arm in range(arms):
            others = worth[:, [i for i in range(arms) if i != arm]]
            for h, gains in enumerate(slots):
                rest = worth[:, arm] - gains[:, index[arm, h]]
                worths = value(rest[:, None] + gains, others)
                worths[~space.allowed_in(index[arm].tolist(), h)] = -torch.inf
                index[arm, h] = int(worths.argmax())
                worth[:, arm] = rest + gains[:, index[arm, h]]
        if torch.equal(before, index):
            break
    return fill_up(space, index.tolist(), arms, generator)


def sum_of_tokens(slots: list[Tensor], prompt: list[int]) -> Tensor:
    """Utility of a prompt under each draw, from slot utilities (S, n_h): (S,)."""
    return torch.stack([gains[:, a] for gains, a in zip(slots, prompt, strict=True)]).sum(0)


def transductive_arms(
    space: PromptSpace, model: ChoiceModel, arms: int, generator: torch.Generator
) -> list[list[int]]:
    """K of the plausibly best prompts whose comparison settles most about the rest of them.

    Candidates are the best prompts of posterior draws; the criterion is the posterior variance of
    the differences among them, after the answer (V of `select_pool` in posterior coordinates).
    """
    plausible = distinct(thompson_prompts(space, model.sample(PLAUSIBLE, generator)))
    if len(plausible) <= arms:
        return fill_up(space, plausible, arms, generator)
    coordinates = posterior_coordinates(model, space.prompt_features(plausible))
    return [plausible[i] for i in select_pool(coordinates, arms, criterion="V")]


def posterior_coordinates(model: ChoiceModel, features: Tensor) -> Tensor:
    """Rows whose inner products are the posterior covariances of θᵀφ: (N, N) for (N, d)."""
    covariance = model.covariance_product(features) @ features.T
    covariance = (covariance + covariance.T) / 2
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()
