"""Asking: from a profile's answers to the plan of its next question.

A question that still waits keeps its prompts; every answer, and every skip, leads to new ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import torch

from ..design import ADAPTIVE_CRITERIA, MODES, Design, PromptSpace, next_query
from ..profile import TasteProfile
from .lexicon import Lexicon, prompt_space
from .plan import FEATURES, Plan
from .utility import Utility

AUTOMATIC = "automatic"
CRITERIA = (AUTOMATIC, *ADAPTIVE_CRITERIA)
PAPERS = ("V", "A", "D")  # the criteria that a static design knows
FILE = "design"


@dataclass(frozen=True)
class Settings:
    """How questions are designed: `next_query`'s mode and criterion, arms, and a seed ≥ 0."""

    mode: str = "adaptive"
    arms: int = 4
    criterion: str = AUTOMATIC
    seed: int = 0

    def problem(self) -> str | None:
        """What is wrong with the settings, for the artist; None if nothing is."""
        if self.mode not in MODES or self.criterion not in CRITERIA:
            return f"mode must be one of {', '.join(MODES)} and criterion of {', '.join(CRITERIA)}."
        if self.mode == "static" and self.criterion not in (AUTOMATIC, *PAPERS):
            return (
                f"The criterion {self.criterion!r} builds on answers, which a static design does "
                "not: choose V, A, D or automatic, or the mode adaptive."
            )
        return None


def next_plan(
    profile: TasteProfile, lexicon: Lexicon, utility: Utility, settings: Settings
) -> Plan:
    """The plan of a question from these settings that still waits, or of a new one."""
    key = plan_key(lexicon, settings)
    return _waiting(profile, key) or _designed(profile, lexicon, utility, settings, key)


def plan_key(lexicon: Lexicon, settings: Settings) -> str:
    """Names everything that prompts are made from, the answers aside."""
    parts = [
        lexicon.encoder,
        [[slot.name, slot.words] for slot in lexicon.vocabulary.slots],
        lexicon.vocabulary.template,
        lexicon.before,
        lexicon.after,
        asdict(settings),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _waiting(profile: TasteProfile, key: str) -> Plan | None:
    for query in profile.queries("pending"):
        if query.plan is not None and query.plan.get("key") == key:
            features = profile.tensor(query.id, FEATURES)
            if features is not None:
                return Plan.from_json(query.plan, features)
    return None


def _designed(
    profile: TasteProfile, lexicon: Lexicon, utility: Utility, settings: Settings, key: str
) -> Plan:
    space = prompt_space(lexicon)
    seed = settings.seed * 65_537 + profile.closed_queries
    earlier = _kept_design(profile, space, key)
    query = next_query(
        space,
        utility.model,
        arms=settings.arms,
        mode=settings.mode,
        criterion=None if settings.criterion == AUTOMATIC else settings.criterion,
        generator=torch.Generator().manual_seed(seed % 2**63),
        design=earlier,
    )
    if query.design is not None and query.design is not earlier:
        _keep_design(profile, query.design, key)
    prompts = tuple(lexicon.prompt(choice) for choice in query.prompts)
    features = lexicon.prompt_features(query.prompts)
    return Plan(lexicon.encoder, 1.0, key, prompts, features)


def _keep_design(profile: TasteProfile, design: Design, key: str) -> None:
    """The policies: a static design is used as it is, an adaptive one is where the next begins."""
    tensors = {
        f"{arm}.{slot}": chances
        for arm, policy in enumerate(design.policies)
        for slot, chances in enumerate(policy)
    }
    value = {"objective": design.objective, "gap": design.gap}
    profile.keep(FILE, tensors, {"key": key, "arms": str(len(design.policies)), **_texts(value)})


def _kept_design(profile: TasteProfile, space: PromptSpace, key: str) -> Design | None:
    found = profile.kept(FILE)
    if found is None or found[1].get("key") != key:
        return None
    tensors, text = found
    try:
        policies = [
            [tensors[f"{arm}.{slot}"] for slot in range(space.horizon)]
            for arm in range(int(text["arms"]))
        ]
        return Design(space, policies, float(text["objective"]), float(text["gap"]))
    except (KeyError, ValueError):
        return None  # another version wrote it


def _texts(values: dict[str, float]) -> dict[str, str]:
    return {name: repr(value) for name, value in values.items()}
