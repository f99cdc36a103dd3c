"""Vocabularies: the words and phrases of each slot of a prompt, as a person writes them down.

    # A comment.
    template: a {palette} {subject} {light}
    [subject]
    house
    (castle:1.2)        # ComfyUI's own emphasis; it reaches the text encoder as it stands
    [palette]
    -                   # this slot may be left empty
    crimson
    [light]
    at night

One word or phrase a line, below the ``[name]`` of its slot. Without a template the slots are joined
in their order, with commas. The first slot is never empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

EMPTY = ""
MAX_WORDS = 20_000
MAX_LENGTH = 200
_SLOT = re.compile(r"\[\s*([^\[\]{}]+?)\s*\]")
_FIELD = re.compile(r"\{([^{}]*)\}")
_EMPHASIS = re.compile(r"\((.*):([^():]*)\)")
_COMMENT = re.compile(r"(^|\s)#.*")
_TEMPLATE = "template:"
_ONLY_SLOT = "words"


class VocabularyError(ValueError):
    """The vocabulary cannot be used; the message names the line and what to do."""


@dataclass(frozen=True)
class Slot:
    """One place in the prompt and its words, in the order written; "" stands for none of them."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """The slots in the order written, and how a prompt is put together from one word of each."""

    slots: tuple[Slot, ...]
    template: str = ""

    @property
    def size(self) -> int:
        """How many words there are in all slots, the empty ones aside."""
        return sum(word != EMPTY for slot in self.slots for word in slot.words)

    @property
    def prompts(self) -> int:
        """How many prompts can be put together."""
        return math.prod(len(slot.words) for slot in self.slots)

    def prompt(self, choice: Sequence[int], before: str = "", after: str = "") -> str:
        """The text for one word index a slot, with fixed text before and after it."""
        words = {slot.name: slot.words[i] for slot, i in zip(self.slots, choice, strict=True)}
        if self.template:
            text = _FIELD.sub(lambda field: words[field[1].strip()], self.template)
        else:
            text = ", ".join(word for word in words.values() if word)
        parts = before.strip(" ,"), _tidy(text), after.strip(" ,")
        return ", ".join(part for part in parts if part)

    def check_room(self, arms: int) -> None:
        """Raises VocabularyError when there are fewer than ``arms`` different prompts."""
        if self.prompts < arms:
            raise VocabularyError(
                f"This vocabulary makes {self.prompts} different prompts, but {arms} are to be "
                "compared: add words or a slot, or compare fewer."
            )


def label(word: str) -> str:
    """A word as it is shown to a person: without emphasis, "nothing" for the empty one."""
    emphasised = _EMPHASIS.fullmatch(word)
    if word == EMPTY:
        return "nothing"
    return f"{emphasised[1].strip()} ×{emphasised[2].strip()}" if emphasised else word


def parse_vocabulary(text: str) -> Vocabulary:
    """The vocabulary written in ``text``; raises VocabularyError, which names the line."""
    slots: dict[str, dict[str, int]] = {}  # name → word → line
    opened: dict[str, int] = {}
    template, template_line = "", 0
    current: dict[str, int] | None = None
    lowered: dict[str, int] = {}  # the current slot's words in small letters → line
    for number, line in _lines(text):
        if line.lower().startswith(_TEMPLATE):
            if template:
                raise _error(number, f"a second template; the first is in line {template_line}")
            template, template_line = line[len(_TEMPLATE) :].strip(), number
        elif (header := _SLOT.fullmatch(line)) is not None:
            name = header[1]
            if name in slots:
                raise _error(
                    number, f"a second slot [{name}]; put its words below line {opened[name]}"
                )
            current, lowered = slots.setdefault(name, {}), {}
            opened[name] = number
        else:
            if current is None:
                current = slots[_ONLY_SLOT] = {}
                opened[_ONLY_SLOT] = number
            _add(current, lowered, line, number)
    _check(slots, opened)
    if template:
        _check_template(template, template_line, slots)
    return Vocabulary(tuple(Slot(name, tuple(words)) for name, words in slots.items()), template)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, without comments, and their numbers."""
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = " ".join(_COMMENT.sub("", raw).split())
        if line:
            yield number, line


def _add(words: dict[str, int], lowered: dict[str, int], line: str, number: int) -> None:
    word = EMPTY if line == "-" else line
    if len(word) > MAX_LENGTH:
        raise _error(number, f"longer than {MAX_LENGTH} characters; make it a phrase, not a text")
    if not word.isprintable():
        raise _error(number, "an unprintable character; write the line anew")
    _check_brackets(word, number)
    known = lowered.setdefault(word.lower(), number)
    if known != number:
        shown = "'-'" if word == EMPTY else repr(word)
        raise _error(number, f"{shown} stands in line {known} already; remove one of them")
    words[word] = number


def _check_brackets(word: str, number: int) -> None:
    depth = 0
    for mark in re.sub(r"\\[()]", "", word):
        depth += (mark == "(") - (mark == ")")
        if depth < 0:
            break
    if depth:
        raise _error(number, f"a bracket in {word!r} is not closed; write \\( for a plain one")
    emphasised = _EMPHASIS.fullmatch(word)
    if emphasised is None:
        return
    try:
        weight = float(emphasised[2])
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 10 or not emphasised[1].strip():
        raise _error(
            number, f"{word!r} is not an emphasis; write (word:1.2) with a number from 0 to 10"
        )


def _check(slots: dict[str, dict[str, int]], opened: dict[str, int]) -> None:
    if not slots:
        raise VocabularyError(
            "The vocabulary is empty: write one word or phrase a line, each slot below its [name]."
        )
    for name, words in slots.items():
        if not set(words) - {EMPTY}:
            raise _error(opened[name], f"the slot [{name}] has no words; add some or remove it")
    first = next(iter(slots))
    if EMPTY in slots[first]:
        raise _error(
            slots[first][EMPTY],
            f"the first slot, [{first}], can't be left empty; remove '-', or begin with another "
            "slot and arrange them with a template",
        )
    total = sum(len(words) for words in slots.values())
    if total > MAX_WORDS:
        raise VocabularyError(f"{total} words are more than {MAX_WORDS}: remove some.")


def _check_template(template: str, number: int, slots: dict[str, dict[str, int]]) -> None:
    fields = [field.strip() for field in _FIELD.findall(template)]
    for field in fields:
        if field not in slots:
            raise _error(number, f"the template names {{{field}}}, but there is no slot [{field}]")
        if fields.count(field) > 1:
            raise _error(number, f"the template names {{{field}}} twice; name each slot once")
    for name in slots:
        if name not in fields:
            raise _error(number, f"the template leaves out {{{name}}}; name each slot once")


def _tidy(text: str) -> str:
    """Without the double spaces and commas that empty slots leave behind."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(\s*,)+", ",", text)
    return text.strip(" ,")


def _error(line: int, problem: str) -> VocabularyError:
    return VocabularyError(f"Vocabulary, line {line}: {problem}.")
