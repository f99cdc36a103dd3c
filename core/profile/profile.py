"""One taste's profile, and the store that opens profiles by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from .folder import DATABASE
from .previews import PreviewLog
from .types import (
    InvalidName,
    ProfileError,
    Query,
    UnknownProfile,
    UnknownQuery,
    check_name,
)

BUDGET = "label_budget"  # a setting: how many ratings the person is willing to give in all


class TasteProfile(PreviewLog):
    """Everything known about one taste, in one folder that one process at a time may open.

    Opened through ProfileStore. Every method may be called from any thread, and raises
    ProfileError when the disk or the database fails, or after ``close``.
    """

    def summary(self) -> dict[str, Any]:
        """Return the profile at a glance, as JSON."""
        return {
            "name": self.name,
            "ratings": self.ratings,
            "rounds": self.rounds,
            "pending": len(self.queries("pending")),
            "waiting": len(self.waiting()),
            "active": self.active.number,
            "revisions": [
                {
                    "revision": revision.number,
                    "parent": revision.parent,
                    "created": revision.created,
                    "ratings": revision.ratings,
                    "report": revision.report,
                }
                for revision in self.revisions()
            ],
            "learnt": None,
            "budget": self._budget(),
        }

    def _budget(self) -> dict[str, int] | None:
        """Ratings wished for in all and those left, if a budget was ever set."""
        total = self.settings.get(BUDGET)
        return None if total is None else {"total": total, "left": max(0, total - self.ratings)}


class ProfileStore:
    """Every profile below one folder; the same object for the same folder within a process.

    A profile that was opened stays open, and is refused to other processes, until ``close``.
    Looking through all profiles opens the others for that moment only, so that two ComfyUIs can
    share a folder as long as they work on different profiles.
    """

    root: Path
    _opened: dict[str, TasteProfile]
    _lock: threading.RLock
    _stores: ClassVar[dict[Path, ProfileStore]] = {}
    _stores_lock: ClassVar[threading.Lock] = threading.Lock()

    def __new__(cls, root: str | os.PathLike[str]) -> ProfileStore:
        """Return the store of the folder ``root``, which need not exist yet."""
        place = Path(root).expanduser().resolve()
        with cls._stores_lock:
            store = cls._stores.get(place)
            if store is None:
                store = super().__new__(cls)
                store.root = place
                store._opened = {}
                store._lock = threading.RLock()
                cls._stores[place] = store
            return store

    def names(self) -> list[str]:
        """Return the names of the profiles on disk, sorted; writes nothing."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if _is_profile(entry))

    def open(self, name: str, *, create: bool = True) -> TasteProfile:
        """Return the profile, the same object each time, made if need be.

        Raises InvalidName; UnknownProfile if there is none and ``create`` is off; ProfileBusy if
        another process has it open; ProfileError if its files cannot be used.
        """
        with self._lock:
            profile = self._opened_already(name)
            if profile is None:
                profile = self._open(name, create=create)
                self._opened[name] = profile
            return profile

    @contextmanager
    def look_into(self, name: str) -> Iterator[TasteProfile]:
        """The profile for the length of the block; closed afterwards unless it was open before.

        Raises what ``open`` raises, ProfileBusy at once.
        """
        with self._lock:
            opened = self._opened_already(name)
            if opened is not None:
                yield opened
                return
            profile = self._open(name, create=False, patience=0)
            try:
                yield profile
            finally:
                if self._opened.get(name) is not profile:
                    profile.close()

    def find_query(self, query_id: str) -> tuple[TasteProfile, Query]:
        """Return the query of that id and its profile, which stays open; raises UnknownQuery.

        Profiles that another process has open, or that are damaged, are passed over.
        """
        for name in self._names_opened_first():
            with suppress(ProfileError), self.look_into(name) as profile:
                query = profile.query(query_id)
                self._opened[name] = profile  # look_into then leaves it open
                return profile, query
        raise UnknownQuery(
            "There is no such question in any profile open to this ComfyUI: reload the panel to "
            "see what is pending."
        )

    def pending(self) -> list[Query]:
        """Return the queries waiting in all profiles, oldest first.

        Profiles that another process has open, or that are damaged, are passed over.
        """
        found: list[Query] = []
        for name in self._names_opened_first():
            with suppress(ProfileError), self.look_into(name) as profile:
                found += profile.queries("pending")
        return sorted(found, key=lambda query: query.created)

    def close(self) -> None:
        """Close every profile; the store can be used again afterwards."""
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].close()

    def _names_opened_first(self) -> list[str]:
        with self._lock:
            return sorted(self.names(), key=lambda name: self._opened_already(name) is None)

    def _opened_already(self, name: str) -> TasteProfile | None:
        profile = self._opened.get(name) if isinstance(name, str) else None
        return None if profile is None or profile.closed else profile

    def _open(self, name: str, *, create: bool, patience: float = 1.0) -> TasteProfile:
        folder = self.root / check_name(name)
        self._check_spelling(name)
        if not create and not _is_profile(folder):
            raise UnknownProfile(
                f"There is no profile {name!r}: check the name, or rate a first image with it."
            )
        return TasteProfile(name, folder, patience=patience)

    def _check_spelling(self, name: str) -> None:
        """Refuse a name that Windows and macOS would take for that of another profile."""
        others = [entry.name for entry in self.root.iterdir()] if self.root.is_dir() else []
        for other in others:
            if other != name and other.lower() == name.lower():
                raise InvalidName(
                    f"{name!r} differs from the profile {other!r} in capital letters only, which "
                    "not every system tells apart: use that name, or a more different one."
                )


def _is_profile(folder: Path) -> bool:
    try:
        check_name(folder.name)
    except InvalidName:
        return False
    return (folder / DATABASE).is_file()
