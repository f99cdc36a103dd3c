"""The adapter revisions of a profile: immutable, in a tree, one of them active."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select
from torch import Tensor

from . import database as db
from . import files
from .folder import plain_json
from .queries import ACTIVE, RATINGS, QueryLog
from .types import ProfileError, Revision, UnknownRevision

_NEWEST = select(func.max(db.revisions.c.number))
_PARTS = ("adapter.", "optimizer.")


class RevisionLog(QueryLog):
    """Committing, loading and going back; every method may be called from any thread."""

    @property
    def active(self) -> Revision:
        """The revision in use."""
        return self._select_revisions(db.revisions.c.number == ACTIVE.scalar_subquery())[0]

    def revisions(self) -> list[Revision]:
        """Return every revision by number; the first is 0, the bare base model."""
        return self._select_revisions()

    def commit_revision(
        self,
        adapter: dict[str, Tensor],
        optimizer: dict[str, Tensor],
        *,
        used: Sequence[str],
        report: dict[str, Any],
        metadata: dict[str, str],
        parent: int | None = None,
    ) -> Revision:
        """Keep a trained adapter with its optimizer state as a new revision, and make it active.

        ``used`` are the ids of the answered queries it was trained with; they become used by it,
        also those that an earlier revision had used. ``report`` is JSON, in which NaN becomes null;
        ``metadata`` goes into the file's header too. ``parent`` is the revision that training began
        from, the active one unless given. Raises UnknownQuery, UnknownRevision, and ProfileError
        for a query that is pending or skipped; then nothing was written.
        """
        content = _packed(adapter, optimizer, metadata)
        report = plain_json(report, "the report of a revision", finite=False)
        self._check_influence(used)
        with self._filing:
            origin = self.active if parent is None else self._revision(parent)
            number = self._scalar(_NEWEST) + 1
            path = self._revision_path(number)
            with files.disk_errors(f"Keeping revision {number} of {self.name!r}", path):
                files.write_file(path, content)
            row = {
                "number": number,
                "parent": origin.number,
                "created": time.time(),
                "report": report,
                "metadata": metadata,
                "sha256": files.digest(content),
            }
            with self._database.write() as connection:
                row["ratings"] = connection.execute(RATINGS).scalar_one()
                connection.execute(db.revisions.insert().values(row))
                connection.execute(db.active.update().values(revision=number))
                use = db.queries.update().values(state="used", used_by=number)
                for query_id in used:
                    connection.execute(use.where(db.queries.c.id == query_id))
        return self._revision(number)

    def load_revision(self, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the adapter's and the optimizer's tensors, on the CPU; two empty dicts for 0.

        Raises UnknownRevision, and ProfileError if the file is damaged or gone.
        """
        path = self._revision(number).path
        if path is None:
            return {}, {}
        with self._database.read() as connection:
            written = select(db.revisions.c.sha256).where(db.revisions.c.number == number)
            expected = connection.execute(written).scalar_one()
        try:
            content = path.read_bytes()
            if files.digest(content) != expected:
                raise ValueError("it is not what was written")
            tensors = files.unpack_tensors(content)
        except (OSError, ValueError) as error:
            raise ProfileError(
                f"Revision {number} of the profile {self.name!r} cannot be read: {path} is damaged "
                f"or gone ({error}). Put the file back from a backup, or make another revision "
                "active; the ratings are all there."
            ) from error
        adapter, optimizer = (
            {name[len(part) :]: tensor for name, tensor in tensors.items() if name.startswith(part)}
            for part in _PARTS
        )
        return adapter, optimizer

    def activate(self, number: int) -> Revision:
        """Make a revision the active one (undo, time travel); nothing is deleted.

        Raises UnknownRevision, and ProfileError if its file is gone.
        """
        revision = self._revision(number)
        if revision.path is not None and not revision.path.is_file():
            raise ProfileError(
                f"Revision {number} of the profile {self.name!r} cannot be used: {revision.path} "
                "is gone. Put it back from a backup, or pick another revision."
            )
        with self._database.write() as connection:
            connection.execute(db.active.update().values(revision=number))
        return revision

    def _revision(self, number: int) -> Revision:
        found = []
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**31:
            found = self._select_revisions(db.revisions.c.number == number)
        if not found:
            raise UnknownRevision(
                f"The profile {self.name!r} has no such revision: it has 0 (the base model) to "
                f"{self._scalar(_NEWEST)}. Pick one of them."
            )
        return found[0]

    def _select_revisions(self, *conditions: ColumnElement[bool]) -> list[Revision]:
        statement = db.revisions.select().where(*conditions).order_by(db.revisions.c.number)
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return [self._revision_from(row) for row in rows]

    def _revision_from(self, row: Row[Any]) -> Revision:
        return Revision(
            number=row.number,
            parent=row.parent,
            created=row.created,
            ratings=row.ratings,
            report=row.report,
            metadata=row.metadata,
            path=self._revision_path(row.number) if row.number else None,
        )

    def _check_influence(self, used: Sequence[str]) -> None:
        for query_id in used:
            state = self.query(query_id).state
            if state not in ("answered", "used"):
                raise ProfileError(
                    f"A revision cannot be trained with the question {query_id}: it is {state}. "
                    "Use answered questions only."
                )


def _packed(
    adapter: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> bytes:
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise ProfileError("The metadata of a revision is text only: names and values.")
    tensors = {
        part + name: tensor
        for part, named in zip(_PARTS, (adapter, optimizer), strict=True)
        for name, tensor in named.items()
    }
    return files.pack_tensors(tensors, metadata)
