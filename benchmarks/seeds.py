"""What keeping one of several runs is worth: `python -m benchmarks.seeds digits --seeds 20`.

Every run is one `catvae-train` with nothing but its seed. All groups of 2, 3 and 5 of these runs are what `--seeds` could have
met: for each rule that could choose among them, without labels, the accuracy of the run it keeps, and how often that is the worst.
Labels score the finished runs. Runs that a stopped call has finished are kept in `build/`, unless the code has changed since.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.metrics import adjusted_rand_score

from catvae.core.images.data import load_data
from catvae.core.runs.evaluation import assign
from catvae.core.runs.seeds import compared_images

from .record import RESULTS, circumstances, rows_before, write_csv
from .runs import trained, verdict_of

GROUPS = 2, 3, 5
"""Runs of a group."""

LOW = 0.05
"""Share of the groups that do worse is told beside mean and minimum."""

Row = dict[str, Any]
Group = tuple[int, ...]
Rule = Callable[[Group], int]
"""Which of a group is kept."""


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(max(GROUPS)), default=10, show_default=True)
def main(data: str, seeds: int) -> None:
    """Train DATA from several seeds, then choose among them by every rule."""
    click.echo(str(circumstances()))
    name, images = f"seeds-{Path(data).name}", load_data(data)
    compared = compared_images(images)
    for line in summary(collected(name, seeds, lambda seed: _train(data, seed, compared))):
        click.echo(line)


def collected(name: str, seeds: int, make: Callable[[int], tuple[Row, np.ndarray]]) -> list[Row]:
    """Rows of `results/NAME.csv`, one for each seed, with how far its clusters agree with those of earlier ones.

    `make` gives a row and the clusters of images, which are kept: what a stopped call has finished is not made again.
    """
    kept = RESULTS.parent.parent / "build" / name
    kept.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = [row for row in rows_before(name) if (kept / f"{row['seed']}.npy").is_file()][:seeds]
    for seed in range(len(rows), seeds):
        row, clusters = make(seed)
        np.save(kept / f"{seed}.npy", clusters)
        others = [adjusted_rand_score(np.load(kept / f"{other}.npy"), clusters) for other in range(seed)]
        rows.append({**row, "agreement_with_earlier": " ".join(f"{value:.4f}" for value in others)})
        write_csv(name, rows)
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))
    return rows


def _train(data: str, seed: int, compared: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    with trained(data, "--seed", seed) as run:
        record, clusters = run.read_record(), assign(run.read_model(), compared).argmax(1).astype(np.int16)
    health = {key: record.health[key] for key in ("neighbour_information", "view_information", "information", "view_agreement")}
    row = {"seed": seed, "acc": record.scores["train"]["acc"], "elbo": record.bound["elbo"], **health}
    return {**row, "verdict": verdict_of(record), "seconds": record.seconds, "precision": record.precision}, clusters


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """A line for every rule and size of groups."""
    acc, agreement = np.array([float(row["acc"]) for row in rows]), mutual_agreement(rows)
    columns = {key: np.array([float(row[key]) for row in rows]) for key in ("view_information", "neighbour_information", "elbo")}
    rules: dict[str, Rule] = {
        "agrees most with the others": lambda group: group[int(agreement[np.ix_(group, group)].sum(1).argmax())],
        "shares most with views": lambda group: group[int(columns["view_information"][list(group)].argmax())],
        "shares most with neighbours": lambda group: group[int(columns["neighbour_information"][list(group)].argmax())],
        "has the highest bound": lambda group: group[int(columns["elbo"][list(group)].argmax())],
    }
    return kept_by(acc, rules, GROUPS)


def mutual_agreement(rows: list[dict[str, Any]]) -> np.ndarray:
    """Adjusted Rand index of every two rows, (n, n)."""
    agreement = np.eye(len(rows))
    for i, row in enumerate(rows):
        agreement[i, :i] = agreement[:i, i] = [float(value) for value in str(row["agreement_with_earlier"]).split()]
    return agreement


def kept_by(acc: np.ndarray, rules: dict[str, Rule], sizes: tuple[int, ...]) -> list[str]:
    """All rows' accuracy, then what each rule keeps of all groups of every size."""
    lines = [f"all {len(acc)}: ACC mean {acc.mean():.4f}, sd {acc.std(ddof=1):.4f}, min {acc.min():.4f}, max {acc.max():.4f}"]
    for size in sizes:
        groups = list(itertools.combinations(range(len(acc)), size))
        for rule, choose in rules.items():
            chosen = np.array([acc[choose(group)] for group in groups])
            worst = np.mean([found == acc[list(group)].min() for found, group in zip(chosen, groups, strict=True)])
            low = np.quantile(chosen, LOW)
            said = f"ACC mean {chosen.mean():.4f}, {LOW:.0%} below {low:.4f}, min {chosen.min():.4f}; the worst of its group in {worst:.0%}"
            lines.append(f"of {size}, the one that {rule:<28} {said}")
    return lines


if __name__ == "__main__":
    main()
