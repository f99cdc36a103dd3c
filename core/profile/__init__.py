"""Taste profiles on disk: ratings log, pending questions, adapter revisions.

>>> store = ProfileStore(folder)
>>> profile = store.open("Warm colours")
>>> query = profile.ask(images, {"latents": latents}, prompts, generator=generator)
>>> profile.answer(query.id, {"kind": "pick", "winner": 2})
>>> profile.commit_revision(adapter, optimizer, used=[query.id], report={}, metadata={})

An answer is on the disk when ``answer`` has returned, a revision when ``commit_revision`` has. A
process that dies at any moment loses nothing that was acknowledged; what it had half written is
never listed, and is removed when the profile is opened again.
"""

from .profile import BUDGET, ProfileStore, TasteProfile
from .types import (
    AnswerConflict,
    Candidate,
    InvalidAnswer,
    InvalidName,
    ProfileBusy,
    ProfileError,
    Query,
    Revision,
    UnknownProfile,
    UnknownQuery,
    UnknownRevision,
    check_name,
)

__all__ = [
    "BUDGET",
    "AnswerConflict",
    "Candidate",
    "InvalidAnswer",
    "InvalidName",
    "ProfileBusy",
    "ProfileError",
    "ProfileStore",
    "Query",
    "Revision",
    "TasteProfile",
    "UnknownProfile",
    "UnknownQuery",
    "UnknownRevision",
    "check_name",
]
