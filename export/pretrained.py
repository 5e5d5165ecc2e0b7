"""Rebuilds the digits bundle that ships inside the package: `python -m catvae.export.pretrained [MNIST]`.

Trains the default recipe on MNIST (fetched from OpenML, or a folder with its IDX files), keeps the best of several seeds as
`catvae-train --seeds` does, exports it, and replaces `runtime/pretrained/digits`. The hidden layer is half as wide as usual, so that the
bundle stays below 5 MB. Labels name the clusters and score the result; they choose nothing. An interrupted or finished run is not begun
again.
"""

import subprocess
import sys
from pathlib import Path

import click

from catvae.core.launch import can_go_on
from catvae.core.runs.folder import RunFolder
from catvae.runtime.bundles.bundle_files import PRETRAINED


@click.command()
@click.argument("data", default="mnist")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/pretrained"), show_default=True, help="Run folder.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs to choose from.")
@click.option("--target", type=click.Path(path_type=Path), default=PRETRAINED / "digits", show_default=True)
def build(data: str, work: Path, seeds: int, target: Path) -> None:
    """Train on DATA and replace the packaged bundle."""
    if not RunFolder(work).complete:
        if can_go_on(work):
            command("catvae-train", "--resume", work)
        else:
            work.parent.mkdir(parents=True, exist_ok=True)
            settings = work.with_name(f"{work.name}.json")
            settings.write_text('{"hidden": 128}\n', encoding="utf-8")
            command("catvae-train", data, "--config", settings, "--seeds", seeds, "-o", work, "--overwrite")
    command("catvae-export", "--onnx", work, "-o", target, "--overwrite")
    click.echo(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.2f} MB")


def command(name: str, *arguments: object) -> None:
    """Run one of our commands; a failure ends the build."""
    subprocess.run([str(Path(sys.executable).parent / name), *map(str, arguments)], check=True)


if __name__ == "__main__":
    build()
