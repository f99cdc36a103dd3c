"""Vocabularies as a person writes them: what they mean, and why one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palate.core.words.vocabulary import EMPTY, VocabularyError, label, parse_vocabulary
from palate.starter import vocabulary as grammar

SHIPPED = Path(__file__).resolve().parents[2] / "vocabularies"
SMALL = """
# colours and things
template: a {palette} {subject}, {light}
[subject]
house     # with a garden
tree
[palette]
-
crimson
(cobalt:1.2)
[light]
-
at night
"""


def refused(text: str) -> str:
    with pytest.raises(VocabularyError) as caught:
        parse_vocabulary(text)
    return str(caught.value)


def test_slots_words_comments_empty_words_and_emphasis() -> None:
    read = parse_vocabulary(SMALL)
    assert [(slot.name, slot.words) for slot in read.slots] == [
        ("subject", ("house", "tree")),
        ("palette", (EMPTY, "crimson", "(cobalt:1.2)")),
        ("light", (EMPTY, "at night")),
    ]
    assert (read.size, read.prompts) == (5, 12)
    assert [label(word) for word in read.slots[1].words] == ["nothing", "crimson", "cobalt ×1.2"]


def test_the_template_orders_the_words_and_empty_ones_leave_no_trace() -> None:
    read = parse_vocabulary(SMALL)
    assert read.prompt([0, 2, 1]) == "a (cobalt:1.2) house, at night"
    assert read.prompt([1, 0, 0]) == "a tree"
    assert read.prompt([1, 1, 0], "best quality,", " 4k") == "best quality, a crimson tree, 4k"


def test_without_a_template_the_slots_are_joined_in_their_order() -> None:
    read = parse_vocabulary("[a]\nx\n[b]\n-\ny\n[c]\nz")
    assert read.prompt([0, 1, 0]) == "x, y, z"
    assert read.prompt([0, 0, 0]) == "x, z"


def test_lines_without_a_slot_are_one_slot() -> None:
    assert [slot.words for slot in parse_vocabulary("red\nblue").slots] == [("red", "blue")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("# only this", "empty"),
        ("[a]\n[b]\nx", "line 1: the slot [a] has no words"),
        ("[a]\nx\n[b]\n-", "line 3: the slot [b] has no words"),
        ("[a]\nx\ny\nX", "line 4: 'X' stands in line 2"),
        ("[a]\nx\n[b]\n-\ny\n-", "line 6: '-' stands in line 4"),
        ("[a]\n-\nx", "line 2: the first slot, [a], can't be left empty"),
        ("[a]\nx\n[a]\ny", "line 3: a second slot [a]"),
        ("[a]\n(x:much)", "line 2: '(x:much)' is not an emphasis"),
        ("[a]\n(x:-1)", "line 2: '(x:-1)' is not an emphasis"),
        ("[a]\n((x", "line 2: a bracket"),
        ("[a]\nx)(", "line 2: a bracket"),
        ("[a]\n" + "x" * 201, "line 2: longer than 200"),
        ("[a]\nx\x00", "line 2: an unprintable character"),
        ("template: {a} {b}\n[a]\nx", "line 1: the template names {b}"),
        ("template: {a} {a}\n[a]\nx", "line 1: the template names {a} twice"),
        ("template: {a}\n[a]\nx\n[b]\ny", "line 1: the template leaves out {b}"),
        ("template: {a}\ntemplate: {a}\n[a]\nx", "line 2: a second template"),
    ],
)
def test_a_refusal_names_the_line_and_what_is_wrong(text: str, said: str) -> None:
    assert said in refused(text)


def test_brackets_that_are_meant_as_brackets_are_left_alone() -> None:
    assert parse_vocabulary("a smile \\:\\)\n(red:1.1) and blue").slots[0].words == (
        "a smile \\:\\)",
        "(red:1.1) and blue",
    )


def test_fewer_prompts_than_are_compared_are_refused() -> None:
    read = parse_vocabulary("[a]\nx\ny\n[b]\n-\nz")
    read.check_room(4)
    with pytest.raises(VocabularyError, match="4 different prompts, but 5"):
        read.check_room(5)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = parse_vocabulary(text)
    except VocabularyError:
        return
    assert read.prompt([0] * len(read.slots))


def test_the_starters_vocabulary_is_the_grammar_it_was_trained_with() -> None:
    read = parse_vocabulary((SHIPPED / "starter.txt").read_text("utf-8"))
    assert {slot.name: set(slot.words) for slot in read.slots} == {
        name: set(words) for name, words in grammar.SLOTS.items()
    }
    last = [len(slot.words) - 1 for slot in read.slots]
    assert read.prompt(last) == str(
        grammar.Prompt("teapot", "silver", "mosaic", "as a pair", "under a spotlight")
    )


def test_the_six_slots_have_the_papers_size_and_no_word_twice() -> None:
    read = parse_vocabulary((SHIPPED / "six_slots.txt").read_text("utf-8"))
    names = [slot.name for slot in read.slots]
    assert names == ["subject", "ambience", "style", "composition", "lighting", "detail"]
    words = [word.lower() for slot in read.slots for word in slot.words if word]
    assert 2400 <= read.size == len(set(words)) <= 2600
