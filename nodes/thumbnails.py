"""What a revision looks like: its previews, or the image that was liked best when it learnt.

Needs core only. The addresses are those of nodes/routes.py; no part of a path comes from one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from ..core.papa.labels import graded_labels
from ..core.profile import Query, TasteProfile


class Thumbnails:
    """Finds the pictures of revisions, and remembers those found: previews never change."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, float], list[str]] = {}

    def with_pictures(
        self, profile: TasteProfile, revisions: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The revisions of `TasteProfile.summary`, each with the addresses of its pictures.

        ``previews`` are in the order of their seeds; ``thumbnail`` is the first of them, or else
        the best rated image that the revision learnt from, or None.
        """
        previews = [self._previews(profile, line) for line in revisions]
        liked = {} if all(previews) else _best_liked(profile.queries("used"))
        return [
            {
                **line,
                "previews": urls,
                "thumbnail": urls[0] if urls else liked.get(line["revision"]),
            }
            for line, urls in zip(revisions, previews, strict=True)
        ]

    def _previews(self, profile: TasteProfile, line: dict[str, Any]) -> list[str]:
        key = (profile.name, line["revision"], line["created"])
        if key not in self._found:
            urls = _preview_urls(profile, line["revision"], line["created"])
            if not urls:  # they may still be drawn
                return []
            self._found[key] = urls
        return self._found[key]


def preview_file(profile: TasteProfile, revision: int, index: int) -> Path | None:
    """The preview at one seed, None if there is none; raises UnknownRevision."""
    files = profile.previews(revision)
    return files[index] if index < len(files) else None


def image_url(query: Query, index: int) -> str:
    """The address of one image of a question."""
    return f"/palate/queries/{query.id}/image/{index}"


def _preview_urls(profile: TasteProfile, revision: int, created: float) -> list[str]:
    """A browser keeps what it has loaded: another taste of the same name has other addresses."""
    place = f"/palate/profiles/{quote(profile.name)}/revisions/{revision}/preview"
    count = len(profile.previews(revision))
    return [f"{place}/{index}?v={created:.6f}" for index in range(count)]


def _best_liked(used: list[Query]) -> dict[int, str]:
    """The image that was liked best among those that each revision learnt from, if any was."""
    best: dict[int, tuple[float, str]] = {}
    for query in used:
        assert query.answer is not None
        assert query.used_by is not None
        labels = torch.nan_to_num(graded_labels(query.answer, len(query.candidates)))
        index = int(labels.argmax())
        if float(labels[index]) > best.get(query.used_by, (0.0, ""))[0]:
            best[query.used_by] = float(labels[index]), image_url(query, index)
    return {revision: url for revision, (_, url) in best.items()}
