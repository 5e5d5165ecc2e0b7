"""Rare kinds: what the default makes of them, beside clusters forced to equal sizes: `python -m benchmarks.imbalance digits --seeds 3`.

Classes of a balanced data set are thinned, which ones and which images a seed decides; every row is one `catvae-train` run on what is left.
Labels thin the data and score the finished run. Rows already in the result file stay, and are not made again, unless the code has changed
since.
"""

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from catvae.core.images.data import ImageData, load_data

from .record import rows_before, spread, write_csv
from .runs import has, took_unequal, trained_on, verdict_of

KINDS = {
    "half of them at 1/10": np.repeat([1.0, 0.1], 5),
    "one of them at 1/10": np.repeat([1.0, 0.1], [9, 1]),
    "all but one at 1/10": np.repeat([1.0, 0.1], [1, 9]),
    "from 1 down to 1/10": 10.0 ** -np.linspace(0, 1, 10),
    "half of them at 1/3": np.repeat([1.0, 1 / 3], 5),
    "all alike": np.ones(10),
}
"""Shares of the images that are kept, by class."""
SIZES = ("auto", "equal")


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--only", multiple=True, help="Only kinds with this in their name; repeatable.")
def main(data: str, seeds: int, only: tuple[str, ...]) -> None:
    """Thin DATA, which has ten classes, and train on it."""
    title = f"imbalance-{Path(data).name}"
    rows, images = rows_before(title), load_data(data)
    for seed in range(seeds):
        for kind, rates in KINDS.items():
            for sizes in SIZES if rates.min() < 1 else SIZES[:1]:
                done = has(rows, kind=kind, sizes=sizes, seed=seed)
                if done or (only and not any(part in kind for part in only)):
                    continue
                rows.append({"kind": kind, "sizes": sizes, "seed": seed, **_trained(images, rates, sizes, seed)})
                write_csv(title, rows)
    for kind, sizes in dict.fromkeys((row["kind"], row["sizes"]) for row in rows):
        mine = [row for row in rows if (row["kind"], row["sizes"]) == (kind, sizes)]
        unequal = sum(str(row["unequal"]) == "True" for row in mine)
        click.echo(f"{kind:<22} {sizes:<6} ACC {spread([float(row['acc']) for row in mine])}; unequal sizes in {unequal} of {len(mine)}")


def thinned(data: ImageData, rates: NDArray, seed: int) -> ImageData:
    """`data` with a share of each class, in an order of the classes that the seed decides."""
    assert data.labels is not None
    rng = np.random.default_rng(seed)
    kept = rng.random(len(data.images)) < rng.permutation(rates)[data.labels]
    return dataclasses.replace(data, images=data.images[kept], labels=data.labels[kept], test_images=None, test_labels=None)


def _trained(data: ImageData, rates: NDArray, sizes: str, seed: int) -> dict[str, Any]:
    """Scores of ``catvae-train THINNED --sizes SIZES --seed SEED``."""
    thin = thinned(data, rates, seed)
    assert thin.labels is not None
    with trained_on(thin.images, thin.labels, "--sizes", sizes, "--seed", seed) as run:
        record = run.read_record()
    return {
        "images": len(thin.images),
        "unequal": took_unequal(record),
        **record.scores["train"],
        "smallest_share": record.health["smallest_share"],
        "verdict": verdict_of(record),
    }


if __name__ == "__main__":
    main()
