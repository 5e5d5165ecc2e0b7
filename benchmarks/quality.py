"""Clusters, bound and generation over seeds: `python -m benchmarks.quality digits --seeds 5`.

Every run is one `catvae-train` with the defaults, or with the options given after `--`. Labels score the finished runs and nothing else.
The last lines are mean, standard deviation and minimum. Rows are written as soon as their run is finished, and rows of an earlier call
with the same name are kept: `--first-seed` goes on where it stopped.
"""

import csv
from pathlib import Path

import click

from catvae.core.images.data import load_data

from .judge import Judge
from .record import RESULTS, spread, write_csv
from .runs import trained, verdict_of


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Rows of earlier seeds are kept.")
@click.option("--name", help="Of the result file. [default: quality-NAME-OF-DATA]")
@click.option("--judge/--no-judge", default=True, help="Score generated images by a classifier trained on real labels.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(data: str, seeds: int, first_seed: int, name: str | None, judge: bool, options: tuple[str, ...]) -> None:
    """Train DATA from several seeds and score the runs; OPTIONS go to catvae-train."""
    title = name or f"quality-{Path(data).name}"
    rows = _earlier(title, first_seed) if first_seed else []
    images = load_data(data)
    judged = Judge(images) if judge else None
    if judged:
        click.echo(f"judge: accuracy {judged.accuracy:.4f} on images it was not trained on")
    for seed in range(first_seed, first_seed + seeds):
        with trained(data, "--seed", seed, *options) as run:
            record, generation = run.read_record(), judged.agreement(run.read_model(), images) if judged else ""
        common = {
            "generation": generation,
            "judge": judged.accuracy if judged else "",
            "generation_ceiling": record.bound["generation_ceiling"],
            **{key: record.bound[key] for key in ("elbo", "nll", "nll_error")},
            **{key: record.health[key] for key in ("perplexity", "active", "smallest_share", "mean_confidence", "information")},
            **{key: record.health[key] for key in ("view_information", "neighbour_information", "view_agreement")},
            "clusters": record.spec.clusters,
            "verdict": verdict_of(record),
            "seconds": record.seconds,
            "precision": record.precision,
        }
        for part, score in record.scores.items():
            rows.append({"data": Path(data).name, "options": " ".join(options), "seed": seed, "part": part, **score, **common})
            click.echo(
                f"seed {seed} {part:<5} ACC {score['acc']:.4f}  NMI {score['nmi']:.4f}  ARI {score['ari']:.4f}  ECE {score['ece']:.4f}"
                f"  generation {generation or float('nan'):.4f}  nll {common['nll']:.1f}  {record.seconds:.0f} s"
            )
        write_csv(title, rows)
    for part in dict.fromkeys(str(row["part"]) for row in rows):
        for score in ("acc", "nmi", "ari"):
            click.echo(f"{part} {score.upper()}: {spread([float(str(row[score])) for row in rows if row['part'] == part])}")


def _earlier(title: str, before: int) -> list[dict[str, object]]:
    path = RESULTS / f"{title}.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        file.readline()
        return [dict(row) for row in csv.DictReader(file) if int(row["seed"]) < before]


if __name__ == "__main__":
    main()
