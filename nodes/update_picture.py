"""An update as a picture: its loss, the drift so far, and what it changed at fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..core.papa import PARTS
from ..core.profile import TasteProfile
from .plots import BLUE, DIM, GREEN, INK, ORANGE, RED, Axes, Figure

WIDTH, MARGIN, GAP = 960, 28, 24
HEAD, PLOTS = 84, 250  # heights
FAR = 4  # a limit so many times the drift is told, not drawn: the curve would lie flat
LEGEND = list(zip(("likes", "dislikes", "base"), PARTS, (GREEN, RED, BLUE), strict=True))


@dataclass(frozen=True)
class Shown:
    """What a revision draws, under a heading."""

    heading: str
    files: list[Path]


def update_picture(
    profile: TasteProfile,
    revision: int,
    said: str,
    parts: Sequence[Sequence[float]],
    limit: float | None,
) -> Tensor:
    """The loss parts of the last update's steps, the drift from revision to revision up to
    ``revision`` with its limit, and previews before and after: an image (1, H, 960, 3)."""
    shown = shown_before_and_after(profile, revision)
    height = HEAD + PLOTS + (_gallery_height(shown) if shown else 0) + MARGIN
    figure = Figure(WIDTH, height)
    figure.text((MARGIN, 32), f"{profile.name}: revision {revision}", 22)
    figure.text((MARGIN, 60), _fitting(figure, said), 13, DIM)
    middle = WIDTH / 2
    _loss(figure, (MARGIN, HEAD, middle - GAP / 2, HEAD + PLOTS), parts)
    drift_curve(
        figure, (middle + GAP / 2, HEAD, WIDTH - MARGIN, HEAD + PLOTS), profile, revision, limit
    )
    if shown:
        _gallery(figure, HEAD + PLOTS, shown)
    return figure.tensor()


def drifts(profile: TasteProfile, revision: int) -> list[tuple[int, float]]:
    """(revision, drift) from the base model to ``revision``, its ancestors only."""
    known = {each.number: each for each in profile.revisions()}
    line, number = [], revision
    while number:
        drift = known[number].report.get("drift")
        line.append((number, math.nan if drift is None else float(drift)))
        number = known[number].parent or 0
    return [(0, 0.0), *reversed(line)]


def shown_before_and_after(profile: TasteProfile, revision: int) -> list[Shown]:
    """Those of the base model, of the parent and of the revision that have previews."""
    parent = next(r.parent for r in profile.revisions() if r.number == revision) or 0
    headings = {0: "base model", parent: f"before, revision {parent}", revision: "now"}
    headings[0] = "base model"
    found = [Shown(headings[n], profile.previews(n)) for n in sorted(headings)]
    return [shown for shown in found if shown.files]


def _loss(
    figure: Figure, place: tuple[float, float, float, float], parts: Sequence[Sequence[float]]
) -> None:
    steps = list(range(1, len(parts) + 1))
    values = [value for step in parts for value in step if math.isfinite(value)]
    low, high = min([0.0, *values]), max([0.0, *values])
    if low == high:
        high = 1.0
    axes = Axes(
        figure, place, "Loss by step", (1, max(2, len(parts))), (low, high), x_name="optimiser step"
    )
    for i, (_, _, colour) in enumerate(LEGEND):
        axes.line(steps, [step[i] for step in parts], colour)
    if not parts:
        axes.note("nothing was learnt in this run")
    names = [(f"{what} ({part})", colour) for what, part, colour in LEGEND]
    axes.legend(names, place[1] + 8)


def drift_curve(
    figure: Figure,
    place: tuple[float, float, float, float],
    profile: TasteProfile,
    revision: int,
    limit: float | None = None,
) -> None:
    """The drift from the base model to ``revision``, with its limit if that is near."""
    line = drifts(profile, revision)
    numbers, values = [number for number, _ in line], [drift for _, drift in line]
    top, title = max(v for v in values if math.isfinite(v)), "Drift from the base model"
    near = limit is not None and (limit <= FAR * top or top == 0)
    if limit is not None and near:
        top = max(top, limit)
    elif limit is not None:
        title += f" (limit {limit:g})"
    axes = Axes(
        figure, place, title, (0, max(1, *numbers)), (0.0, top or 1.0), x_name="revision"
    )  # fmt: skip
    if limit is not None and near:
        axes.level(limit, f"limit {limit:g}")
    axes.line(numbers, values, ORANGE)


def _columns(count: int) -> int:
    return 1 if count == 1 else 2 if count <= 4 else 4


def _side(shown: Sequence[Shown]) -> tuple[float, int, int]:
    """Width of a block, columns in it and the side of a picture."""
    width = (WIDTH - 2 * MARGIN - 2 * GAP) / 3
    columns = max(_columns(len(block.files)) for block in shown)
    return width, columns, int((width - (columns - 1) * 6) / columns)


def _gallery_height(shown: Sequence[Shown]) -> int:
    _, columns, side = _side(shown)
    rows = max(math.ceil(len(block.files) / columns) for block in shown)
    return 40 + rows * (side + 6)


def _gallery(figure: Figure, top: float, shown: Sequence[Shown]) -> None:
    width, columns, side = _side(shown)
    for i, block in enumerate(shown):
        left = MARGIN + i * (width + GAP)
        figure.text((left, top + 20), block.heading, 14, INK)
        for k, file in enumerate(block.files):
            row, column = divmod(k, columns)
            place = (left + column * (side + 6), top + 38 + row * (side + 6))
            with Image.open(file) as picture:
                figure.paste(picture, *place, side)


def _fitting(figure: Figure, text: str) -> str:
    """``text``, cut where the page ends."""
    text = text.replace("→", "to")
    while figure.width_of(text) > WIDTH - 2 * MARGIN:
        text = text[: -len(text) // 20 - 4].rstrip() + "..."
    return text
