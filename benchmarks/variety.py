"""The defaults on images they were not tuned on: `python -m benchmarks.variety mnist fashion-mnist --seeds 3`.

Smaller, coarser, inverted and unevenly drawn forms of the named sets; every row is one `catvae-train` run with nothing but its seed. Labels
draw the images and score the finished runs. Rows already in the result file stay, unless the code has changed since.
"""

from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catvae.core.images.data import ImageData, load_data

from .record import rows_before, spread, write_csv
from .runs import has, took_unequal, trained_on, verdict_of

USPS = (1553, 1269, 929, 824, 852, 716, 834, 792, 708, 821)
"""Images of each digit in the USPS set, whose images are 16 x 16."""

Drawn = tuple[NDArray[np.uint8], NDArray[np.int64]]


def ink_on_paper(digits: ImageData) -> Drawn:
    """Dark on white."""
    assert digits.labels is not None
    return 255 - digits.images[..., 0], digits.labels


def like_usps(mnist: ImageData) -> Drawn:
    """MNIST in the size and the shares of USPS."""
    assert mnist.labels is not None
    rng = np.random.default_rng(0)
    rows = [rng.choice(np.flatnonzero(mnist.labels == digit), count, replace=False) for digit, count in enumerate(USPS)]
    chosen = rng.permutation(np.concatenate(rows))
    small = [np.asarray(Image.fromarray(mnist.images[i, ..., 0]).resize((16, 16), Image.Resampling.BOX)) for i in chosen]
    return np.stack(small), mnist.labels[chosen]


def some(data: ImageData, count: int) -> Drawn:
    """A random part of a data set."""
    assert data.labels is not None
    chosen = np.random.default_rng(0).permutation(len(data.images))[:count]
    return data.images[chosen, ..., 0], data.labels[chosen]


@click.command()
@click.argument("mnist")
@click.argument("fashion")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--only", multiple=True, help="Only sets with this in their name; repeatable.")
def main(mnist: str, fashion: str, seeds: int, only: tuple[str, ...]) -> None:
    """Train on forms of digits, MNIST and FASHION-MNIST."""
    rows = rows_before("variety")
    sets = {
        "digits, ink on paper": lambda: ink_on_paper(load_data("digits")),
        "MNIST, 9,298 of 16 x 16": lambda: like_usps(load_data(mnist)),
        "MNIST, 2,000": lambda: some(load_data(mnist), 2000),
        "Fashion-MNIST, 9,000": lambda: some(load_data(fashion), 9000),
    }
    for name, draw in sets.items():
        if only and not any(part in name for part in only):
            continue
        for seed in range(seeds):
            if not has(rows, images=name, seed=seed):
                rows.append({"images": name, "seed": seed, **scored(*draw(), seed)})
                write_csv("variety", rows)
        mine = [float(row["acc"]) for row in rows if row["images"] == name]
        click.echo(f"{name:<28} ACC {spread(mine)}")


def scored(images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Scores of one run."""
    with trained_on(images, labels, "--seed", seed) as run:
        record = run.read_record()
    return {
        **record.scores["train"],
        "unequal": took_unequal(record),
        "verdict": verdict_of(record),
        "seconds": record.seconds,
        "precision": record.precision,
    }


if __name__ == "__main__":
    main()
