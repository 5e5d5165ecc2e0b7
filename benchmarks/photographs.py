"""Colour pictures of things in any light: `python -m benchmarks.photographs --seeds 3`.

Five kinds of drawn things on backgrounds of every tint, brightness and shape of frame: what a microscope or a lightbox gives. Each row is a
run up to its first merge, with the defaults or with one part of them undone: views that turn an image all round, most of the tone kept out
of the network, no black bars beside images that are not square. Labels score, and nothing else; the numbers are for over-clusters merged
into five, so that no later step hides what the network looked at.
"""

import math
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from catvae.core.data import ImageData
from catvae.core.merging import merge_by_neighbours
from catvae.core.metrics import label_scores
from catvae.runtime.images import Preprocess, fit_image

from .first_merge import at_first_merge
from .record import rows_before, write_csv

SIDE, COUNT, FINE = 32, 1200, 4
"""Pixels a side, images, and pixels drawn for each that is kept."""
INKS = ((226, 120, 160), (80, 110, 190), (60, 140, 80), (120, 80, 50), (190, 60, 50))
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the defaults": ({"fit": "stretch"}, {}),
    "turned a little only": ({"fit": "stretch"}, {"augment": "objects"}),
    "all of the tone": ({"fit": "stretch"}, {"tone": 1.0}),
    "black bars": ({"fit": "pad"}, {}),
}


def picture(kind: int, rng: np.random.Generator) -> Image.Image:
    """One thing, anywhere in a frame of any shape, in any light."""
    width, height = rng.integers(80, 141, 2)
    background = np.clip(np.array((232, 222, 214)) + rng.normal(0, 8, 3), 0, 255)
    image = Image.new("RGB", (FINE * int(width), FINE * int(height)), tuple(int(level) for level in background))
    draw, side = ImageDraw.Draw(image), min(image.size)
    ink = tuple(int(level) for level in np.clip(np.array(INKS[kind]) + rng.normal(0, 14, 3), 0, 255))
    r = side * rng.uniform(0.16, 0.26)
    x, y = rng.uniform(r, image.width - r), rng.uniform(r, image.height - r)
    box, angle = (x - r, y - r, x + r, y + r), rng.uniform(0, 2 * math.pi)
    if kind == 0:  # a cell with its nucleus
        draw.ellipse(box, fill=ink)
        draw.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=(110, 50, 120))
    elif kind == 1:  # a rod
        dx, dy = 1.6 * r * math.cos(angle), 1.6 * r * math.sin(angle)
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=ink, width=int(side * 0.08))
    elif kind == 2:  # a heap of dots
        for dx, dy in rng.normal(0, r / 2, (18, 2)):
            draw.ellipse((x + dx - side * 0.03, y + dy - side * 0.03, x + dx + side * 0.03, y + dy + side * 0.03), fill=ink)
    elif kind == 3:  # a ring
        draw.ellipse(box, outline=ink, width=int(side * 0.07))
    else:  # a crescent
        draw.ellipse(box, fill=ink)
        dx, dy = r / 2 * math.cos(angle), r / 2 * math.sin(angle)
        draw.ellipse((x + dx - r, y + dy - r, x + dx + r, y + dy + r), fill=tuple(int(level) for level in background))
    pixels = np.asarray(image.resize((int(width), int(height)), Image.Resampling.BOX)) * rng.uniform(0.75, 1.1)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 5, pixels.shape), 0, 255).astype(np.uint8))


def pile(fit: dict[str, Any]) -> ImageData:
    """The same pictures every time, read by these rules."""
    rng = np.random.default_rng(0)
    rules = Preprocess(height=SIDE, width=SIDE, channels=3, **fit)
    labels: NDArray[np.int64] = np.arange(COUNT) % len(INKS)
    return ImageData("photographs", np.stack([fit_image(picture(int(kind), rng), rules) for kind in labels]), rules, labels)


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
def main(seeds: int) -> None:
    """Train in every way, up to the first merge."""
    rows = rows_before("photographs")
    for seed in range(seeds):
        for way, (fit, settings) in WAYS.items():
            if not any((row["way"], int(row["seed"])) == (way, seed) for row in rows):
                rows.append({"way": way, "seed": seed, **_merged(pile(fit), {"seed": seed, "clusters": len(INKS), **settings})})
                write_csv("photographs", rows)
                click.echo("  ".join(f"{key} {value}" for key, value in rows[-1].items()))


def _merged(data: ImageData, settings: dict[str, Any]) -> dict[str, float]:
    joints, K, small, labels = at_first_merge(data, settings)
    scores = label_scores(merge_by_neighbours(joints, K).group[small], labels)
    return {"acc": round(scores.acc, 4), "nmi": round(scores.nmi, 4)}


if __name__ == "__main__":
    main()
