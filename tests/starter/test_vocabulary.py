"""The prompt grammar: what a prompt is, and that chance reaches all of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from palate.starter.vocabulary import EMPTY, SLOTS, Prompt, random_prompt, words


def every_prompt() -> list[Prompt]:
    return [
        Prompt(**dict(zip(SLOTS, choice, strict=True)))
        for choice in itertools.product(*SLOTS.values())
    ]


def test_a_prompt_reads_as_a_phrase() -> None:
    full = Prompt("fish", "crimson", "striped", "seen close up", "at night")
    assert str(full) == "a striped crimson fish seen close up at night"
    assert str(Prompt("fish")) == "a fish"


def test_every_slot_but_the_subject_may_be_empty() -> None:
    assert EMPTY not in SLOTS["subject"]
    assert all(choices[-1] == EMPTY for name, choices in SLOTS.items() if name != "subject")
    assert all(len(set(choices)) == len(choices) for choices in SLOTS.values())
    assert all(6 <= len(choices) <= 12 for choices in SLOTS.values())


def test_prompts_are_one_to_ten_words_and_all_different() -> None:
    texts = [str(prompt) for prompt in every_prompt()]
    assert len(set(texts)) == len(texts)
    assert max(len(text.split()) for text in texts) <= 10
    assert min(len(text.split()) for text in texts) >= 1
    assert all(text == " ".join(text.split()) for text in texts)


def test_the_words_are_those_of_the_grammar_once_each() -> None:
    listed = words()
    assert len(set(listed)) == len(listed)
    assert set(listed) == {word for prompt in every_prompt() for word in str(prompt).split()}
    assert listed == words()


def test_chance_reaches_every_choice_evenly() -> None:
    rng = np.random.default_rng(0)
    prompts = [random_prompt(rng, empty=0.2) for _ in range(4000)]
    for slot, choices in SLOTS.items():
        drawn = [getattr(prompt, slot) for prompt in prompts]
        assert set(drawn) == set(choices)
        share = drawn.count(EMPTY) / len(drawn)
        assert share == pytest.approx(0.0 if slot == "subject" else 0.2, abs=0.03)
        named = [drawn.count(choice) for choice in choices if choice]
        assert min(named) > 0.6 * sum(named) / len(named)


def test_a_random_prompt_depends_on_its_generator_alone() -> None:
    first, second = ([random_prompt(np.random.default_rng(5)) for _ in range(3)] for _ in range(2))
    assert first == second
    assert len({random_prompt(np.random.default_rng(seed)) for seed in range(30)}) > 25
    full = [random_prompt(np.random.default_rng(seed), empty=0.0) for seed in range(30)]
    assert all(EMPTY not in vars(prompt).values() for prompt in full)
