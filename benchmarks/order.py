"""For how long the joint distribution of views is symmetrised, and a start is trained: `python -m benchmarks.order fashion-mnist`.

Every row is a run up to its first merge, from one start. *ordered*: from which share of it on the distribution is no longer symmetrised
(`SYMMETRIC` in `core/training/steps.py`); *never* is the mutual information as published. Labels give `acc` and `nmi`, and nothing else;
*kept*: views in the cluster of their image; *left*: by share, over-clusters in which fewer than a tenth of the views stay; *chosen*:
whether groups of unequal size would be taken, which is right on none of these sets.
"""

from pathlib import Path
from unittest.mock import patch

import click
import msgspec
import numpy as np

from catvae.core.clusters.merging import merge
from catvae.core.clusters.metrics import label_scores
from catvae.core.images.data import ImageData, load_data
from catvae.core.images.views import POLICIES
from catvae.core.training import steps

from .first_merge import at_first_merge
from .piles import PILES, pile
from .record import rows_before, write_csv
from .runs import has

LEAVE = 0.1
WHEN = {"never": 9.0, "from half on": 0.5, "from the first step": 0.0}


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
def main(data: str, seeds: int) -> None:
    """Train drawn parts, digits and DATA up to the first merge."""
    parts, rows = pile("parts", {"fit": "stretch"}), rows_before("order")
    cases: list[tuple[str, ImageData, int, int]] = [
        ("parts", parts, PILES["parts"][1], 1000),
        ("parts", parts, PILES["parts"][1], 2500),
        (Path(data).name, load_data(data), 10, 2500),
        ("digits", load_data("digits"), 10, 1000),
    ]
    for name, images, clusters, least in cases:
        for seed in range(seeds):
            for when, share in WHEN.items():
                case = {"images": name, "least_steps": least, "ordered": when, "seed": seed}
                if has(rows, **case):
                    continue
                longer = {policy: msgspec.structs.replace(POLICIES[policy], least_steps=least) for policy in POLICIES}
                with patch.object(steps, "SYMMETRIC", share), patch.dict(POLICIES, longer):
                    rows.append({**case, **_merged(images, {"seed": seed, "clusters": clusters, "starts": 1})})
                write_csv("order", rows)
                click.echo("  ".join(f"{key} {value}" for key, value in rows[-1].items()))


def _merged(images: ImageData, settings: dict[str, int]) -> dict[str, object]:
    begun = at_first_merge(images, settings)
    found = label_scores(merge(begun.joints, begun.K, unequal=begun.unequal)[begun.small], begun.labels)
    views = begun.joints.overclusters
    share = views.sum(1)
    left = float(share[np.diag(views) < LEAVE * share].sum())
    return {
        "kept": round(begun.joints.view_agreement, 4), "left": round(left, 4), "chosen": "unequal" if begun.unequal else "equal",
        "acc": round(found.acc, 4), "nmi": round(found.nmi, 4),
    }  # fmt: skip


if __name__ == "__main__":
    main()
