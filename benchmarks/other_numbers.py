"""Fewer and more clusters than there are classes: `python -m benchmarks.other_numbers digits --seeds 2`.

Every row is one `catvae-train -k K` with nothing else but its seed. With fewer clusters than classes each class should stay whole
(completeness), with more each cluster should hold one class (homogeneity, purity); ACC allows each class one cluster and cannot be high
then. What the run itself says of its clusters, without labels, stands beside. Rows already in the result file stay, unless the code has
changed since.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.metrics import homogeneity_completeness_v_measure

from catvae.core.images.data import ImageData, load_data
from catvae.core.runs.evaluation import assign
from catvae.runtime.bundles.matching import contingency

from .record import rows_before, write_csv
from .runs import has, trained

NUMBERS = (5, 8, 10, 12, 15, 20)
"""Of clusters; the data sets of this project have ten classes."""
SCORES = ("homogeneity", "completeness", "purity", "acc")


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
def main(data: str, seeds: int) -> None:
    """Train DATA with several numbers of clusters."""
    title = f"other-numbers-{Path(data).name}"
    rows, images = rows_before(title), load_data(data)
    for clusters in NUMBERS:
        for seed in range(seeds):
            if not has(rows, clusters=clusters, seed=seed):
                rows.append({"clusters": clusters, "seed": seed, **_trained(data, images, clusters, seed)})
                write_csv(title, rows)
        mine = [row for row in rows if int(row["clusters"]) == clusters]
        scores = "  ".join(f"{name} {np.mean([float(row[name]) for row in mine]):.3f}" for name in SCORES)
        click.echo(f"K={clusters:<4} {scores}  said: {' | '.join(str(row['said']) for row in mine)}")


def _trained(source: str, images: ImageData, clusters: int, seed: int) -> dict[str, Any]:
    """Scores of ``catvae-train SOURCE -k CLUSTERS --seed SEED`` and its verdict."""
    assert images.labels is not None
    with trained(source, "-k", clusters, "--seed", seed) as run:
        record, found = run.read_record(), assign(run.read_model(), images.images).argmax(1)
    counts = contingency(found, images.labels, (clusters, int(images.labels.max()) + 1))
    homogeneity, completeness, _ = homogeneity_completeness_v_measure(images.labels, found)
    assert record.verdict is not None
    return {
        "homogeneity": round(homogeneity, 4),
        "completeness": round(completeness, 4),
        "purity": round(counts.max(1).sum() / counts.sum(), 4),
        **record.scores["train"],
        "smallest_share": record.health["smallest_share"],
        "view_agreement": record.health["view_agreement"],
        "verdict": record.verdict.status,
        "said": "; ".join([*record.verdict.reasons, *record.verdict.notes]),
    }


if __name__ == "__main__":
    main()
