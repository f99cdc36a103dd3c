"""What has been learnt about a taste, for people: what words do, the best prompts, when to stop."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ..design import Advice, best_prompts, stopping_advice
from ..design.advice import HORIZON
from ..profile import TasteProfile
from .lexicon import Lexicon, kept_lexicon, prompt_space
from .utility import FILE, Utility, keep_utility, utility_in
from .vocabulary import EMPTY, Vocabulary, label

SHOWN = 48  # words that the panel is told of
BEAM = 16
MANY = HORIZON  # questions that the advice looks ahead to
ARMS = 4  # prompts in the questions that advice looks ahead to

_shown: WeakKeyDictionary[Utility, tuple[Vocabulary, list[WordEffect]]] = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True)
class WordEffect:
    """What a word adds to a prompt's utility, in nats against its slot's average, ± std."""

    slot: str
    word: str
    effect: float
    std: float

    @property
    def weight(self) -> float:
        """How much the word matters: what is left of its effect after its uncertainty."""
        return abs(self.effect) - self.std


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt, its utility in nats against an average prompt, and that number's uncertainty."""

    text: str
    score: float
    std: float


def word_effects(lexicon: Lexicon, utility: Utility) -> list[WordEffect]:
    """The effect of each word of the vocabulary, the ones that matter most first."""
    rows = torch.cat(lexicon.exact())
    names = [(slot.name, word) for slot in lexicon.vocabulary.slots for word in slot.words]
    mean, std = (values.tolist() for values in utility.model.utility(rows))
    effects = [
        WordEffect(slot, label(word), mean[i], std[i])
        for i, (slot, word) in enumerate(names)
        if word != EMPTY
    ]
    return sorted(effects, key=lambda effect: -effect.weight)


def _most_telling(lexicon: Lexicon, utility: Utility) -> list[WordEffect]:
    """The first `SHOWN` of `word_effects`, worked out once for each posterior and vocabulary."""
    with _lock:
        found = _shown.get(utility)
    if found is None or found[0] != lexicon.vocabulary:
        found = lexicon.vocabulary, word_effects(lexicon, utility)[:SHOWN]
        with _lock:
            _shown[utility] = found
    return found[1]


def best(lexicon: Lexicon, utility: Utility, count: int) -> list[ScoredPrompt]:
    """The ``count`` prompts of greatest utility at θ̂, best first."""
    space = prompt_space(lexicon)
    choices = best_prompts(space, utility.model.theta, n=count, beam=max(BEAM, count))
    mean, std = utility.model.utility(lexicon.prompt_features(choices).double())
    return [
        ScoredPrompt(lexicon.prompt(choice), score, spread)
        for choice, score, spread in zip(choices, mean.tolist(), std.tolist(), strict=True)
    ]


def keep_learnt(profile: TasteProfile, lexicon: Lexicon, utility: Utility) -> Advice:
    """Writes the posterior to the profile's folder with advice on how many more questions to ask.

    The advice looks far ahead and takes a second or two for a large vocabulary, so it is worked out
    while a question is designed, not while somebody waits for a page.
    """
    advice = stopping_advice(prompt_space(lexicon), utility.model, ARMS)
    more = {"advice": json.dumps([len(utility.questions), advice.further, advice.confidence])}
    keep_utility(profile, utility, more)
    return advice


def _advised(profile: TasteProfile, questions: int) -> int | None:
    """How many more questions are advised, by the advice kept last; None if there is none.

    `MANY` stands for more than the advice looks ahead.
    """
    found = profile.kept(FILE, only=())
    if found is None or "advice" not in found[1]:
        return None
    then, further, _ = json.loads(found[1]["advice"])
    return MANY if further is None else max(0, further - max(0, questions - then))


def learnt(profile: TasteProfile) -> dict[str, Any] | None:
    """What the panel shows of a taste, as JSON; None before ED Query Designer has asked.

    Reads only. words: the `SHOWN` that matter most, by effect, best first.
    """
    lexicon = kept_lexicon(profile)
    if lexicon is None:
        return None
    utility = utility_in(profile, lexicon)
    shown = _most_telling(lexicon, utility) if utility.questions else []
    questions = len(utility.questions)
    return {
        "questions": questions,
        "information": round(utility.information, 2),
        "advised": _advised(profile, questions) if questions else None,
        "words": [
            {"slot": w.slot, "word": w.word, "effect": round(w.effect, 3), "std": round(w.std, 3)}
            for w in sorted(shown, key=lambda effect: -effect.effect)
        ],
    }
