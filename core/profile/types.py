"""What a taste profile hands out: its records, its errors, and the names it accepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9 _.-]{1,64}")
_WINDOWS_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))]
)


class ProfileError(Exception):
    """Something about a taste profile went wrong; the message tells the artist what to do."""


class UnknownProfile(ProfileError):
    """There is no profile of that name."""


class UnknownQuery(ProfileError):
    """There is no query of that id."""


class UnknownRevision(ProfileError):
    """The profile has no revision of that number."""


class AnswerConflict(ProfileError):
    """Another answer to this query is already on record."""


class InvalidAnswer(ProfileError):
    """The answer does not fit the query."""


class InvalidName(ProfileError):
    """The name cannot be used for a profile."""


class ProfileBusy(ProfileError):
    """Another process has this profile open."""


@dataclass(frozen=True)
class Candidate:
    """One image of a query: its index, its PNG file and the prompt that made it."""

    index: int
    image: Path
    prompt: str


@dataclass(frozen=True)
class Query:
    """A set of K images put to the person, with the answer once there is one.

    ``state`` is "pending", "answered" (waits for training), "used" (a revision was trained with
    it) or "skipped". ``order`` lists the candidate indices as they are shown. ``round`` is one more
    than the rounds completed when it was asked. Times are unix seconds.
    """

    id: str
    profile: str
    round: int
    state: str
    kinds: tuple[str, ...]
    order: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    created: float
    answered: float | None
    answer: dict[str, Any] | None
    source: str | None
    used_by: int | None
    asked_revision: int
    plan: dict[str, Any] | None


@dataclass(frozen=True)
class Revision:
    """One immutable state of the adapter; number 0 is the bare base model, without a file.

    ``ratings`` counts the individual labels the profile held when the revision was made;
    ``created`` is in unix seconds.
    """

    number: int
    parent: int | None
    created: float
    ratings: int
    report: dict[str, Any]
    metadata: dict[str, str]
    path: Path | None


def check_name(name: str) -> str:
    """Return ``name`` if it can name a profile's folder on every system.

    Raises InvalidName for anything but 1 to 64 of ``A-Z a-z 0-9 space _ . -``, for a leading dot,
    a leading or trailing space, a trailing dot, and for the device names of Windows.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(
            f"{_shortened(name)} cannot name a profile: use 1 to 64 of the letters A-Z and a-z, "
            "digits, spaces, '_', '-' and '.'."
        )
    if name[0] in ". " or name[-1] in ". ":
        raise InvalidName(
            f"{name!r} cannot name a profile: it begins with a dot or a space, or ends with one. "
            "Take that character away."
        )
    if name.split(".")[0].rstrip().upper() in _WINDOWS_DEVICES:
        raise InvalidName(
            f"{name!r} cannot name a profile: Windows keeps that word for a device, so the folder "
            "could not be moved there. Pick another name."
        )
    return name


def _shortened(value: object) -> str:
    if not isinstance(value, str):
        return f"A value of type {type(value).__name__}"
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
