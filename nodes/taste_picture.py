"""A taste on one page: how it grew, the words that matter, and what its revisions draw."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from ..core.profile import TasteProfile
from ..core.words.learnt import WordEffect, word_effects
from ..core.words.lexicon import kept_lexicon
from ..core.words.utility import utility_in
from .plots import DIM, FAINT, GREEN, INK, RED, Axes, Figure
from .update_picture import drift_curve, drifts

WIDTH, MARGIN, GAP = 960, 28, 24
HEAD, PLOTS, ROW = 84, 250, 24  # heights
WORDS, STATIONS, SEEDS = 10, 7, 2  # at most so many words, revisions and pictures of each


def taste_picture(profile: TasteProfile) -> Tensor:
    """Drift along the revisions, likes by round, the words that matter most with their
    uncertainty, and previews from the base model to the active revision: (1, H, 960, 3)."""
    active, words = profile.active.number, top_words(profile)
    line = timeline(profile, active)
    side = (WIDTH - 2 * MARGIN - (STATIONS - 1) * 8) / STATIONS
    seeds = min(SEEDS, max((len(files) for _, files in line), default=0))
    below = HEAD + PLOTS + (50 + ROW * len(words) if words else 0)
    figure = Figure(WIDTH, round(below + (44 + seeds * (side + 8) if line else 0)) + MARGIN)
    figure.text((MARGIN, 32), profile.name, 22)
    figure.text((MARGIN, 60), _summary(profile), 13, DIM)
    middle = WIDTH / 2
    drift_curve(figure, (MARGIN, HEAD, middle - GAP / 2, HEAD + PLOTS), profile, active)
    _likes(figure, (middle + GAP / 2, HEAD, WIDTH - MARGIN, HEAD + PLOTS), profile)
    if words:
        _words(figure, HEAD + PLOTS + 20, words)
    for i, (number, files) in enumerate(line):
        left = MARGIN + i * (side + 8)
        name = "base model" if number == 0 else f"revision {number}"
        figure.text((left, below + 24), name, 12, INK if number == active else DIM)
        for seed, file in enumerate(files[:seeds]):
            with Image.open(file) as picture:
                figure.paste(picture, left, below + 38 + seed * (side + 8), int(side))
    return figure.tensor()


def likes_by_round(profile: TasteProfile) -> list[tuple[int, float]]:
    """(round, share of likes among the rated images) of the answers that rate each image."""
    found = []
    for query in profile.queries():
        if query.answer is not None and query.answer["kind"] == "rate":
            rated = [rating for rating in query.answer["ratings"] if rating]
            if rated:
                found.append((query.round, sum(r > 0 for r in rated) / len(rated)))
    return sorted(found)


def top_words(profile: TasteProfile) -> list[WordEffect]:
    """The words that matter most, those liked most first; none without a vocabulary or answers."""
    lexicon = kept_lexicon(profile)
    utility = None if lexicon is None else utility_in(profile, lexicon)
    if lexicon is None or utility is None or not utility.questions:
        return []
    return sorted(word_effects(lexicon, utility)[:WORDS], key=lambda word: -word.effect)


def timeline(profile: TasteProfile, revision: int) -> list[tuple[int, list[Path]]]:
    """(revision, previews) from the base model to ``revision``: at most `STATIONS` of its
    ancestors that have previews, evenly, the first and the last among them."""
    drawn = [(n, files) for n, _ in drifts(profile, revision) if (files := profile.previews(n))]
    if len(drawn) <= STATIONS:
        return drawn
    last = len(drawn) - 1
    return [drawn[round(i * last / (STATIONS - 1))] for i in range(STATIONS)]


def _summary(profile: TasteProfile) -> str:
    made = len(profile.revisions()) - 1
    return (
        f"{profile.ratings} ratings in {profile.rounds} rounds; revision {profile.active.number} "
        f"of {made} is in use"
    )


def _likes(figure: Figure, place: tuple[float, float, float, float], profile: TasteProfile) -> None:
    shares = likes_by_round(profile)
    rounds = [number for number, _ in shares]
    axes = Axes(
        figure, place, "Share of likes among rated images", (1, max([2, *rounds])), (0.0, 1.0),
        x_name="round",
    )  # fmt: skip
    axes.line(rounds, [share for _, share in shares], GREEN)
    if not shares:
        axes.note("no image was liked or disliked one by one")


def _words(figure: Figure, top: float, words: list[WordEffect]) -> None:
    """One bar a word from the middle line, to the right if it is liked; thin: its uncertainty."""
    figure.text((MARGIN, top + 8), "Words that matter (nats against the slot's average)", 14)
    reach = max(abs(word.effect) + word.std for word in words) or 1.0
    middle, half = WIDTH * 0.6, WIDTH * 0.4 - MARGIN
    for i, word in enumerate(words):
        y = top + 36 + i * ROW
        end = middle + word.effect / reach * half
        colour = GREEN if word.effect > 0 else RED
        figure.box(min(middle, end), y - 6, max(middle, end), y + 6, colour)
        spread = word.std / reach * half
        figure.line([(end - spread, y), (end + spread, y)], INK, 1)
        figure.text((MARGIN, y), f"{word.slot}: {word.word}"[:36], 13)
    bottom = top + 36 + (len(words) - 1) * ROW + 10
    figure.line([(middle, top + 26), (middle, bottom)], FAINT, 1)
