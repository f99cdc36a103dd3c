"""A profile's folder: opened by one process at a time, tidied after a crash, closed again."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Select, func, select
from sqlalchemy.engine import URL
from torch import Tensor

from . import database as db
from . import files
from .types import ProfileBusy, ProfileError

DATABASE = "profile.sqlite"
_LOCK = "profile.lock"
_QUERY_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]{6,}")
_FILE = re.compile(r"[a-z][a-z_]{0,31}")
_SETTING = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NEWEST = select(func.max(db.revisions.c.number))


class ProfileFolder:
    """``profile.sqlite``, ``profile.lock``, ``queries/<id>/``, ``revisions/000001.safetensors`` and
    ``previews/000001/``.

    The database is what counts: files are written before the row that lists them, so a file
    without a row is a crash's leftover, and a row without its file cannot come from a crash.
    """

    def __init__(self, name: str, folder: Path, *, patience: float = 1.0) -> None:
        """Open the profile in ``folder``, making what is missing.

        Waits ``patience`` seconds for another process to let go of it, then raises ProfileBusy.
        Raises ProfileError if the folder cannot be used or its database is lost or damaged.
        """
        self.name = name
        self.folder = folder
        self._queries = folder / "queries"
        self._revisions = folder / "revisions"
        self._previews = folder / "previews"
        url = URL.create("sqlite", database=str(folder / DATABASE))
        self._database = db.Database(url, name)
        self._filing = threading.RLock()  # one new query or revision at a time
        with files.disk_errors(f"Opening the profile {name!r}", folder):
            files.make_folder(folder)
            self._lock = FileLock(folder / _LOCK, thread_local=False)
            self._take_lock(patience)
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    @property
    def closed(self) -> bool:
        """Whether the profile was closed; every other call then raises ProfileError."""
        return self._database.closed

    def close(self) -> None:
        """Finish what is being written, then let another process open the profile."""
        with self._filing:
            self._database.close()
            self._lock.release()

    @property
    def settings(self) -> dict[str, Any]:
        """The small JSON values kept with the profile, by key."""
        with self._database.read() as connection:
            rows = connection.execute(db.settings.select().order_by(db.settings.c.key)).all()
        return {row.key: row.value for row in rows}

    def set_setting(self, key: str, value: Any) -> None:
        """Keep a JSON value under a key of 1 to 64 letters, digits, ``_ . -``."""
        if not isinstance(key, str) or not _SETTING.fullmatch(key):
            raise ProfileError(f"{key!a} cannot name a setting: use letters, digits, '_.-'.")
        value = plain_json(value, f"the setting {key!r}")
        with self._database.write() as connection:
            update = db.settings.update().where(db.settings.c.key == key).values(value=value)
            if not connection.execute(update).rowcount:
                connection.execute(db.settings.insert().values(key=key, value=value))

    def keep(self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Keep tensors with the profile as ``name``.safetensors, in place of those kept before."""
        content = files.pack_tensors(tensors, metadata)
        path = self._kept_path(name)
        with self._filing, files.disk_errors(f"Keeping {name} of {self.name!r}", path):
            files.write_file(path, content)

    def kept(
        self, name: str, only: Sequence[str] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Return what `keep` was given last under that name, on the CPU, or None.

        ``only`` names the tensors to read. A damaged file counts as none: what is kept here can be
        made again from the ratings log.
        """
        try:
            return files.read_tensors(self._kept_path(name), only)
        except (OSError, ValueError):
            return None

    def _kept_path(self, name: str) -> Path:
        if not _FILE.fullmatch(name):
            raise ProfileError(f"{name!a} cannot name a file of a profile: use small letters.")
        return self.folder / f"{name}.safetensors"

    def _scalar(self, statement: Select[Any]) -> int:
        with self._database.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def _revision_path(self, number: int) -> Path:
        return self._revisions / f"{number:06d}.safetensors"

    def _preview_path(self, number: int) -> Path:
        return self._previews / f"{number:06d}"

    def _take_lock(self, patience: float) -> None:
        try:
            self._lock.acquire(timeout=patience)
        except Timeout as error:
            raise ProfileBusy(
                f"The profile {self.name!r} is open in another ComfyUI. Close the other ComfyUI, "
                "or pick another profile name here."
            ) from error

    def _prepare(self) -> None:
        if self._database.is_new():
            if any(place.is_dir() and any(place.iterdir()) for place in self._places()):
                raise ProfileError(
                    f"The database {DATABASE} of the profile {self.name!r} is lost, but its images "
                    f"and revisions are still in {self.folder}. Put {DATABASE} back from a backup, "
                    "or move that folder away to begin anew."
                )
            self._database.create()
        for place in self._places():
            files.make_folder(place)
        files.sync_folder(self.folder)
        self._remove_leftovers()

    def _places(self) -> tuple[Path, ...]:
        return self._queries, self._revisions, self._previews

    def _remove_leftovers(self) -> None:
        with self._database.read() as connection:
            listed = set(connection.execute(select(db.queries.c.id)).scalars())
            numbers = connection.execute(select(db.revisions.c.number)).scalars()
            shown = {self._preview_path(number).name for number in numbers}
        files.remove_leftovers(
            self._queries, lambda name: bool(_QUERY_ID.fullmatch(name)) and name not in listed
        )
        # A crash leaves the next revision at most; a later number means that the database was
        # put back from an older backup, and trained weights are not ours to throw away.
        stray = self._revision_path(self._scalar(_NEWEST) + 1).name
        files.remove_leftovers(self._revisions, lambda name: name == stray)
        # Pictures can be drawn again, and must not be taken for those of a revision to come.
        files.remove_leftovers(
            self._previews, lambda name: bool(_NUMBER.fullmatch(name)) and name not in shown
        )


def plain_json(value: Any, what: str, *, finite: bool = True) -> Any:
    """Return ``value`` as it will be read back: lists for tuples, text for number keys.

    Raises ProfileError for what is not JSON; with ``finite=False`` NaN and infinity become None.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=not finite), parse_constant=lambda _: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise ProfileError(
            f"Cannot keep {what}: {error}. It must be JSON: text, finite numbers, true, false, "
            "null, lists and objects."
        ) from error
