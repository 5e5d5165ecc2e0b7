"""What the first merge shows of rare classes: `python -m benchmarks.first_merge digits --seeds 3`.

Every row is one beginning, up to its first merge: the signs that `unequal_is_clearer` reads, and how well equal and unequal groups would
sort. The thresholds in `core/clusters/grouping.py` were set by rows like these. Labels thin the data and score; a larger set is cut down to
`--images`.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray

from catvae.core.clusters.grouping import sizes_and_number, unequal_evidence
from catvae.core.clusters.joints import Joints, estimate_joints
from catvae.core.clusters.merging import merge, merge_apart
from catvae.core.clusters.metrics import label_scores
from catvae.core.config import resolve
from catvae.core.images.data import ImageData, load_data
from catvae.core.images.held_back import split
from catvae.core.images.pieces import to_float
from catvae.core.training.trainer import Trainer

from .imbalance import KINDS, thinned
from .record import rows_before, write_csv
from .runs import has

Clusters = NDArray[np.int64]


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--images", type=click.IntRange(100), default=10_000, show_default=True)
def main(data: str, seeds: int, images: int) -> None:
    """Train DATA, thinned by class, up to the first merge."""
    title = f"first-merge-{Path(data).name}"
    rows, whole = rows_before(title), load_data(data)
    assert whole.labels is not None
    for seed in range(seeds):
        chosen = np.random.default_rng(seed).permutation(len(whole.images))[:images]
        some = dataclasses.replace(whole, images=whole.images[chosen], labels=whole.labels[chosen])
        for kind, rates in KINDS.items():
            if has(rows, kind=kind, seed=seed):
                continue
            rows.append({"kind": kind, "seed": seed, **_merged(thinned(some, rates, seed), seed)})
            write_csv(title, rows)
            click.echo(f"{kind:<22} " + "  ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "kind"))


class Start(NamedTuple):
    """A run up to its first merge."""

    joints: Joints
    K: int
    unequal: bool
    """The run would take groups of unequal size."""
    small: Clusters
    """Over-cluster of each trained image."""
    labels: Clusters
    """Class of each trained image."""

    def acc(self, group: Clusters) -> float:
        """Accuracy of groups of the over-clusters."""
        return round(label_scores(group[self.small], self.labels).acc, 4)


def at_first_merge(data: ImageData, settings: dict[str, Any]) -> Start:
    """Train up to the first merge, from as many starts as `settings` ask for."""
    trainer = Trainer(data, resolve(settings))
    if trainer.starts > 1:
        trainer.choose_start()
    while trainer.position.step < trainer.steering.merge_steps[0]:
        trainer.step()
    joints = estimate_joints(trainer.model, trainer.sample, trainer.policy)
    unequal, K = sizes_and_number(joints, trainer.config)
    assert data.labels is not None
    with torch.no_grad():
        small = torch.cat(
            [trainer.model.encode(to_float(x)).auxiliary.argmax(1) for x in trainer.batches.images[trainer.batches.rows].split(1000)]
        ).numpy()
    return Start(joints, K, unequal, small, data.labels[split(len(data.images)).trained])


def _merged(data: ImageData, seed: int) -> dict[str, Any]:
    """The signs at the first merge of a run, and the accuracy of both kinds of groups."""
    begun = at_first_merge(data, {"seed": seed, "starts": 1})
    return {
        **{name: round(value, 4) for name, value in unequal_evidence(begun.joints, begun.K)._asdict().items()},
        "chosen": "unequal" if begun.unequal else "equal",
        "acc_equal": begun.acc(merge(begun.joints, begun.K)),
        "acc_unequal": begun.acc(merge_apart(begun.joints, begun.K)),
    }


if __name__ == "__main__":
    main()
