"""The procedural studio: draws the images that the starter model learns from.

Everything is drawn here with Pillow and numpy from a prompt of `vocabulary` and a random generator;
no outside image is used. What the prompt leaves open (background hue, exposure, tilt, amount of
scenery, …) varies from image to image, so one prompt has many faces and a taste has room to choose.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .vocabulary import COMPOSITIONS, EMPTY, LIGHTINGS, PALETTES, TEXTURES, Prompt

SUPERSAMPLE = 3

Colour = tuple[int, int, int]
Point = tuple[float, float]

HUES = {
    "crimson": 0.985, "amber": 0.11, "emerald": 0.38, "turquoise": 0.49,
    "cobalt": 0.61, "violet": 0.76, "rose": 0.92, "silver": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Paint:
    """The colours of one image: three tones of the subject and two of the world behind it."""

    body: Colour
    accent: Colour
    dark: Colour
    sky: Colour
    ground: Colour


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(
        hue % 1.0, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1))
    )
    return int(r * 255), int(g * 255), int(b * 255)


def mix_paint(palette: str, rng: np.random.Generator) -> Paint:
    """The palette names the subject's colour; the world's hue is left to chance."""
    hue = HUES[palette] + rng.normal(0, 0.012)
    saturation, value = rng.uniform(0.72, 0.95), rng.uniform(0.72, 0.95)
    if palette == "silver":
        hue, saturation = rng.uniform(0.5, 0.7), rng.uniform(0.0, 0.08)
    elif palette == "rose":
        saturation, value = rng.uniform(0.3, 0.5), rng.uniform(0.9, 1.0)
    world = rng.uniform()
    world_saturation = rng.uniform(0.1, 0.55)
    return Paint(
        body=_rgb(hue, saturation, value),
        accent=_rgb(hue + rng.normal(0, 0.02), saturation * 0.45, min(1.0, value * 1.25)),
        dark=_rgb(hue, min(1.0, saturation * 1.1), value * 0.45),
        sky=_rgb(world, world_saturation * 0.8, rng.uniform(0.65, 0.98)),
        ground=_rgb(world + rng.normal(0, 0.08), world_saturation, rng.uniform(0.35, 0.7)),
    )


# Subjects ---------------------------------------------------------------------------------------
# Each draws into a unit box: (0, 0) top left, (1, 1) bottom right. `fill` paints what takes the
# texture, `mark` paints details in a colour of its own.

Fill = Callable[[str, list[Point]], None]
Mark = Callable[[str, list[Point], Colour], None]


def _house(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    eaves, ridge = rng.uniform(0.38, 0.5), rng.uniform(0.02, 0.14)
    fill("rectangle", [(0.14, eaves), (0.86, 0.98)])
    mark("polygon", [(0.04, eaves), (0.5, ridge), (0.96, eaves)], paint.dark)
    door = rng.uniform(0.2, 0.62)
    mark("rectangle", [(door, 0.68), (door + 0.18, 0.98)], paint.dark)
    window = door + 0.36 if door < 0.4 else door - 0.34
    mark("rectangle", [(window, 0.6), (window + 0.18, 0.76)], paint.accent)


def _tree(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    mark("rectangle", [(0.43, 0.6), (0.57, 1.0)], (92, 62, 40))
    if rng.random() < 0.5:
        for x, y, r in ((0.5, 0.3, 0.3), (0.28, 0.45, 0.22), (0.72, 0.45, 0.22)):
            fill("ellipse", [(x - r, y - r), (x + r, y + r)])
    else:
        fill("polygon", [(0.5, 0.0), (0.78, 0.36), (0.22, 0.36)])
        fill("polygon", [(0.5, 0.2), (0.88, 0.7), (0.12, 0.7)])


def _mountain(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    peak, side = rng.uniform(0.34, 0.6), rng.uniform(0.4, 0.55)
    fill("polygon", [(0.36, 1.0), (0.78, side), (1.12, 1.0)])
    fill("polygon", [(-0.1, 1.0), (peak, 0.05), (0.95, 1.0)])
    snow = 0.3
    left, right = peak + (-0.1 - peak) * snow, peak + (0.95 - peak) * snow
    y = 0.05 + 0.95 * snow
    mark(
        "polygon",
        [(peak, 0.05), (right, y), (peak + 0.04, y - 0.07), (peak - 0.05, y + 0.04), (left, y)],
        (245, 245, 250),
    )


def _fish(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    plump = rng.uniform(0.2, 0.3)
    mark("polygon", [(0.74, 0.5), (1.0, 0.25), (1.0, 0.75)], paint.dark)
    mark(
        "polygon",
        [(0.35, 0.5 - plump * 0.8), (0.5, 0.5 - plump * 1.6), (0.64, 0.5 - plump * 0.6)],
        paint.dark,
    )
    fill("ellipse", [(0.0, 0.5 - plump), (0.82, 0.5 + plump)])
    mark("ellipse", [(0.13, 0.38), (0.25, 0.5)], (250, 250, 250))
    mark("ellipse", [(0.16, 0.41), (0.22, 0.47)], (15, 15, 20))


def _flower(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    petals, spin = int(rng.integers(5, 8)), rng.uniform(0, 2)
    mark("rectangle", [(0.47, 0.4), (0.53, 1.0)], (60, 130, 60))
    mark("ellipse", [(0.53, 0.7), (0.8, 0.84)], (70, 150, 70))
    for k in range(petals):
        angle = spin + k * 2 * math.pi / petals
        x, y, r = 0.5 + 0.22 * math.cos(angle), 0.33 + 0.22 * math.sin(angle), 0.15
        fill("ellipse", [(x - r, y - r), (x + r, y + r)])
    mark("ellipse", [(0.38, 0.21), (0.62, 0.45)], paint.dark)


def _sailboat(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    mast = rng.uniform(0.45, 0.55)
    mark("polygon", [(0.02, 0.74), (0.98, 0.74), (0.8, 0.98), (0.2, 0.98)], paint.dark)
    mark("rectangle", [(mast - 0.015, 0.02), (mast + 0.015, 0.74)], (80, 60, 45))
    fill("polygon", [(mast + 0.04, 0.03), (mast + 0.04, 0.68), (0.95, 0.68)])
    fill("polygon", [(mast - 0.04, 0.18), (mast - 0.04, 0.68), (0.1, 0.68)])


def _cat(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        fill(
            "polygon",
            [(0.5 + side * 0.4, 0.02), (0.5 + side * 0.42, 0.5), (0.5 + side * 0.06, 0.24)],
        )
    fill("ellipse", [(0.06, 0.16), (0.94, 0.96)])
    squint = rng.uniform(0.07, 0.11)
    for side in (-1, 1):
        x = 0.5 + side * 0.2
        mark("ellipse", [(x - 0.09, 0.5 - squint), (x + 0.09, 0.5 + squint)], (235, 240, 170))
        mark("ellipse", [(x - 0.035, 0.5 - squint), (x + 0.035, 0.5 + squint)], (15, 15, 20))
    mark("polygon", [(0.43, 0.66), (0.57, 0.66), (0.5, 0.75)], paint.dark)


def _star(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    inner, spin = rng.uniform(0.2, 0.25), rng.normal(0, 0.12)
    points = []
    for k in range(10):
        radius = 0.52 if k % 2 == 0 else inner
        angle = spin - math.pi / 2 + k * math.pi / 5
        points.append((0.5 + radius * math.cos(angle), 0.52 + radius * math.sin(angle)))
    fill("polygon", points)


def _mushroom(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    stem = rng.uniform(0.12, 0.18)
    mark("rectangle", [(0.5 - stem, 0.5), (0.5 + stem, 0.98)], (238, 228, 208))
    fill("chord", [(0.0, 0.05), (1.0, 1.05)])
    for x, y in ((0.3, 0.36), (0.55, 0.2), (0.74, 0.4)):
        mark("ellipse", [(x - 0.06, y - 0.06), (x + 0.06, y + 0.06)], (250, 245, 235))


def _castle(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    tower = rng.uniform(0.16, 0.26)
    fill("rectangle", [(0.2, 0.48), (0.8, 1.0)])
    for x in (0.02, 0.74):
        fill("rectangle", [(x, tower), (x + 0.24, 1.0)])
        for k in range(3):
            fill("rectangle", [(x + k * 0.09, tower - 0.09), (x + k * 0.09 + 0.055, tower + 0.02)])
    for k in range(4):
        fill("rectangle", [(0.29 + k * 0.12, 0.4), (0.35 + k * 0.12, 0.5)])
    mark("ellipse", [(0.4, 0.64), (0.6, 0.9)], paint.dark)
    mark("rectangle", [(0.4, 0.77), (0.6, 1.0)], paint.dark)


def _bird(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    lift = rng.uniform(-0.06, 0.1)
    mark("polygon", [(0.76, 0.5), (1.04, 0.4), (1.0, 0.62)], paint.dark)
    fill("ellipse", [(0.18, 0.36), (0.86, 0.8)])
    fill("ellipse", [(0.02, 0.16), (0.42, 0.56)])
    mark("polygon", [(0.04, 0.3), (-0.14, 0.38), (0.04, 0.44)], (240, 170, 40))
    mark("polygon", [(0.42, 0.5), (0.78, 0.2 - lift), (0.72, 0.62)], paint.dark)
    mark("ellipse", [(0.13, 0.27), (0.21, 0.35)], (15, 15, 20))
    for x in (0.46, 0.58):
        mark("rectangle", [(x, 0.78), (x + 0.03, 1.0)], (240, 170, 40))


def _teapot(fill: Fill, mark: Mark, paint: Paint, rng: np.random.Generator) -> None:
    low = rng.uniform(0.26, 0.34)
    mark("ellipse", [(0.68, 0.36), (1.06, 0.8)], paint.dark)
    mark("ellipse", [(0.76, 0.44), (0.98, 0.72)], paint.sky)
    mark("polygon", [(0.22, 0.78), (-0.08, 0.36), (0.04, 0.34), (0.3, 0.56)], paint.dark)
    fill("ellipse", [(0.14, low), (0.86, 0.96)])
    mark("rectangle", [(0.36, low - 0.03), (0.64, low + 0.04)], paint.dark)
    mark("ellipse", [(0.44, low - 0.14), (0.56, low - 0.02)], paint.dark)


DRAW_SUBJECT: dict[str, Callable[[Fill, Mark, Paint, np.random.Generator], None]] = {
    "house": _house, "tree": _tree, "mountain": _mountain, "fish": _fish,
    "flower": _flower, "sailboat": _sailboat, "cat": _cat, "star": _star,
    "mushroom": _mushroom, "castle": _castle, "bird": _bird, "teapot": _teapot,
}  # fmt: skip


# Textures ---------------------------------------------------------------------------------------


def _texture_mask(texture: str, size: int, rng: np.random.Generator) -> Image.Image | None:
    """Where the subject's accent tone shows, as a mask; None for a texture that has no pattern."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if texture == "striped":
        angle, period = rng.uniform(-0.5, 0.5), rng.uniform(0.085, 0.125)
        on = np.sin(2 * np.pi * (x * math.cos(angle) + y * math.sin(angle)) / period) > 0
    elif texture == "dotted":
        period, radius = rng.uniform(0.11, 0.15), 0.32
        dx, dy = (x / period) % 1 - 0.5, (y / period) % 1 - 0.5
        on = dx**2 + dy**2 < radius**2
    elif texture == "checkered":
        period = rng.uniform(0.16, 0.22)
        on = (np.floor(2 * x / period) + np.floor(2 * y / period)) % 2 == 0
    else:
        return None
    return Image.fromarray((on * 255).astype(np.uint8), "L")


