"""The defaults on letters: A to J in every typeface of a folder, `python -m benchmarks.letters /usr/share/fonts --seeds 3`.

Kinds nobody tuned for, drawn here because no set of them comes along. As in notMNIST, typefaces differ far more than hands do, and some
draw stars for letters. Every row is one `catvae-train` run with nothing but its seed; the letter scores it. Another machine's folder has
other typefaces: its rows are of another set.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .record import rows_before, spread, write_csv
from .runs import has
from .variety import scored

LETTERS = "ABCDEFGHIJ"
SIDE, ROOM = 28, 24
"""Of an image, and of the longer side of the letter in it; pixels."""


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
def main(folder: Path, seeds: int) -> None:
    """Train on letters in the typefaces of FOLDER."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it remarks on every careless table
    faces = list(drawn_faces(folder))
    images = np.concatenate(faces)
    labels = np.tile(np.arange(len(LETTERS)), len(faces))
    order = np.random.default_rng(0).permutation(len(images))
    rows = rows_before("letters")
    for seed in range(seeds):
        if not has(rows, faces=len(faces), seed=seed):
            rows.append({"faces": len(faces), "seed": seed, **scored(images[order], labels[order], seed)})
            write_csv("letters", rows)
    accuracies = [float(row["acc"]) for row in rows if int(row["faces"]) == len(faces)]
    click.echo(f"letters in {len(faces):,} typefaces  ACC {spread(accuracies)}")


def drawn_faces(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """The letters of every typeface that has them, (10, 28, 28), white on black; a face that draws them as another does is left out."""
    seen: set[bytes] = set()
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf")):
        try:
            with TTFont(path, lazy=True) as font:
                if not set(map(ord, LETTERS)) <= set(font.getBestCmap() or ()):
                    continue
            face = np.stack([letter_image(letter, ImageFont.truetype(path, 40)) for letter in LETTERS])
        except (TTLibError, OSError, ValueError):  # bitmap faces, empty glyphs
            continue
        if (data := face.tobytes()) not in seen:
            seen.add(data)
            yield face


def letter_image(letter: str, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8]:
    """A letter in the middle, as large as fits; raises ValueError where nothing is drawn."""
    sheet = Image.new("L", (160, 160))
    ImageDraw.Draw(sheet).text((60, 50), letter, fill=255, font=font)
    box = sheet.getbbox()
    if box is None:
        raise ValueError(f"{font.getname()} draws nothing for {letter}")
    drawn = sheet.crop(box)
    scale = ROOM / max(drawn.size)
    drawn = drawn.resize((max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))), Image.Resampling.LANCZOS)
    image = Image.new("L", (SIDE, SIDE))
    image.paste(drawn, ((SIDE - drawn.width) // 2, (SIDE - drawn.height) // 2))
    return np.asarray(image)


if __name__ == "__main__":
    main()
