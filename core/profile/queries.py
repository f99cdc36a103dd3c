"""The questions of a profile and their answers."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sqlalchemy import ColumnElement, Row, func, select
from torch import Tensor

from . import database as db
from . import files
from .answers import SOURCES, check_answer, check_kinds, labels_in
from .folder import ProfileFolder, plain_json
from .types import AnswerConflict, Candidate, ProfileError, Query, UnknownQuery

STATES = ("pending", "answered", "used", "skipped")
RATINGS = select(func.coalesce(func.sum(db.queries.c.labels), 0))
ROUNDS = select(func.count()).where(db.queries.c.state.in_(("answered", "used")))
CLOSED = select(func.count()).where(db.queries.c.state != "pending")
ACTIVE = select(db.active.c.revision)
_TENSORS = "candidates.safetensors"
_ID = re.compile(r"[0-9a-f]{32}")


class QueryLog(ProfileFolder):
    """Asking, answering and reading back; every method may be called from any thread."""

    def ask(
        self,
        images: Tensor,
        tensors: dict[str, Tensor],
        prompts: Sequence[str],
        *,
        kinds: Sequence[str] = ("pick", "rate", "skip"),
        plan: dict[str, Any] | None = None,
        generator: torch.Generator,
    ) -> Query:
        """Put a question: K images, with what training needs to know of them.

        ``images`` (K, H, W, 3) are floats in [0, 1]; ``tensors`` (latents, conditioning) are kept
        as they are; ``prompts`` holds K strings; ``generator`` shuffles the order to show, and
        advances in every case. The same images and tensors are never asked twice: the query that
        has them is returned, whatever its state. With one image the comparing kinds are left out.
        Raises ProfileError for images, tensors, prompts or kinds that make no question.
        """
        pixels = files.to_pixels(images)
        prompts = _checked_prompts(prompts, len(pixels))
        usable = check_kinds(kinds, len(pixels))
        plan = None if plan is None else plain_json(plan, "the plan of a question")
        content = files.pack_tensors(tensors)
        order = torch.randperm(len(pixels), generator=generator, device=generator.device)
        digest = files.digest(repr(pixels.shape).encode(), pixels.tobytes(), content)
        with self._filing:
            known = self._find(db.queries.c.digest == digest)
            if known is not None:
                return known
            query_id = self._write_candidates(pixels, content)
            row = {
                "id": query_id,
                "digest": digest,
                "state": "pending",
                "kinds": usable,
                "display_order": order.tolist(),
                "prompts": prompts,
                "plan": plan,
                "created": time.time(),
            }
            with self._database.write() as connection:
                row["round"] = connection.execute(ROUNDS).scalar_one() + 1
                row["asked_revision"] = connection.execute(ACTIVE).scalar_one()
                connection.execute(db.queries.insert().values(row))
        return self.query(query_id)

    def query(self, id: str) -> Query:
        """Return the query of that id; raises UnknownQuery."""
        found = None
        if isinstance(id, str) and _ID.fullmatch(id):
            found = self._find(db.queries.c.id == id)
        if found is None:
            raise UnknownQuery(
                f"The profile {self.name!r} has no such question. It may belong to another "
                "profile: reload the panel to see what is pending."
            )
        return found

    def queries(self, state: str | None = None) -> list[Query]:
        """Return the queries, or those in one state, oldest first."""
        if state is None:
            return self._select()
        if state not in STATES:
            raise ProfileError(f"Unknown state {state!r}: use one of {', '.join(STATES)}.")
        return self._select(db.queries.c.state == state)

    def waiting(self) -> list[Query]:
        """Return the answered queries, skips aside, that no revision has used yet, oldest first."""
        return self.queries("answered")

    def tensor(self, id: str, name: str) -> Tensor | None:
        """Return one of the tensors given to ``ask``, on the CPU, without reading the others.

        None if there was none of that name. Raises as ``tensors`` does.
        """
        path = self._queries / self.query(id).id / _TENSORS
        try:
            return files.read_tensors(path, [name])[0].get(name)
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def tensors(self, id: str) -> dict[str, Tensor]:
        """Return the tensors given to ``ask``, on the CPU.

        Raises UnknownQuery, and ProfileError if their file is damaged or gone.
        """
        path = self._queries / self.query(id).id / _TENSORS
        try:
            return files.unpack_tensors(path.read_bytes())
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def images(self, id: str) -> Tensor:
        """Return the images, by index, as float32 (K, H, W, 3) in [0, 1], rounded to 8 bits.

        Raises UnknownQuery, and ProfileError if a file is damaged or gone.
        """
        candidates = self.query(id).candidates
        images = [self._image(candidate.image) for candidate in candidates]
        with torch.inference_mode(False):  # what is read here may be trained with
            return torch.stack(images)

    def answer(self, id: str, answer: dict[str, Any], *, source: str = "person") -> Query:
        """Record the answer to a query; it is on the disk when this returns.

        ``source`` is "person" or "simulated". The same answer again changes nothing. Raises
        UnknownQuery, InvalidAnswer, and AnswerConflict when another answer is on record.
        """
        if source not in SOURCES:
            raise ProfileError(f"Unknown source {source!r}: use one of {', '.join(SOURCES)}.")
        asked = self.query(id)
        checked = check_answer(answer, asked.kinds, len(asked.candidates))
        record = {
            "state": "skipped" if checked["kind"] == "skip" else "answered",
            "answer": checked,
            "answered": time.time(),
            "source": source,
            "labels": labels_in(checked, len(asked.candidates)),
        }
        pending = (db.queries.c.id == id) & (db.queries.c.state == "pending")
        update = db.queries.update().where(pending).values(record)
        with self._database.write() as connection:
            recorded = connection.execute(update).rowcount
        now = self.query(id)
        if not recorded and now.answer != checked:
            raise AnswerConflict(
                "This question has another answer already, and that one stays. Reload the panel "
                "to see it; to undo what was learnt from it, go back to an earlier revision."
            )
        return now

    @property
    def ratings(self) -> int:
        """Individual ratings given: K for a pick or a ranking, one for each rated image."""
        return self._scalar(RATINGS)

    @property
    def rounds(self) -> int:
        """Queries answered so far, skips aside."""
        return self._scalar(ROUNDS)

    @property
    def closed_queries(self) -> int:
        """Queries that ask no more: answered or skipped. It only ever rises."""
        return self._scalar(CLOSED)

    def _write_candidates(self, pixels: np.ndarray, tensors: bytes) -> str:
        query_id = uuid.uuid4().hex
        folder = self._queries / query_id
        content = {f"{i}.png": files.encode_png(image) for i, image in enumerate(pixels)}
        with files.disk_errors(f"Keeping the images of a question of {self.name!r}", folder):
            files.write_folder(folder, {**content, _TENSORS: tensors})
        return query_id

    def _find(self, condition: ColumnElement[bool]) -> Query | None:
        found = self._select(condition)
        return found[0] if found else None

    def _select(self, *conditions: ColumnElement[bool]) -> list[Query]:
        statement = db.queries.select().where(*conditions).order_by(db.queries.c.sequence)
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return [self._query_from(row) for row in rows]

    def _query_from(self, row: Row[Any]) -> Query:
        folder = self._queries / row.id
        return Query(
            id=row.id,
            profile=self.name,
            round=row.round,
            state=row.state,
            kinds=tuple(row.kinds),
            order=tuple(row.display_order),
            candidates=tuple(
                Candidate(i, folder / f"{i}.png", prompt) for i, prompt in enumerate(row.prompts)
            ),
            created=row.created,
            answered=row.answered,
            answer=row.answer,
            source=row.source,
            used_by=row.used_by,
            asked_revision=row.asked_revision,
            plan=row.plan,
        )

    def _image(self, path: Path) -> Tensor:
        try:
            return files.decode_png(path.read_bytes())
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, error: Exception) -> ProfileError:
        return ProfileError(
            f"A question of the profile {self.name!r} cannot be read: {path} is damaged or gone "
            f"({error}). Put it back from a backup, or skip the question; its answer, if it has "
            "one, is safe."
        )


def _checked_prompts(prompts: Sequence[str], count: int) -> list[str]:
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ProfileError("The prompts of a question are a list of texts, one an image.")
    if len(prompts) != count:
        raise ProfileError(
            f"A question of {count} images needs {count} prompts, not {len(prompts)}: connect the "
            "prompts that made these images."
        )
    return list(prompts)
