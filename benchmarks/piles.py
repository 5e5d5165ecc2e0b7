"""Piles of drawn colour pictures, as a microscope, a belt or a lightbox gives them: what tells kinds apart is the pile's own.

`python -m benchmarks.piles cells cells.npz` keeps one for `catvae-train`.
Every pile is the same each time. Its pictures are drawn four times finer than they are kept, lit from dim to bright, with noise; the
shapes are drawn, so that what each kind is made of is known: no photograph says whether light, colour or outline told it.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from catvae.core.images.data import ImageData
from catvae.runtime.images.preprocess import Preprocess, fit_image

SIDE, COUNT, FINE = 32, 1200, 4
"""Pixels a side, images, and pixels drawn for each that is kept."""
Colour = tuple[int, int, int]


class Sheet(NamedTuple):
    """One picture being drawn: where, and in which colours."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    background: Colour
    rng: np.random.Generator


def _near(colour: tuple[float, ...], spread: float, rng: np.random.Generator) -> Colour:
    """A colour nearby, levels 0 to 255."""
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255)
    return int(red), int(green), int(blue)


def _sheet(size: tuple[int, int], background: tuple[float, ...], spread: float, rng: np.random.Generator) -> Sheet:
    image = Image.new("RGB", (FINE * size[0], FINE * size[1]), colour := _near(background, spread, rng))
    return Sheet(image, ImageDraw.Draw(image), colour, rng)


