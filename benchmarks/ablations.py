"""What each part of the recipe is worth: `python -m benchmarks.ablations digits --seeds 3`.

Every row is one `catvae-train` run that differs from the defaults in one setting; the command that made it stands in the row. Labels score
finished runs alone. Rows already in the result file stay, and are not made again, unless the code has changed since.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from catvae.core.data import load_data
from catvae.core.model import CatVAE
from catvae.core.run_folder import RunFolder

from .judge import Judge
from .quality import spread
from .record import rows_before, write_csv

VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "one start instead of three": {"starts": 1},
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
}


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
        for seed in range(seeds):
            if any((row["variant"], int(row["seed"])) == (name, seed) for row in rows):
                continue
            record, generation = _train(data, settings, seed, lambda model: judge.agreement(model, images))
            rows.append(
                {
                    "variant": name,
                    "settings": json.dumps(settings),
                    "seed": seed,
                    **record["scores"]["train"],
                    "generation": generation,
                    "view_information": record["health"]["view_information"],
                    "elbo": record["bound"]["elbo"],
                    "verdict": record["verdict"]["status"],
                    "seconds": record["seconds"],
                }
            )
            write_csv(title, rows)
        mine = [row for row in rows if row["variant"] == name]
        found, drawn = ([float(row[score]) for row in mine] for score in ("acc", "generation"))
        click.echo(f"{name:<42} train ACC {spread(found)}; generation {spread(drawn)}")


def _train(data: str, settings: dict[str, Any], seed: int, judged: Callable[[CatVAE], float]) -> tuple[dict[str, Any], float]:
    """`run.json` of ``catvae-train DATA --config FILE --seed SEED``, and what is said of its model."""
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder) / "settings.json", Path(folder) / "run"
        file.write_text(json.dumps(settings), encoding="utf-8")
        command = [
            str(Path(sys.executable).parent / "catvae-train"),
            data,
            "-q",
            "--config",
            str(file),
            "--seed",
            str(seed),
            "-o",
            str(run),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads((run / "run.json").read_text()), judged(RunFolder(run).read_model())


if __name__ == "__main__":
    main()
