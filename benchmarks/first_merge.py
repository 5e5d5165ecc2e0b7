"""What the first merge shows of rare classes: `python -m benchmarks.first_merge digits --seeds 3`.

Every row is a run up to its first merge: the signs that `unequal_is_clearer` reads, and how well equal and unequal groups would sort.
The thresholds in `core/grouping.py` were set by rows like these. Labels thin the data and score; a larger set is cut down to `--images`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from catvae.core.config import resolve
from catvae.core.data import ImageData, load_data
from catvae.core.grouping import unequal_is_clearer, unequal_signs
from catvae.core.held_back import split
from catvae.core.joints import Joints, estimate_joints
from catvae.core.merging import merge
from catvae.core.metrics import label_scores
from catvae.core.training import Trainer
from catvae.core.views import to_float

from .imbalance import KINDS, thinned
from .record import rows_before, write_csv

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
            if any((row["kind"], int(row["seed"])) == (kind, seed) for row in rows):
                continue
            rows.append({"kind": kind, "seed": seed, **_merged(thinned(some, rates, seed), seed)})
            write_csv(title, rows)
            click.echo(f"{kind:<22} " + "  ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "kind"))


def at_first_merge(data: ImageData, settings: dict[str, Any]) -> tuple[Joints, int, Clusters, Clusters]:
    """A run up to its first merge: its joint distributions, K, and of each trained image the over-cluster and the class."""
    trainer = Trainer(data, resolve(settings))
    if trainer.starts > 1:
        trainer.choose_start()
    while trainer.position.step < trainer.steering.merge_steps[0]:
        trainer.step()
    joints = estimate_joints(trainer.model, trainer.looked_at, trainer.policy)
    assert data.labels is not None
    with torch.no_grad():
        small = torch.cat(
            [trainer.model.encode(to_float(x)).auxiliary.argmax(1) for x in trainer.batches.images[trainer.batches.rows].split(1000)]
        ).numpy()
    return joints, trainer.spec.clusters, small, data.labels[split(len(data.images)).trained]


def _merged(data: ImageData, seed: int) -> dict[str, Any]:
    """The signs at the first merge of a run, and the accuracy of both kinds of groups."""
    joints, K, small, labels = at_first_merge(data, {"seed": seed})
    groups = {name: merge(joints, K, unequal=name == "unequal") for name in ("equal", "unequal")}
    return {
        **{name: round(value, 4) for name, value in unequal_signs(joints, K)._asdict().items()},
        "chosen": "unequal" if unequal_is_clearer(joints, K) else "equal",
        **{f"acc_{name}": round(label_scores(group[small], labels).acc, 4) for name, group in groups.items()},
    }


if __name__ == "__main__":
    main()