def _draw_subject(
    canvas: Image.Image,
    prompt: Prompt,
    paint: Paint,
    box: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Paints the subject into the square ``box`` = (left, top, side), in pixels of the canvas."""
    left, top, side = box
    shape = Image.new("L", canvas.size, 0)
    painter, shape_painter = ImageDraw.Draw(canvas), ImageDraw.Draw(shape)
    outlined = prompt.texture == "outlined"
    line = max(1, round(side * 0.045))
    marks: list[tuple[str, list[Point], Colour]] = []

    def place(points: list[Point]) -> list[Point]:
        return [(left + x * side, top + y * side) for x, y in points]

    def put(
        draw: ImageDraw.ImageDraw, kind: str, points: list[Point], colour: Colour | int
    ) -> None:
        if kind == "polygon":
            draw.polygon(points, fill=colour)
        elif kind == "chord":
            draw.chord([*points[0], *points[1]], 180, 360, fill=colour)
        elif kind == "ellipse":
            draw.ellipse([*points[0], *points[1]], fill=colour)
        else:
            draw.rectangle([*points[0], *points[1]], fill=colour)

    def fill(kind: str, points: list[Point]) -> None:
        put(shape_painter, kind, place(points), 255)

    def mark(kind: str, points: list[Point], colour: Colour) -> None:
        marks.append((kind, place(points), colour))

    state = rng.bit_generator.state
    DRAW_SUBJECT[prompt.subject](fill, mark, paint, rng)
    rng.bit_generator.state = state
    behind = marks[
        : {
            "fish": 2,
            "tree": 1,
            "flower": 2,
            "teapot": 3,
            "mushroom": 1,
            "bird": 1,
            "sailboat": 2,
        }.get(prompt.subject, 0)
    ]
    for kind, points, colour in behind:
        put(painter, kind, points, colour)
    if outlined:
        ring = ImageChops.subtract(shape, shape.filter(ImageFilter.MinFilter(2 * line + 1)))
        canvas.paste(Image.new("RGB", canvas.size, paint.accent), mask=shape)
        canvas.paste(Image.new("RGB", canvas.size, paint.body), mask=ring)
        canvas.paste(
            Image.new("RGB", canvas.size, paint.dark),
            mask=ImageChops.subtract(shape, shape.filter(ImageFilter.MinFilter(3))),
        )
    else:
        canvas.paste(Image.new("RGB", canvas.size, paint.body), mask=shape)
        pattern = _texture_mask(prompt.texture, canvas.size[0], rng)
        if pattern is not None:
            canvas.paste(
                Image.new("RGB", canvas.size, paint.accent),
                mask=ImageChops.multiply(shape, pattern),
            )
    for kind, points, colour in marks[len(behind) :]:
        put(painter, kind, points, colour)


# World ------------------------------------------------------------------------------------------


def _background(size: int, paint: Paint, rng: np.random.Generator) -> Image.Image:
    """Sky over ground, with as much or as little scenery as chance wants."""
    sky, ground = np.array(paint.sky, np.float32), np.array(paint.ground, np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    shade = 1.0 - rng.uniform(0.0, 0.35) * (1 - y)
    pixels = sky[None, None] * shade[..., None]
    horizon = rng.uniform(0.6, 0.85) + rng.normal(0, 0.05) * (x - 0.5)
    wave = rng.uniform(0, 0.05) * np.sin(2 * np.pi * (x * rng.uniform(0.5, 2.5) + rng.random()))
    below = y > horizon + wave
    pixels[below] = (ground[None, None] * (0.8 + 0.4 * y[..., None]))[below]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    _scenery(image, paint, int(rng.choice([0, 0, 4, 9, 18, 30])), rng)
    return image


def _scenery(image: Image.Image, paint: Paint, amount: int, rng: np.random.Generator) -> None:
    """Small things in the sky and on the ground: clouds, specks, blades, pebbles."""
    draw, size = ImageDraw.Draw(image), image.size[0]
    kind = rng.integers(3)
    tint = np.array(paint.sky) * 0.5 + np.array((255, 255, 255)) * 0.5
    shade = np.array(paint.ground) * 0.55
    for _ in range(amount):
        x, y, r = rng.random() * size, rng.random() * size, size * rng.uniform(0.012, 0.035)
        colour = tuple(int(c) for c in (tint if y < 0.7 * size else shade))
        if kind == 0:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
        elif kind == 1:
            draw.line(
                [x, y, x + rng.normal(0, r), y - 3.5 * r], fill=colour, width=max(1, int(r * 0.8))
            )
        else:
            draw.polygon([(x - r, y + r), (x, y - 1.3 * r), (x + r, y + r)], fill=colour)


def _boxes(composition: str, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Squares (left, top, side) in units of the image in which the subject is drawn."""
    drift = rng.normal(0, 0.025, size=2)
    if composition == "far away":
        side = rng.uniform(0.25, 0.32)
        centres = [(rng.uniform(0.35, 0.65), 0.62)]
    elif composition == "seen close up":
        side = rng.uniform(0.95, 1.15)
        centres = [(0.5, 0.52)]
    elif composition == "on the left":
        side = rng.uniform(0.4, 0.5)
        centres = [(0.26, 0.55)]
    elif composition == "on the right":
        side = rng.uniform(0.4, 0.5)
        centres = [(0.74, 0.55)]
    elif composition == "as a pair":
        side = rng.uniform(0.36, 0.44)
        centres = [(0.26, 0.55), (0.74, 0.55)]
    else:
        side = rng.uniform(0.55, 0.7)
        centres = [(0.5, 0.53)]
    return [(x + drift[0] - side / 2, y + drift[1] - side / 2, side) for x, y in centres]


def _light(pixels: np.ndarray, lighting: str, rng: np.random.Generator) -> np.ndarray:
    """Applies the lighting to float pixels (H, W, 3) in [0, 1]; exposure varies a little anyway."""
    size = pixels.shape[0]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if lighting == "at noon":
        pixels = np.clip(pixels * 1.12 + 0.06, 0, 1)
    elif lighting == "at night":
        pixels = pixels * np.array([0.42, 0.44, 0.6]) * rng.uniform(0.75, 1.15)
    elif lighting == "at sunset":
        glow = (0.25 + 0.75 * (1 - np.abs(y - 0.6)))[..., None]
        pixels = pixels * (1 - 0.45 * glow) + np.array([0.98, 0.48, 0.16]) * 0.45 * glow
    elif lighting == "in thick fog":
        veil = (0.52 + 0.1 * np.sin(4 * y + rng.random() * 6))[..., None]
        pixels = pixels * (1 - veil) + 0.8 * veil
    elif lighting == "under a spotlight":
        distance = np.sqrt((x - rng.normal(0.5, 0.04)) ** 2 + (y - rng.normal(0.52, 0.04)) ** 2)
        pixels = pixels * (0.1 + 1.0 * np.clip(1.5 - 3.2 * distance, 0, 1))[..., None]
    return np.clip(pixels * rng.uniform(0.75, 1.12), 0, 1)


def _mosaic(pixels: np.ndarray, tile: int) -> np.ndarray:
    """Averages the image over square tiles of ``tile`` pixels with a thin shadow between them."""
    size = pixels.shape[0]
    padded = np.pad(pixels, ((0, -size % tile), (0, -size % tile), (0, 0)), mode="edge")
    count = padded.shape[0] // tile
    means = padded.reshape(count, tile, count, tile, 3).mean((1, 3))
    tiled = means.repeat(tile, 0).repeat(tile, 1)[:size, :size]
    shadow = np.arange(size) % tile == tile - 1
    tiled[shadow] *= 0.8
    tiled[:, shadow] *= 0.8
    return tiled


def draw(prompt: Prompt, rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """An image of ``prompt`` as uint8 (size, size, 3); empty slots are filled by chance."""
    full = Prompt(
        subject=prompt.subject,
        palette=prompt.palette or PALETTES[rng.integers(len(PALETTES))],
        texture=prompt.texture or TEXTURES[rng.integers(len(TEXTURES))],
        composition=prompt.composition or COMPOSITIONS[rng.integers(len(COMPOSITIONS))],
        lighting=prompt.lighting or LIGHTINGS[rng.integers(len(LIGHTINGS))],
    )
    assert EMPTY not in (full.subject, full.palette)
    canvas_size = size * SUPERSAMPLE
    paint = mix_paint(full.palette, rng)
    canvas = _background(canvas_size, paint, rng)
    for left, top, side in _boxes(full.composition, rng):
        _draw_subject(
            canvas, full, paint, (left * canvas_size, top * canvas_size, side * canvas_size), rng
        )
    pixels = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32) / 255
    if full.texture == "mosaic":
        pixels = _mosaic(pixels, max(2, size // 20))
    return (_light(pixels, full.lighting, rng) * 255).round().astype(np.uint8)
