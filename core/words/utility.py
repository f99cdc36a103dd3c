"""A person's utility over prompts, fitted from the answers in their profile alone.

Every question that was put with a plan keeps the plan's features among its tensors, so θ and its
uncertainty can be computed again from the ratings log at any time; what is kept in the profile's
folder as ``utility.safetensors`` saves that work, and is there for other programs to read.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..choice import ChoiceModel
from ..papa import graded_labels
from ..profile import Query, TasteProfile
from .lexicon import Lexicon
from .plan import FEATURES

L2 = 1.0  # prior precision of θ, where a word's feature has length 1 on average
FILE = "utility"


@dataclass(frozen=True, eq=False)
class Utility:
    """The posterior of θ in one feature space, and the questions that it was fitted to, by id."""

    encoder: str
    scale: float
    model: ChoiceModel
    questions: tuple[str, ...]

    @cached_property
    def information(self) -> float:
        """What the answers have told about θ, in bits: half the log-volume taken off the prior."""
        if not self.questions:
            return 0.0
        logdet = float(torch.linalg.slogdet(self.model.precision()).logabsdet)
        return max(0.0, (logdet - self.model.dim * math.log(self.model.l2)) / math.log(4))


_known: WeakKeyDictionary[TasteProfile, dict[str, Utility]] = WeakKeyDictionary()
_features: WeakKeyDictionary[TasteProfile, dict[str, Tensor | None]] = WeakKeyDictionary()
_lock = threading.Lock()


def observe(model: ChoiceModel, features: Tensor, answer: Mapping[str, Any]) -> None:
    """Adds one answer about candidates with ``features`` (K, d): a pick, a ranking or ratings.

    Ratings count as like or dislike; null and 0, like a skip, say nothing.
    """
    if answer["kind"] == "pick":
        model.observe_choice(features, answer["winner"])
    elif answer["kind"] == "rank":
        model.observe_ranking(features, answer["order"])
    else:
        labels = graded_labels(answer, len(features))
        rated = labels.abs() > 0
        if bool(rated.any()):
            model.observe_likes(features[rated], (labels[rated] > 0).float())


def utility_of(profile: TasteProfile, encoder: str, dim: int, scale: float) -> Utility:
    """The posterior from all answers given in the feature space ``encoder`` (d = ``dim``).

    ``scale`` brings the log's features to unit size. Reads the disk only for what is new.
    """
    answered = _answered(profile, encoder)
    ids = tuple(query.id for query in answered)
    with _lock:
        known = _known.setdefault(profile, {}).get(encoder)
    if known is None or known.scale != scale:
        known = _kept(profile, encoder, dim, scale)
    if known is None or known.questions != ids:
        known = _fitted(profile, answered, encoder, dim, scale)
    with _lock:
        _known[profile][encoder] = known
    return known


def utility_in(profile: TasteProfile, lexicon: Lexicon) -> Utility:
    """`utility_of` in the space of a lexicon."""
    return utility_of(profile, lexicon.encoder, lexicon.dim, 1.0)


def keep_utility(profile: TasteProfile, utility: Utility, more: Mapping[str, str]) -> None:
    """Writes θ, its uncertainty and the answers behind them to the profile's folder.

    ``more`` goes into the file's metadata.
    """
    metadata = {
        **more,
        "format": "1",
        "encoder": utility.encoder,
        "scale": repr(utility.scale),
        "questions": json.dumps(utility.questions),
    }
    profile.keep(FILE, utility.model.state_dict(), metadata)


def _answered(profile: TasteProfile, encoder: str) -> list[Query]:
    """Answered questions with a plan in that space, oldest first; skips have no influence."""
    closed = [*profile.queries("used"), *profile.queries("answered")]
    planned = [q for q in closed if q.plan is not None and q.plan.get("encoder") == encoder]
    return sorted(planned, key=lambda query: (query.created, query.id))


def _kept(profile: TasteProfile, encoder: str, dim: int, scale: float) -> Utility | None:
    found = profile.kept(FILE)
    if found is None:
        return None
    tensors, metadata = found
    try:
        same = metadata["encoder"] == encoder and float(metadata["scale"]) == scale
        if not same or len(tensors["theta"]) != dim:
            return None
        model = ChoiceModel.load_state_dict(tensors)
        return Utility(encoder, scale, model, tuple(json.loads(metadata["questions"])))
    except (KeyError, ValueError):
        return None  # another version wrote it; the log has everything


def _fitted(
    profile: TasteProfile, answered: list[Query], encoder: str, dim: int, scale: float
) -> Utility:
    model = ChoiceModel(dim, L2)
    for query in answered:
        features = _features_of(profile, query.id)
        if features is None or features.shape != (len(query.candidates), dim):
            continue
        assert query.answer is not None
        observe(model, features * scale, query.answer)
    return Utility(encoder, scale, model.fit(), tuple(query.id for query in answered))


def _features_of(profile: TasteProfile, query_id: str) -> Tensor | None:
    """A query's features never change: they are read once."""
    with _lock:
        known = _features.setdefault(profile, {})
    if query_id not in known:
        known[query_id] = profile.tensor(query_id, FEATURES)
    return known[query_id]
