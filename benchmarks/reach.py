"""How far views of objects may stray: `python -m benchmarks.reach fashion-mnist --seeds 5`.

Every row is a run up to its first merge, from one start, with some properties of the views of objects changed (`POLICIES` in
`core/images/views.py`). `purity` is what the best merge could reach: the share of images of their over-cluster's most frequent class.
Labels score, and nothing else.
"""

from pathlib import Path
from unittest.mock import patch

import click
import msgspec
from sklearn.metrics.cluster import contingency_matrix

from catvae.core.clusters.merging import merge
from catvae.core.images.data import ImageData, load_data
from catvae.core.images.views import POLICIES

from .first_merge import at_first_merge
from .record import rows_before, spread, write_csv
from .runs import has

CHANGES: dict[str, dict[str, float]] = {
    "the recipe": {},
    "less": {"shift": 0.14, "scale": 0.15},
    "least": {"shift": 0.07, "scale": 0.1, "rotation": 5},
    "less of size": {"scale": 0.15},
    "less of place": {"shift": 0.14},
    "more of size": {"scale": 0.4},
    "more": {"shift": 0.25, "scale": 0.4, "rotation": 15},
    "more of brightness": {"brightness": 0.5},
    "slanted and stretched": {"stretch": 0.15, "shear": 0.1},
}


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--only", multiple=True, help="Only changes of this name; repeatable.")
def main(data: str, seeds: int, only: tuple[str, ...]) -> None:
    """Train DATA, images of objects, up to the first merge."""
    title, images = f"reach-{Path(data).name}", load_data(data)
    rows = rows_before(title)
    for name, change in CHANGES.items():
        if only and name not in only:
            continue
        for seed in range(seeds):
            if has(rows, views=name, seed=seed):
                continue
            rows.append({"views": name, "seed": seed, **_merged(images, seed, change)})
            write_csv(title, rows)
        acc, purity = ([float(row[score]) for row in rows if row["views"] == name] for score in ("acc", "purity"))
        click.echo(f"{name:<24} ACC {spread(acc)}; purity {spread(purity)}")


def _merged(images: ImageData, seed: int, change: dict[str, float]) -> dict[str, float]:
    with patch.dict(POLICIES, objects=msgspec.structs.replace(POLICIES["objects"], **change)):
        begun = at_first_merge(images, {"seed": seed, "starts": 1, "augment": "objects"})
    classes = contingency_matrix(begun.small, begun.labels)
    return {"acc": begun.acc(merge(begun.joints, begun.K)), "purity": round(float(classes.max(1).sum() / classes.sum()), 4)}


if __name__ == "__main__":
    main()
