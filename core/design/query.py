"""The next question: K prompts to show, and what their answer is worth.

One function for the node: `next_query`. The modes: *random* (the baseline), *static* (the policies
of arXiv 2512.19057, computed once) and *adaptive* (from the posterior, after every answer).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..choice import ChoiceModel
from .choosers import (
    best_option_arms,
    fill_up,
    information_arms,
    thompson_arms,
    transductive_arms,
)
from .gain import expected_gain, information_gain
from .information import CRITERIA
from .policies import Design, design_queries
from .space import PromptSpace

MODES = ("adaptive", "static", "random")
Chooser = Callable[[PromptSpace, ChoiceModel, int, torch.Generator], list[list[int]]]
CHOOSERS: dict[str, Chooser] = {
    "best option": best_option_arms,
    "information": information_arms,
    "thompson": thompson_arms,
    "transductive": transductive_arms,
}
DEFAULT_CRITERION = {"adaptive": "best option", "static": "V", "random": "none"}
ADAPTIVE_CRITERIA = (*CHOOSERS, *CRITERIA)


@dataclass(frozen=True)
class Query:
    """K prompts to show, in the (shuffled) order to show them.

    prompts: token indices, one a slot. texts: the same in words. features (K, d): what the choice
    model observes, in the same order. probabilities (K,): chance of each to be picked, at θ̂.
    expected_gain: expected rise of the best prompt's utility by the answer. information_gain: nats
    about θ. design: the policies it was drawn from, to pass on to the next call, or None.
    """

    prompts: list[list[int]]
    texts: list[str]
    features: Tensor
    probabilities: Tensor
    expected_gain: float
    information_gain: float
    mode: str
    criterion: str
    design: Design | None = None


def next_query(
    space: PromptSpace,
    model: ChoiceModel,
    arms: int = 4,
    mode: str = "adaptive",
    criterion: str | None = None,
    generator: torch.Generator | None = None,
    *,
    design: Design | None = None,
    episodes: int = 50,
) -> Query:
    """The K prompts to ask about next, given a fitted choice model of dimension ``space.dim``.

    mode: "adaptive", "static" or "random". criterion: for static "V" (default), "A" or "D"; for
    adaptive one of ADAPTIVE_CRITERIA, of which "V", "A" and "D" are the paper's design at θ̂,
    re-optimised from ``design``; the default is the best of `benchmarks/ed_starter.py`.
    generator: all randomness, seeded by the number of answers when None. design: pass the last
    query's ``design``: a static one is used as it is, an adaptive one is the start of the next.
    episodes: queries planned in all. Raises ValueError naming what does not fit.
    """
    criterion = criterion or DEFAULT_CRITERION.get(mode, "")
    _check(space, model, arms, mode, criterion)
    generator = generator or torch.Generator().manual_seed(model.observations)
    if mode == "random":
        design, prompts = None, space.random_prompts(arms, generator)
    elif mode == "static":
        design = design or design_queries(
            space, arms, episodes, model.l2, criterion, generator=generator
        )
        prompts = design.sample(generator)
    elif criterion in CHOOSERS:
        design, prompts = None, CHOOSERS[criterion](space, model, arms, generator)
    else:
        design = redesign(space, model, arms, criterion, generator, design, episodes)
        prompts = design.sample(generator)
    prompts = fill_up(space, prompts, arms, generator)
    prompts = [prompts[i] for i in torch.randperm(arms, generator=generator).tolist()]
    features = space.prompt_features(prompts)
    return Query(
        prompts=prompts,
        texts=[space.text(prompt) for prompt in prompts],
        features=features,
        probabilities=model.probabilities(features),
        expected_gain=expected_gain(space, model, features),
        information_gain=information_gain(model, features),
        mode=mode,
        criterion=criterion,
        design=design,
    )


def redesign(
    space: PromptSpace,
    model: ChoiceModel,
    arms: int = 4,
    criterion: str = "V",
    generator: torch.Generator | None = None,
    start: Design | None = None,
    episodes: int = 50,
    tolerance: float = 5e-3,
    rounds: int = 1,
) -> Design:
    """The paper's design at θ̂: comparisons weighed by p(1 − p), collected information added.

    start: the design before the last answer; from it a few steps suffice. With no start it runs as
    many rounds as a static design; with one, ``rounds``, so that a click stays quick. The gap that
    is left stands in the result.
    """
    collected = model.precision()
    collected.diagonal().sub_(model.l2)
    return design_queries(
        space,
        arms,
        episodes,
        model.l2,
        criterion,
        rounds if start is not None else 20,
        generator=generator,
        collected=collected,
        theta=model.theta,
        start=start,
        tolerance=tolerance,
    )


def _check(space: PromptSpace, model: ChoiceModel, arms: int, mode: str, criterion: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    allowed = {"adaptive": ADAPTIVE_CRITERIA, "static": CRITERIA}.get(mode)
    if allowed and criterion not in allowed:
        raise ValueError(f"criterion {criterion!r} of mode {mode} is not one of {allowed}")
    if arms < 2:
        raise ValueError(f"a query needs at least 2 prompts, not {arms}")
    if model.dim != space.dim:
        raise ValueError(
            f"the model knows {model.dim} dimensions and the prompt space has {space.dim}: use "
            "the features the model was fitted with"
        )