def _lit(sheet: Sheet, low: float, high: float) -> Image.Image:
    """As the camera sees it."""
    kept = sheet.image.resize((sheet.image.width // FINE, sheet.image.height // FINE), Image.Resampling.BOX)
    pixels = np.asarray(kept) * sheet.rng.uniform(low, high)
    return Image.fromarray(np.clip(pixels + sheet.rng.normal(0, 5, pixels.shape), 0, 255).astype(np.uint8))


def _turned(points: list[tuple[float, float]], x: float, y: float, size: float, angle: float) -> list[tuple[float, float]]:
    """Points of a shape of size one, in the picture."""
    c, s = size * math.cos(angle), size * math.sin(angle)
    return [(x + c * u - s * v, y + s * u + c * v) for u, v in points]


def _disc(x: float, y: float, r: float) -> tuple[float, float, float, float]:
    return x - r, y - r, x + r, y + r


def _star(corners: int, inner: float) -> list[tuple[float, float]]:
    turns = [math.pi * i / corners for i in range(2 * corners)]
    return [((inner if i % 2 else 1) * math.cos(a), (inner if i % 2 else 1) * math.sin(a)) for i, a in enumerate(turns)]


def cell(kind: int, rng: np.random.Generator) -> Image.Image:
    """A cell with its nucleus, a rod, a heap of dots, a ring, a crescent: each with its stain, in a frame of any shape."""
    width, height = rng.integers(80, 141, 2)
    sheet = _sheet((int(width), int(height)), (232, 222, 214), 8, rng)
    image, draw, background, _ = sheet
    ink = _near(((226, 120, 160), (80, 110, 190), (60, 140, 80), (120, 80, 50), (190, 60, 50))[kind], 14, rng)
    side = min(image.size)
    r = side * rng.uniform(0.16, 0.26)
    x, y, angle = rng.uniform(r, image.width - r), rng.uniform(r, image.height - r), rng.uniform(0, 2 * math.pi)
    if kind == 0:
        draw.ellipse(_disc(x, y, r), fill=ink)
        draw.ellipse(_disc(x, y, r / 3), fill=(110, 50, 120))
    elif kind == 1:
        draw.line(_turned([(-1.6, 0), (1.6, 0)], x, y, r, angle), fill=ink, width=int(side * 0.08))
    elif kind == 2:
        for dx, dy in rng.normal(0, r / 2, (18, 2)):
            draw.ellipse(_disc(x + dx, y + dy, side * 0.03), fill=ink)
    elif kind == 3:
        draw.ellipse(_disc(x, y, r), outline=ink, width=int(side * 0.07))
    else:
        draw.ellipse(_disc(x, y, r), fill=ink)
        ((x, y),) = _turned([(0.5, 0)], x, y, r, angle)
        draw.ellipse(_disc(x, y, r), fill=background)
    return _lit(sheet, 0.75, 1.1)


BELT: tuple[Colour, ...] = ((75, 75, 75),)
TABLES: tuple[Colour, ...] = ((75, 75, 75), (232, 230, 225), (150, 110, 75), (60, 105, 85), (70, 90, 140))
"""A belt, paper, wood, a cutting mat, a blue tray."""


def part(kind: int, rng: np.random.Generator, grounds: tuple[Colour, ...] = BELT) -> Image.Image:
    """A washer, a bolt, a gear, a nut, a plate, a spring: each of any metal, on a dark belt or on one of several grounds."""
    sheet = _sheet((140, 120), grounds[int(rng.integers(len(grounds)))], 8, rng)
    image, draw, background, _ = sheet
    metal = _near(((int(rng.integers(140, 220)),) * 3, (215, 185, 130))[int(rng.random() < 0.3)], 12, rng)
    r = min(image.size) * rng.uniform(0.27, 0.4)
    x, y = (side / 2 + rng.uniform(-0.05, 0.05) * side for side in image.size)
    angle = rng.uniform(0, 2 * math.pi)
    holes: list[tuple[float, float, float]] = []
    if kind == 0:
        draw.ellipse(_disc(x, y, r), fill=metal)
        holes = [(0, 0, rng.uniform(0.4, 0.6))]
    elif kind == 1:
        for box in ((-1, -0.18, 0.5, 0.18), (0.5, -0.42, 0.9, 0.42)):
            draw.polygon(_turned([(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])], x, y, r, angle), fill=metal)
    elif kind == 2:
        draw.polygon(_turned(_star(int(rng.integers(9, 14)), 0.75), x, y, r, angle), fill=metal)
        holes = [(0, 0, 0.25)]
    elif kind == 3:
        draw.polygon(_turned(_star(3, 1), x, y, r, angle), fill=metal)
        holes = [(0, 0, 0.5)]
    elif kind == 4:
        half = rng.uniform(0.3, 0.55)
        draw.polygon(_turned([(-1, -half), (1, -half), (1, half), (-1, half)], x, y, r, angle), fill=metal)
        holes = [(-0.7, 0, 0.13), (0.7, 0, 0.13)]
    else:
        waves, t = int(rng.integers(4, 7)), np.linspace(-1, 1, 200)
        points = [(float(u), 0.35 * math.sin(float(u) * waves * math.pi)) for u in t]
        draw.line(_turned(points, x, y, r, angle), fill=metal, width=int(0.12 * r), joint="curve")
    for u, v, hole in holes:
        ((u, v),) = _turned([(u, v)], x, y, r, angle)
        draw.ellipse(_disc(u, v, hole * r), fill=background)
    return _lit(sheet, 0.75, 1.25)


def bean(kind: int, rng: np.random.Generator) -> Image.Image:
    """A bean of one of five colours, all of one outline, on a grey tray."""
    sheet = _sheet((120, 100), (190, 190, 185), 8, rng)
    image, draw, _, _ = sheet
    ink = _near(((150, 60, 50), (210, 190, 150), (60, 50, 60), (110, 140, 70), (205, 160, 60))[kind], 12, rng)
    r, flat = image.height * rng.uniform(0.22, 0.32), rng.uniform(0.55, 0.75)
    x, y = rng.uniform(r, image.width - r), rng.uniform(r, image.height - r)
    outline = [(math.cos(a), flat * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 80)]
    draw.polygon(_turned(outline, x, y, r, rng.uniform(0, 2 * math.pi)), fill=ink)
    return _lit(sheet, 0.75, 1.15)


PILES: dict[str, tuple[Callable[[int, np.random.Generator], Image.Image], int]] = {
    "cells": (cell, 5),
    "parts": (part, 6),
    "beans": (bean, 5),
    "tables": (partial(part, grounds=TABLES), 6),
}
"""What draws a picture of a kind, and how many kinds there are: told apart by outline and colour, by outline alone, by colour alone, and
by outline on grounds that differ more than the kinds do."""


def pile(name: str, fit: dict[str, Any]) -> ImageData:
    """The pictures of a pile, read by these rules, with the kind of each."""
    draw, kinds = PILES[name]
    rng = np.random.default_rng(0)
    rules = Preprocess(height=SIDE, width=SIDE, channels=3, **fit)
    labels: NDArray[np.int64] = np.arange(COUNT) % kinds
    images = rules.as_images(b"".join(fit_image(draw(int(kind), rng), rules).tobytes() for kind in labels))
    return ImageData(name, images, rules, labels)


@click.command()
@click.argument("name", type=click.Choice(list(PILES)))
@click.argument("output", type=click.Path(dir_okay=False))
def main(name: str, output: str) -> None:
    """Write a pile, stretched, as arrays that `catvae-train` reads."""
    found = pile(name, {"fit": "stretch"})
    assert found.labels is not None
    np.savez(output, images=found.images, labels=found.labels)


if __name__ == "__main__":
    main()
