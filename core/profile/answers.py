"""Which answers a query takes, and how many ratings each one gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .types import InvalidAnswer, ProfileError

KINDS = ("pick", "rank", "rate", "skip")
SOURCES = ("person", "simulated")
_FIELD = {"pick": "winner", "rank": "order", "rate": "ratings", "skip": None}


def check_kinds(kinds: Sequence[str], images: int) -> tuple[str, ...]:
    """Return the kinds of answer that a query of ``images`` images takes.

    "pick" and "rank" compare, so they are left out when there is only one image. Raises
    ProfileError for an unknown kind, for none, and when nothing but "skip" would be left.
    """
    asked = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in asked if kind not in KINDS]
    if unknown:
        raise ProfileError(
            f"Unknown kind of answer {unknown[0]!r}: use some of {', '.join(KINDS)}."
        )
    possible = KINDS if images > 1 else ("rate", "skip")
    usable = tuple(kind for kind in possible if kind in asked)
    if not set(usable) - {"skip"}:
        raise ProfileError(
            "A question needs at least one kind of answer besides 'skip', and with one image only "
            "'rate' can be asked: make a batch of two or more images, or allow 'rate'."
        )
    return usable


def check_answer(answer: object, kinds: Sequence[str], images: int) -> dict[str, Any]:
    """Return the answer in its one normal form, e.g. ratings as floats.

    Takes ``{"kind": "pick", "winner": i}``, ``{"kind": "rank", "order": [i, ...]}``,
    ``{"kind": "rate", "ratings": [r, ...]}`` with r in [-1, 1] or None, and ``{"kind": "skip"}``;
    ``i`` are candidate indices in 0..images-1. Raises InvalidAnswer for everything else.
    """
    if not isinstance(answer, dict):
        raise InvalidAnswer(f"An answer is an object with a 'kind', not {_type(answer)}.")
    kind = answer.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidAnswer(f"The answer's 'kind' must be one of {', '.join(kinds)}.")
    if kind not in kinds:
        raise InvalidAnswer(
            f"This question does not take the answer {kind!r}: it takes {', '.join(kinds)}."
        )
    field = _FIELD[kind]
    expected = {"kind"} if field is None else {"kind", field}
    if set(answer) != expected:
        names = " and ".join(repr(name) for name in sorted(expected))
        raise InvalidAnswer(f"An answer of kind {kind!r} has exactly {names}, nothing else.")
    if kind == "pick":
        return {"kind": kind, "winner": _index(answer["winner"], images)}
    if kind == "rank":
        return {"kind": kind, "order": _permutation(answer["order"], images)}
    if kind == "rate":
        return {"kind": kind, "ratings": _ratings(answer["ratings"], images)}
    return {"kind": kind}


def labels_in(answer: dict[str, Any], images: int) -> int:
    """Return how many individual ratings an answer gives: K, the rated ones, or none for a skip."""
    if answer["kind"] == "rate":
        return sum(rating is not None for rating in answer["ratings"])
    return 0 if answer["kind"] == "skip" else images


def _index(value: object, images: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidAnswer(f"An image is named by a whole number, not {_type(value)}.")
    if not 0 <= value < images:
        raise InvalidAnswer(f"There is no such image: this question has images 0 to {images - 1}.")
    return int(value)


def _permutation(value: object, images: int) -> list[int]:
    order = [_index(item, images) for item in _list(value, "order")]
    if sorted(order) != list(range(images)):
        raise InvalidAnswer(f"'order' must hold each image from 0 to {images - 1} exactly once.")
    return order


def _ratings(value: object, images: int) -> list[float | None]:
    ratings = [None if item is None else _rating(item) for item in _list(value, "ratings")]
    if len(ratings) != images:
        raise InvalidAnswer(f"'ratings' needs {images} entries, one an image, not {len(ratings)}.")
    if all(rating is None for rating in ratings):
        raise InvalidAnswer("No image is rated: rate at least one, or skip the question.")
    return ratings


def _rating(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidAnswer(f"A rating is a number from -1 to 1 or null, not {_type(value)}.")
    if not -1 <= value <= 1:  # also refuses NaN, which compares false
        raise InvalidAnswer("A rating must lie between -1 (dislike) and 1 (like).")
    return float(value)


def _list(value: object, field: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise InvalidAnswer(f"{field!r} must be a list, not {_type(value)}.")
    return list(value)


def _type(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
