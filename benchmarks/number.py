"""How many clusters `-k auto` finds: `python -m benchmarks.number mnist fashion-mnist --seeds 3`.

Every row is a run with nothing but its seed and `-k auto` up to the first merge, where K is chosen, and how the groups taken there agree
with the classes. Labels pick the images and score. Garments are fewer kinds than names: shirts, coats and pullovers shade into each other.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from catvae.core.clusters.merging import merge
from catvae.core.clusters.metrics import label_scores
from catvae.core.images.data import ImageData, load_data

from .first_merge import at_first_merge
from .record import rows_before, write_csv
from .runs import has
from .variety import Drawn, like_usps, some


def first_five(digits: ImageData) -> Drawn:
    """Zeros to fours."""
    assert digits.labels is not None
    chosen = digits.labels < 5
    return digits.images[chosen, ..., 0], digits.labels[chosen]


def loaded(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageData:
    """As `catvae-train` reads them from a file."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "images.npz", images=images, labels=labels)
        return load_data(f"{folder}/images.npz")


@click.command()
@click.argument("mnist")
@click.argument("fashion")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
def main(mnist: str, fashion: str, seeds: int) -> None:
    """Choose K for digits, MNIST and FASHION-MNIST."""
    rows, digits = rows_before("number"), load_data("digits")
    sets: dict[str, Callable[[], Drawn]] = {
        "digits": lambda: some(digits, len(digits.images)),
        "digits, 0 to 4": lambda: first_five(digits),
        "MNIST, 9,298 of 16 x 16": lambda: like_usps(load_data(mnist)),
        "MNIST, 10,000": lambda: some(load_data(mnist), 10_000),
        "Fashion-MNIST, 9,000": lambda: some(load_data(fashion), 9_000),
    }
    for name, draw in sets.items():
        data = loaded(*draw())
        for seed in range(seeds):
            if not has(rows, images=name, seed=seed):
                begun = at_first_merge(data, {"clusters": "auto", "seed": seed})
                group = merge(begun.joints, begun.K, unequal=begun.unequal)
                nmi = round(label_scores(group[begun.small], begun.labels).nmi, 4)
                classes = len(np.unique(begun.labels))
                rows.append({"images": name, "seed": seed, "classes": classes, "chosen": begun.K, "nmi": nmi})
                write_csv("number", rows)
        mine = [row for row in rows if row["images"] == name]
        click.echo(f"{name:<28} {mine[0]['classes']} classes, chosen {', '.join(str(row['chosen']) for row in mine)}")


if __name__ == "__main__":
    main()
