"""What tells a good beginning from a bad one: `python -m benchmarks.beginnings digits --seeds 40`.

Every row is a run up to its first merge: how well its groups would sort, and what can be seen of that without labels. The last lines say
what rules would keep that choose among such beginnings, or that begin anew, as the default recipe does. Partitions that a stopped call
has finished are kept in `build/`, unless the code has changed since.
"""

from pathlib import Path

import click
import numpy as np

from catvae.core.data import ImageData, load_data
from catvae.core.grouping import EVEN, evenness, unequal_is_clearer
from catvae.core.merging import agreement, merge
from catvae.core.metrics import label_scores

from .first_merge import at_first_merge
from .record import circumstances
from .seeds import Group, Row, collected, kept_by, mutual_agreement

GROUPS = 2, 3
"""Beginnings of a group."""


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(max(GROUPS)), default=20, show_default=True)
def main(data: str, seeds: int) -> None:
    """Train DATA up to the first merge from several seeds."""
    click.echo(str(circumstances()))
    name, images = f"beginnings-{Path(data).name}", load_data(data)
    for line in summary(collected(name, seeds, lambda seed: _begun(images, seed))):
        click.echo(line)


def _begun(images: ImageData, seed: int) -> tuple[Row, np.ndarray]:
    """A row, and the group of each trained image."""
    joints, K, small, labels = at_first_merge(images, {"seed": seed, "starts": 1})
    group = merge(joints, K)
    even, unequal = evenness(joints.overclusters, K), unequal_is_clearer(joints, K)
    row = {
        "seed": seed,
        "acc": round(label_scores(group[small], labels).acc, 4),
        "evenness": round(even, 4),
        "unequal": unequal,
        "doubtful": unequal or even < EVEN,
        "neighbours": round(agreement(joints, group, K), 4),
    }
    return row, group[small].astype(np.int16)


def summary(rows: list[Row]) -> list[str]:
    """A line for every rule and size of groups."""
    acc, alike = np.array([float(row["acc"]) for row in rows]), mutual_agreement(rows)
    doubtful = [str(row["doubtful"]) == "True" for row in rows]
    columns = {key: np.array([float(row[key]) for row in rows]) for key in ("evenness", "neighbours")}

    def anew(group: Group) -> int:
        return group[1] if doubtful[group[0]] else group[0]

    rules = {
        "is the most even": lambda group: group[int(columns["evenness"][list(group)].argmax())],
        "shares most with neighbours": lambda group: group[int(columns["neighbours"][list(group)].argmax())],
        "agrees most with the others": lambda group: group[int(alike[np.ix_(group, group)].sum(1).argmax())],
    }
    begun_anew = kept_by(acc, {"follows, where the first is doubtful": anew}, (2,), ordered=True)
    return [f"doubtful: {sum(doubtful)} of {len(rows)}", *begun_anew, *kept_by(acc, rules, GROUPS)[1:]]


if __name__ == "__main__":
    main()
