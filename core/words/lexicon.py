"""Lexicons: a vocabulary with a feature vector for each word, in which taste is learnt.

A word's feature is what the text encoder makes of it. Encoders put all texts close together
(pairwise cosines of 0.7–0.9), and choices depend on differences only, so what all words of a slot
share is taken out: features are L2-normalised, then centred slot by slot. A filled slot then is as
likely to please as an empty one (the zero vector) before anything is known, and neither the design
nor the prior spends anything on the direction that says "there is a word". Each slot is then
brought to a mean square norm of 1: before anything is known, every slot may matter as much as
another, and the prior means the same whatever the encoder.

A prompt's feature is the sum over its words (arXiv 2512.19057, section 3, up to scale).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..design import PromptSpace
from ..profile import TasteProfile
from .vocabulary import EMPTY, Slot, Vocabulary

PROBES = ("a portrait", "the sea", "red", "at night")
SAME = 0.999  # cosine of the same probe from the same encoder on another machine or precision
ALIKE = 1e-6  # a slot of words that the encoder can't tell apart is left without differences
FILE = "lexicon"
_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A vocabulary's words in the feature space of one text encoder.

    encoder: names the space; answers given in it stay valid for other vocabularies. probes: what
    the encoder makes of `PROBES`, (4, d). features: one (n, d) float32 a slot, with mean 0 and mean
    square norm 1 over its words; zero for the empty word. before, after: fixed text of prompts.
    """

    vocabulary: Vocabulary
    encoder: str
    probes: Tensor
    features: tuple[Tensor, ...]
    before: str = ""
    after: str = ""

    @classmethod
    def of(
        cls,
        vocabulary: Vocabulary,
        words: Mapping[str, Tensor],
        probes: Tensor,
        kind: str,
        before: str = "",
        after: str = "",
    ) -> Lexicon:
        """The lexicon of ``vocabulary`` from the raw features (d,) of its words.

        ``kind`` is the encoder's class; with ``probes`` it names the encoder.
        """
        features = tuple(_features(slot, words) for slot in vocabulary.slots)
        return cls(vocabulary, encoder_name(kind, probes), probes, features, before, after)

    @property
    def dim(self) -> int:
        return int(self.probes.shape[1])

    def exact(self) -> list[Tensor]:
        """The features as designs and fits take them: one float64 (n, d) a slot."""
        return [rows.double() for rows in self.features]

    def prompt_features(self, choices: Sequence[Sequence[int]]) -> Tensor:
        """Features of prompts given as one word index a slot: (K, d) float32."""
        return torch.stack([
            torch.stack([rows[i] for rows, i in zip(self.features, choice, strict=True)]).sum(0)
            for choice in choices
        ])  # fmt: skip

    def prompt(self, choice: Sequence[int]) -> str:
        return self.vocabulary.prompt(choice, self.before, self.after)

    def under_name(self, other: Lexicon | None) -> Lexicon:
        """This lexicon, under the other's encoder name if both encoders do the same."""
        if other is None or not same_encoder(self.probes, other.probes):
            return self
        return Lexicon(
            self.vocabulary, other.encoder, other.probes, self.features, self.before, self.after
        )

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and text from which `from_tensors` makes the same lexicon."""
        tensors = {f"slot.{i}": rows for i, rows in enumerate(self.features)}
        text = {
            "slots": [[slot.name, list(slot.words)] for slot in self.vocabulary.slots],
            "template": self.vocabulary.template,
            "encoder": self.encoder,
            "before": self.before,
            "after": self.after,
        }
        return {**tensors, "probes": self.probes}, {"format": _FORMAT, "lexicon": json.dumps(text)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Lexicon:
        """Raises ValueError for what another version, or another program, wrote."""
        if metadata.get("format") != _FORMAT:
            raise ValueError("not a lexicon of this version")
        text = json.loads(metadata["lexicon"])
        slots = tuple(Slot(name, tuple(words)) for name, words in text["slots"])
        features = tuple(tensors[f"slot.{i}"] for i in range(len(slots)))
        if any(len(s.words) != len(rows) for s, rows in zip(slots, features, strict=True)):
            raise ValueError("the lexicon's words and features differ in number")
        return cls(
            Vocabulary(slots, text["template"]), text["encoder"], tensors["probes"], features,
            text["before"], text["after"],
        )  # fmt: skip


def prompt_space(lexicon: Lexicon) -> PromptSpace:
    """The lexicon as designs see it."""
    slots = [list(slot.words) for slot in lexicon.vocabulary.slots]
    return PromptSpace(slots, lexicon.exact())


def kept_lexicon(profile: TasteProfile) -> Lexicon | None:
    """The lexicon that questions were last designed with for this taste, if there is one."""
    found = profile.kept(FILE)
    if found is None:
        return None
    try:
        return Lexicon.from_tensors(*found)
    except (KeyError, ValueError):
        return None  # another version wrote it; the next design writes it anew


def encoder_name(kind: str, probes: Tensor) -> str:
    """Names a text encoder by its class and by what it makes of `PROBES` (4, d)."""
    rounded = normalised(probes).float().mul(100).round().to(torch.int16).contiguous()
    digest = hashlib.sha256(rounded.numpy().tobytes()).hexdigest()[:16]
    return f"{kind}-{probes.shape[1]}-{digest}"


def same_encoder(a: Tensor, b: Tensor) -> bool:
    """Whether two sets of probes (4, d) come from one encoder, on whatever device or precision."""
    if a.shape != b.shape:
        return False
    return bool(((normalised(a) * normalised(b)).sum(1) >= SAME).all())


def normalised(features: Tensor) -> Tensor:
    """Rows of (N, d) at length 1, in float64; a zero row stays zero."""
    rows = features.double()
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


def _features(slot: Slot, words: Mapping[str, Tensor]) -> Tensor:
    filled = [i for i, word in enumerate(slot.words) if word != EMPTY]
    directions = normalised(torch.stack([words[slot.words[i]] for i in filled]))
    centred = directions - directions.mean(0)
    size = float(centred.square().sum(1).mean().sqrt())
    rows = torch.zeros(len(slot.words), directions.shape[1])
    rows[filled] = (centred / size if size > ALIKE else centred).float()
    return rows
