"""The procedural studio: its images show what their prompts say."""

from __future__ import annotations

import colorsys
import dataclasses
import itertools

import numpy as np
import pytest
from palate.starter.draw import HUES, draw
from palate.starter.vocabulary import (
    COMPOSITIONS,
    LIGHTINGS,
    PALETTES,
    SLOTS,
    SUBJECTS,
    TEXTURES,
    Prompt,
)

PLAIN = Prompt("house", "emerald", "plain", "in the centre", "at noon")


def drawn(prompt: Prompt, seeds: int = 12, size: int = 32) -> np.ndarray:
    """(seeds, size, size, 3) in [0, 1]; the same seeds for every prompt."""
    images = [draw(prompt, np.random.default_rng(seed), size) for seed in range(seeds)]
    return np.stack(images).astype(np.float64) / 255


def luma(images: np.ndarray) -> np.ndarray:
    return images @ np.array([0.299, 0.587, 0.114])


def roughness(images: np.ndarray) -> float:
    grey = luma(images)
    return float(np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=2)).mean())


def test_every_prompt_can_be_drawn() -> None:
    """Every subject with every choice of every other slot, and with all of them left open."""
    prompts = [Prompt(subject) for subject in SUBJECTS]
    for subject, (slot, choices) in itertools.product(SUBJECTS, list(SLOTS.items())[1:]):
        prompts += [dataclasses.replace(PLAIN, subject=subject, **{slot: c}) for c in choices]
    for seed, prompt in enumerate(prompts):
        image = draw(prompt, np.random.default_rng(seed), size=20)
        assert image.shape == (20, 20, 3)
        assert image.dtype == np.uint8
        assert image.std() > 2, f"{prompt} is a blank image"


@pytest.mark.parametrize("size", [8, 33, 64, 128])
@pytest.mark.parametrize("texture", ["mosaic", "dotted"])
def test_any_size_can_be_drawn(size: int, texture: str) -> None:
    prompt = dataclasses.replace(PLAIN, texture=texture)
    assert draw(prompt, np.random.default_rng(0), size).shape == (size, size, 3)


def test_an_image_depends_on_its_prompt_and_generator_alone() -> None:
    for prompt in (PLAIN, Prompt("tree"), Prompt("fish", texture="mosaic")):
        np.random.seed(0)
        first = draw(prompt, np.random.default_rng(3))
        np.random.seed(1)
        assert np.array_equal(draw(prompt, np.random.default_rng(3)), first)


def test_one_prompt_has_many_faces() -> None:
    for prompt in (PLAIN, Prompt("cat")):
        images = drawn(prompt, seeds=6)
        for first, second in itertools.combinations(images, 2):
            assert np.abs(first - second).mean() > 0.02


def test_subjects_differ_from_each_other_in_shape() -> None:
    """At one seed only the subject changes, so the pictures differ where the subject is."""
    faces = {s: drawn(dataclasses.replace(PLAIN, subject=s), seeds=1)[0] for s in SUBJECTS}
    for first, second in itertools.combinations(SUBJECTS, 2):
        assert np.abs(faces[first] - faces[second]).mean() > 0.01, (first, second)


def mean_luma(lighting: str) -> float:
    return float(luma(drawn(dataclasses.replace(PLAIN, lighting=lighting))).mean())


def test_lighting_orders_brightness_as_its_words_do() -> None:
    level = {lighting: mean_luma(lighting) for lighting in LIGHTINGS}
    assert level["at night"] < level["at sunset"] < level["at noon"]
    assert level["under a spotlight"] < 0.6 * level["at noon"]
    assert level["at night"] < 0.6 * level["at noon"]


def test_lighting_colours_the_light() -> None:
    def warmth(lighting: str) -> float:
        images = drawn(dataclasses.replace(PLAIN, lighting=lighting))
        return float((images[..., 0].mean() - images[..., 2].mean()) / images.mean())

    assert warmth("at night") < warmth("at noon") < warmth("at sunset")


def test_fog_takes_contrast_and_a_spotlight_takes_the_corners() -> None:
    fog, noon = (
        luma(drawn(dataclasses.replace(PLAIN, lighting=lighting))).std(axis=(1, 2)).mean()
        for lighting in ("in thick fog", "at noon")
    )
    assert fog < 0.7 * noon
    grey = luma(drawn(dataclasses.replace(PLAIN, lighting="under a spotlight")))
    corners = np.stack([grey[:, :4, :4], grey[:, :4, -4:], grey[:, -4:, :4], grey[:, -4:, -4:]])
    assert corners.mean() < 0.5 * grey[:, 12:20, 12:20].mean()


@pytest.mark.parametrize("palette", PALETTES)
def test_the_palette_is_the_subject_s_hue(palette: str) -> None:
    prompt = Prompt("house", palette, "plain", "seen close up", "at noon")
    body = np.median(drawn(prompt)[:, 20:28, 14:18].reshape(-1, 3), axis=0)
    hue, saturation, _ = colorsys.rgb_to_hsv(*body)
    if palette == "silver":
        assert saturation < 0.2
    else:
        assert saturation > 0.2
        assert abs((hue - HUES[palette] + 0.5) % 1 - 0.5) < 0.06


def subject_mask(composition: str) -> np.ndarray:
    """Where an image changes with the subject's colour: (seeds, size, size)."""
    prompt = dataclasses.replace(PLAIN, composition=composition)
    green = drawn(prompt)
    red = drawn(dataclasses.replace(prompt, palette="crimson"))
    return np.abs(green - red).sum(-1) > 0.3


def test_composition_places_the_subject() -> None:
    masks = {composition: subject_mask(composition) for composition in COMPOSITIONS}
    area = {name: mask.mean() for name, mask in masks.items()}
    assert area["far away"] < 0.5 * area["in the centre"] < 0.5 * area["seen close up"]
    centre = {
        name: (mask.sum((0, 1)) * (np.arange(32) + 0.5)).sum() / mask.sum() / 32
        for name, mask in masks.items()
    }
    assert centre["on the left"] < 0.4
    assert centre["on the right"] > 0.6
    assert 0.4 < centre["in the centre"] < 0.6
    columns = masks["as a pair"].mean((0, 1))
    middle = columns[15:17].mean()
    assert columns[4:12].mean() > 3 * middle
    assert columns[20:28].mean() > 3 * middle


def test_textures_roughen_a_plain_subject() -> None:
    close = dataclasses.replace(PLAIN, composition="seen close up")
    rough = {t: roughness(drawn(dataclasses.replace(close, texture=t), size=64)) for t in TEXTURES}
    for texture in ("striped", "dotted", "checkered", "mosaic"):
        assert rough[texture] > 1.1 * rough["plain"], texture


def test_mosaic_tiles_are_of_one_colour() -> None:
    prompt = dataclasses.replace(PLAIN, texture="mosaic")
    image = draw(prompt, np.random.default_rng(0), size=60).astype(int)
    tiles = image.reshape(20, 3, 20, 3, 3)[:, :2, :, :2]
    assert np.abs(tiles - tiles[:, :1, :, :1]).max() <= 1
