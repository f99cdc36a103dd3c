"""What there is to learn: rated images, fresh and remembered, as PAPA takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..core.papa import RatedSamples, graded_labels
from ..core.profile import Query
from . import host

REMEMBERED = 96  # earlier rated images that replay may draw from


class Rated(NamedTuple):
    """One rated image, and the query in which it was rated."""

    latent: torch.Tensor
    label: torch.Tensor
    query: str
    conditioning: list


@dataclass(frozen=True)
class Lesson:
    """Freshly rated images of one size, and the queries that they come from."""

    queries: list[Query] = field(default_factory=list)
    images: list[Rated] = field(default_factory=list)


def lessons_of(taste: host.Taste, fresh: list[Query]) -> list[Lesson]:
    """One lesson for each size of image. Answers without influence go along with another's."""
    lessons: dict[torch.Size, Lesson] = {}
    neutral: list[Query] = []
    for query in fresh:
        images = _rated_images(taste, query)
        if images:
            lesson = lessons.setdefault(images[0].latent.shape, Lesson())
            lesson.queries.append(query)
            lesson.images.extend(images)
        else:
            neutral.append(query)
    for lesson in list(lessons.values())[:1]:
        lesson.queries.extend(neutral)
    return list(lessons.values())


def remembered(taste: host.Taste, lesson: Lesson) -> list[Rated]:
    """The latest earlier images of the lesson's size, about `REMEMBERED` of them."""
    shape, found = lesson.images[0].latent.shape, []
    for query in reversed(taste.profile.queries("used")):
        same = [image for image in _rated_images(taste, query) if image.latent.shape == shape]
        found = same + found
        if len(found) >= REMEMBERED:
            break
    return found


def samples_of(
    model: Any, earlier: list[Rated], fresh: list[Rated]
) -> tuple[RatedSamples, list[list]]:
    """What papa_update learns from, in the network's space, and each sample's conditioning."""
    images = [*earlier, *fresh]
    numbers = {query: i for i, query in enumerate(dict.fromkeys(image.query for image in images))}
    samples = RatedSamples(
        host.latent_in(model, torch.stack([image.latent for image in images])),
        torch.stack([image.label for image in images]),
        fresh=len(fresh),
        groups=torch.tensor([numbers[image.query] for image in images]),
    )
    return samples, [image.conditioning for image in images]


def rated_indices(query: Query) -> list[int]:
    """The images of an answered query that have influence."""
    assert query.answer is not None
    labels = graded_labels(query.answer, len(query.candidates))
    return [int(i) for i in torch.nonzero(labels.abs() > 0).flatten()]


def _rated_images(taste: host.Taste, query: Query) -> list[Rated]:
    assert query.answer is not None
    tensors = taste.profile.tensors(query.id)
    labels = graded_labels(query.answer, len(query.candidates))
    return [
        Rated(tensors["latents"][i], labels[i], query.id, host.unpack_conditioning(tensors, i))
        for i in rated_indices(query)
    ]
