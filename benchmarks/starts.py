"""What tells a good start from a bad one: `python -m benchmarks.starts digits --seeds 40`.

Every row is a run up to its first merge: how well the groups that it takes would sort, how well those with most mutual information of
neighbours in the hidden layer would, and what can be seen of the taken ones without labels. The last lines say what rules would pick of
such starts. Partitions that a stopped call has finished are kept in `build/`, unless the code has changed since.
"""

from pathlib import Path

import click
import numpy as np

from catvae.core.clusters.agglomeration import entropy, grouped, information
from catvae.core.clusters.merging import merge, merge_by_neighbours, neighbour_information
from catvae.core.images.data import ImageData, load_data

from .first_merge import at_first_merge
from .record import circumstances
from .seeds import Row, Rule, collected, kept_by, mutual_agreement

GROUPS = 2, 3
"""Starts in a group."""


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(max(GROUPS)), default=20, show_default=True)
def main(data: str, seeds: int) -> None:
    """Train DATA up to the first merge from several seeds."""
    click.echo(str(circumstances()))
    name, images = f"starts-{Path(data).name}", load_data(data)
    for line in summary(collected(name, seeds, lambda seed: _started(images, seed))):
        click.echo(line)


def _started(images: ImageData, seed: int) -> tuple[Row, np.ndarray]:
    """A row, and the group of each trained image."""
    start = at_first_merge(images, {"seed": seed, "starts": 1})
    joints, K = start.joints, start.K
    group = merge(joints, K)
    row = {
        "seed": seed,
        "acc": start.acc(group),
        "acc_by_neighbours": start.acc(merge_by_neighbours(joints, K)),
        "views": round(information(joints.overclusters, group, K), 4),
        "neighbours": round(neighbour_information(joints, group, K), 4),
        "evenness": round(float(np.exp(entropy(grouped(joints.overclusters, group, K)))) / K, 4),
        "unequal": start.unequal,
    }
    return row, group[start.small].astype(np.int16)


def summary(rows: list[Row]) -> list[str]:
    """A line for every rule and size of groups."""
    acc, by_neighbours, alike = _column(rows, "acc"), _column(rows, "acc_by_neighbours"), mutual_agreement(rows)

    def most(name: str) -> Rule:
        values = _column(rows, name)
        return lambda group: group[int(values[list(group)].argmax())]

    rules = {
        "shares most with views": most("views"),
        "shares most with neighbours": most("neighbours"),
        "is the most even": most("evenness"),
        "agrees most with the others": lambda group: group[int(alike[np.ix_(group, group)].sum(1).argmax())],
    }
    unequal = sum(str(row["unequal"]) == "True" for row in rows)
    by = f"groups by neighbours: ACC mean {by_neighbours.mean():.4f}, sd {by_neighbours.std(ddof=1):.4f}, min {by_neighbours.min():.4f}"
    return [f"unequal groups clearer: {unequal} of {len(rows)}", by, *kept_by(acc, rules, GROUPS)]


def _column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


if __name__ == "__main__":
    main()
