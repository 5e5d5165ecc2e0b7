"""What each part of the recipe is worth, and what was tried beside it: `python -m benchmarks.ablations digits --seeds 3`.

Every row is one run as `catvae-train` makes it that differs from the defaults in one setting, or in one of the `ingredients` that are no
part of the recipe; `--only NAME` repeats it. Labels score finished runs alone. `acc_views` is the accuracy of assignments averaged over
the image and four views. Rows already in the result file stay, and are not made again, unless the code has changed since.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from catvae.core.clusters.metrics import label_scores
from catvae.core.config import resolve
from catvae.core.images.data import ImageData, load_data
from catvae.core.images.pieces import to_float
from catvae.core.images.views import ViewPolicy, random_view
from catvae.core.machine.devices import resolve_precision
from catvae.core.runs.evaluation import assign
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin
from catvae.core.runs.session import Session
from catvae.core.vae.model import CatVAE

from .ingredients import TRIED, in_place
from .judge import Judge
from .record import rows_before, spread, write_csv
from .runs import has

VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "one start": {"starts": 1},
    "no merges of over-clusters": {"regroup": []},
    "no over-clusters": {"overclusters": 0, "regroup": []},
    "over-clusters 10 per cluster": {"overclusters": 10},
    "no warm start": {"warm_start": 0.0},
    "marginal weight 1": {"marginal_weight": 1.0},
    "views: noise alone": {"augment": "none"},
    "views: those of objects": {"augment": "objects"},
    "no views": {"invariance_weight": 0.0, "overclusters": 0, "regroup": [], "neg_entropy_weight": 1.0},
    "no information term": {"objective": "catvae"},
    "generated: both sides learn": {"information_trains": "both"},
    "generated: read without a view": {"information_views": False},
    "generated: both learn, no view, weight 2": {"information_trains": "both", "information_views": False, "information_weight": 2.0},
    "fp32": {"precision": "fp32"},
    **{name: {"regroup": []} if "instead of merges" in name else {} for name in TRIED},
}
VIEWS = 4


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--only", multiple=True, help="Only variants with this in their name; repeatable.")
def main(data: str, seeds: int, only: tuple[str, ...]) -> None:
    """Train DATA with one part changed at a time."""
    title = f"ablations-{Path(data).name}"
    rows = rows_before(title)
    images = load_data(data)
    judge = Judge(images)
    for name, settings in VARIANTS.items():
        if only and not any(part in name for part in only):
            continue
        if settings == {"precision": resolve_precision("auto", torch.device("cpu"))}:
            click.echo(f"{name}: is what `auto` takes on this machine")
            continue
        for seed in range(seeds):
            if has(rows, variant=name, seed=seed):
                continue
            rows.append({"variant": name, "settings": json.dumps(settings), "seed": seed, **_trained(data, images, name, seed, judge)})
            write_csv(title, rows)
        mine = [row for row in rows if row["variant"] == name]
        found, drawn = ([float(row[score]) for row in mine] for score in ("acc", "generation"))
        click.echo(f"{name:<42} train ACC {spread(found)}; generation {spread(drawn)}")


def _trained(source: str, data: ImageData, name: str, seed: int, judge: Judge) -> dict[str, Any]:
    """Scores of one run of a variant."""
    with tempfile.TemporaryDirectory() as folder, in_place(TRIED.get(name)):
        config = resolve({**VARIANTS[name], "seed": seed})
        session = Session.start(RunFolder(Path(folder) / "run"), data, config, Origin.of(source))
        session.train()
        record, model = session.finish(), session.trainer.model
    assert data.labels is not None
    return {
        **record.scores["train"],
        "acc_views": label_scores(_seen_often(model, data, session.trainer.policy).argmax(1), data.labels).acc,
        "generation": judge.agreement(model, data),
        **{name: record.health[name] for name in ("view_information", "neighbour_information")},
        "elbo": record.bound["elbo"],
        "verdict": record.verdict.status if record.verdict else "",
        "seconds": record.seconds,
        "precision": record.precision,
    }


@torch.no_grad()
def _seen_often(model: CatVAE, data: ImageData, policy: ViewPolicy) -> np.ndarray:
    """Assignments (N, K) averaged over each image and `VIEWS` views of it."""
    torch.manual_seed(0)
    total = assign(model, data.images)
    for start in range(0, len(total), 1024):
        x = to_float(torch.from_numpy(data.images[start : start + 1024]))
        for _ in range(VIEWS):
            total[start : start + 1024] += model(random_view(x, policy)).numpy()
    return total


if __name__ == "__main__":
    main()
