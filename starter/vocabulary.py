"""The studio's prompt grammar: five slots whose words are also the query designer's prompt space.

A prompt reads ``a {texture} {palette} {subject} {composition} {lighting}``, for instance
"a striped crimson fish seen close up at night". Every slot but the subject may be left empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUBJECTS = (
    "house", "tree", "mountain", "fish", "flower", "sailboat",
    "cat", "star", "mushroom", "castle", "bird", "teapot",
)  # fmt: skip
PALETTES = ("crimson", "amber", "emerald", "turquoise", "cobalt", "violet", "rose", "silver")
TEXTURES = ("plain", "striped", "dotted", "checkered", "outlined", "mosaic")
COMPOSITIONS = (
    "in the centre", "far away", "seen close up", "on the left", "on the right", "as a pair",
)  # fmt: skip
LIGHTINGS = ("at noon", "at night", "at sunset", "in thick fog", "under a spotlight")

EMPTY = ""
SLOTS: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "palette": (*PALETTES, EMPTY),
    "texture": (*TEXTURES, EMPTY),
    "composition": (*COMPOSITIONS, EMPTY),
    "lighting": (*LIGHTINGS, EMPTY),
}


@dataclass(frozen=True)
class Prompt:
    """One choice a slot; an empty string leaves the slot to chance."""

    subject: str
    palette: str = EMPTY
    texture: str = EMPTY
    composition: str = EMPTY
    lighting: str = EMPTY

    def __str__(self) -> str:
        words = (self.texture, self.palette, self.subject, self.composition, self.lighting)
        return " ".join(["a", *(word for word in words if word)])


def random_prompt(rng: np.random.Generator, empty: float = 0.2) -> Prompt:
    """A prompt with uniform choices; each slot but the subject is empty with chance ``empty``."""

    def choose(words: tuple[str, ...], may_be_empty: bool = True) -> str:
        if may_be_empty and rng.random() < empty:
            return EMPTY
        return words[rng.integers(len(words))]

    return Prompt(
        subject=choose(SUBJECTS, may_be_empty=False),
        palette=choose(PALETTES),
        texture=choose(TEXTURES),
        composition=choose(COMPOSITIONS),
        lighting=choose(LIGHTINGS),
    )


def words() -> list[str]:
    """Every word of the grammar once, in a fixed order (the tokenizer's vocabulary)."""
    found = ["a"]
    for choices in SLOTS.values():
        for phrase in choices:
            found += [word for word in phrase.split() if word not in found]
    return found
