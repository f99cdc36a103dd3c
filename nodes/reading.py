"""Reading a vocabulary with a connected CLIP: once for each word, kept on disk."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ..core.profile import TasteProfile
from ..core.words.feature_cache import FeatureCache
from ..core.words.lexicon import FILE, PROBES, Lexicon, kept_lexicon
from ..core.words.vocabulary import EMPTY, Vocabulary
from . import host


def read_vocabulary(
    profile: TasteProfile, clip: Any, vocabulary: Vocabulary, before: str, after: str
) -> Lexicon:
    """The lexicon of ``vocabulary``, kept in the profile for those who have no CLIP at hand."""
    kind = host.encoder_kind(clip)
    probes = torch.stack([feature for _, feature in host.read_texts(clip, PROBES)])
    wanted = dict.fromkeys(w for slot in vocabulary.slots for w in slot.words if w != EMPTY)
    words = _features(profile, clip, list(wanted), FeatureCache.key(kind, probes))
    earlier = kept_lexicon(profile)
    lexicon = Lexicon.of(vocabulary, words, probes, kind, before, after).under_name(earlier)
    if earlier is None or not _same(lexicon, earlier):
        profile.keep(FILE, *lexicon.to_tensors())
    return lexicon


def _features(profile: TasteProfile, clip: Any, words: list[str], key: str) -> dict[str, Tensor]:
    cache = host.feature_cache()
    known = cache.read(key)
    missing = [word for word in words if word not in known]
    if not missing:
        return known
    bar, told = host.progress_bar(len(missing)), 0.0
    try:
        for done, (word, feature) in enumerate(host.read_texts(clip, missing), 1):
            known[word] = feature
            bar(done, len(missing))
            if time.monotonic() - told > 0.2 or done == len(missing):
                told = time.monotonic()
                _tell(profile.name, done, len(missing))
    finally:
        cache.write(key, known)  # also what was read before an interruption
    return known


def _tell(profile: str, done: int, total: int) -> None:
    progress = {"profile": profile, "done": done, "total": total, "stage": "reading words"}
    host.send("palate.progress", progress, everyone=True)


def _same(a: Lexicon, b: Lexicon) -> bool:
    return (
        (a.vocabulary, a.encoder, a.before, a.after) == (b.vocabulary, b.encoder, b.before, b.after)
        and len(a.features) == len(b.features)
        and all(torch.equal(x, y) for x, y in zip(a.features, b.features, strict=True))
    )
