"""Rebuilds the digits bundle that ships inside the package: `python -m catvae.export.pretrained [MNIST]`.

Trains the default recipe on MNIST (fetched from OpenML, or a folder with its IDX files) from one or more seeds, keeps the run whose
assignments share the most information with those of their views in the last epoch, exports it, and replaces
`runtime/pretrained/digits`. The hidden layer is half as wide as usual, so that the bundle stays below 5 MB. Labels name the clusters and
score the result; they choose nothing. A finished run is not trained again.
"""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import click

from catvae.runtime.bundle import PRETRAINED


@click.command()
@click.argument("data", default="mnist")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/pretrained"), show_default=True, help="Folder of the runs.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs to choose from.")
@click.option("--target", type=click.Path(path_type=Path), default=PRETRAINED / "digits", show_default=True)
def build(data: str, work: Path, seeds: int, target: Path) -> None:
    """Train on DATA and replace the packaged bundle."""
    runs = [work / f"seed-{seed}" for seed in range(seeds)]
    for seed, run in enumerate(runs):
        if not (run / "model.safetensors").exists():
            work.mkdir(parents=True, exist_ok=True)
            (work / "small.json").write_text('{"hidden": 128}\n', encoding="utf-8")
            command("catvae-train", data, "--config", work / "small.json", "--seed", seed, "-o", run, "--overwrite")
    found = {run: view_information(run) for run in runs}
    best = max(found, key=lambda run: found[run])
    for run, value in found.items():
        click.echo(f"{run}: {value:.4f} nats shared with views{'  <- kept' if run == best else ''}")
    command("catvae-export", "--onnx", best, "-o", best / "bundle", "--overwrite")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(best / "bundle", target)
    click.echo(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.2f} MB")


def command(name: str, *arguments: object) -> None:
    """Run one of our commands; a failure ends the build."""
    subprocess.run([str(Path(sys.executable).parent / name), *map(str, arguments)], check=True)


def view_information(run: Path) -> float:
    """Mutual information between assignments and those of views, of the last epoch, in nats: higher is better, no label involved."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return float(list(csv.DictReader(file))[-1]["invariance"])


if __name__ == "__main__":
    build()
