"""Lexicons: a vocabulary with a feature vector for each word, in which taste is learnt.

A word's feature is what the text encoder makes of it. Encoders put all texts close together
(pairwise cosines of 0.7–0.9), and choices depend on differences only, so what all words of a slot
share is taken out: features are L2-normalised, then centred slot by slot. A filled slot then is as
likely to please as an empty one (the zero vector) before anything is known, and neither the design
nor the prior spends anything on the direction that says "there is a word". One scale for all words
makes their mean square norm 1, so that the prior means the same whatever the encoder.

A prompt's feature is the sum over its words (arXiv 2512.19057, section 3, up to scale).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .profile import TasteProfile
from .vocabulary import EMPTY, Slot, Vocabulary

PROBES = ("a portrait", "the sea", "red", "at night")
SAME = 0.999  # cosine of the same probe from the same encoder on another machine or precision
FILE = "lexicon"
_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A vocabulary's words in the feature space of one text encoder.

    encoder: names the space; answers given in it stay valid for other vocabularies. probes: what
    the encoder makes of `PROBES`, (4, d). centred: one (n, d) float32 a slot, of L2-normalised
    features less the slot's mean; zero for the empty word. before, after: fixed text of prompts.
    """

    vocabulary: Vocabulary
    encoder: str
    probes: Tensor
    centred: tuple[Tensor, ...]
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
        centred = tuple(_centred(slot, words) for slot in vocabulary.slots)
        return cls(vocabulary, encoder_name(kind, probes), probes, centred, before, after)

    @property
    def dim(self) -> int:
        return int(self.probes.shape[1])

    @property
    def scale(self) -> float:
        """What makes the words' mean square norm 1; 1 if all of them have the same feature."""
        words = torch.cat([
            rows[[word != EMPTY for word in slot.words]]
            for slot, rows in zip(self.vocabulary.slots, self.centred, strict=True)
        ])  # fmt: skip
        square = float(words.double().square().sum(1).mean())
        return square**-0.5 if square > 1e-12 else 1.0

    def scaled(self) -> list[Tensor]:
        """The features in which utility is learnt: one float64 (n, d) a slot."""
        return [rows.double() * self.scale for rows in self.centred]

    def prompt_features(self, choices: Sequence[Sequence[int]]) -> Tensor:
        """Unscaled features of prompts given as one word index a slot: (K, d) float32."""
        return torch.stack([
            torch.stack([rows[i] for rows, i in zip(self.centred, choice, strict=True)]).sum(0)
            for choice in choices
        ])  # fmt: skip

    def prompt(self, choice: Sequence[int]) -> str:
        return self.vocabulary.prompt(choice, self.before, self.after)

    def under_name(self, other: Lexicon | None) -> Lexicon:
        """This lexicon, under the other's encoder name if both encoders do the same."""
        if other is None or not same_encoder(self.probes, other.probes):
            return self
        return Lexicon(
            self.vocabulary, other.encoder, other.probes, self.centred, self.before, self.after
        )

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and text from which `from_tensors` makes the same lexicon."""
        tensors = {f"slot.{i}": rows for i, rows in enumerate(self.centred)}
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
        centred = tuple(tensors[f"slot.{i}"] for i in range(len(slots)))
        if any(len(s.words) != len(rows) for s, rows in zip(slots, centred, strict=True)):
            raise ValueError("the lexicon's words and features differ in number")
        return cls(
            Vocabulary(slots, text["template"]), text["encoder"], tensors["probes"], centred,
            text["before"], text["after"],
        )  # fmt: skip


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


def _centred(slot: Slot, words: Mapping[str, Tensor]) -> Tensor:
    filled = [i for i, word in enumerate(slot.words) if word != EMPTY]
    features = normalised(torch.stack([words[slot.words[i]] for i in filled]))
    rows = torch.zeros(len(slot.words), features.shape[1])
    rows[filled] = (features - features.mean(0)).float()
    return rows
