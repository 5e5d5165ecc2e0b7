"""Training beside other work: `python -m benchmarks.together`.

One training alone, then two of the same at once, on all processors; one after the other they would take twice as long as one. Rows:
threads that wait as PyTorch's do, as `catvae-train` lets them (`core/machine/waiting.py`), or sleep at once; with our kernel, where the
weights of convolutions learn without threads that wait (`kernels/ops/convolving.py`), and in plain PyTorch. Wall time, start included.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from catvae.core.images.data import load_data
from catvae.core.machine.waiting import SPIN_ROUNDS, SPIN_VARIABLE

from .piles import pile
from .record import circumstances, write_csv

WAITS = {"PyTorch's own": "300000", "ours": SPIN_ROUNDS, "asleep at once": "0"}
"""Rounds; the first is what GNU's OpenMP takes where nothing is said."""
LAYERS = {"ours": {}, "plain PyTorch": {"CATVAE_KERNEL": "off"}}
PILES = {
    "digits, 8 x 8, grey": (lambda: load_data("digits"), 10, 20),
    "parts, 32 x 32, colour": (lambda: pile("parts", {"fit": "stretch"}), 6, 3),
}
"""Images, clusters, epochs."""


@click.command()
def main() -> None:
    """Time trainings and write results/together.csv."""
    click.echo(str(circumstances()))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (load, clusters, epochs) in PILES.items():
            source = Path(folder) / "images.npz"
            np.savez(source, images=load().images)
            options = [str(source), "-q", "-k", str(clusters), "--epochs", str(epochs)]
            for layers, switch in LAYERS.items():
                for wait, rounds in WAITS.items():
                    environment = {**os.environ, **switch, SPIN_VARIABLE: rounds}
                    alone, both = (seconds_of(count, options, environment) for count in (1, 2))
                    rows.append(
                        {
                            "images": name, "layers": layers, "threads wait": wait,
                            "alone_s": f"{alone:.1f}", "two_s": f"{both:.1f}", "two_over_alone": f"{both / alone:.2f}",
                        }
                    )  # fmt: skip
                    click.echo("  ".join(rows[-1].values()))
    click.echo(f"written to {write_csv('together', rows)}")


def seconds_of(count: int, options: list[str], environment: dict[str, str]) -> float:
    """Of `count` trainings at once, until the last is done."""
    train = str(Path(sys.executable).parent / "catvae-train")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        running = [
            subprocess.Popen(
                [train, *options, "-o", f"{folder}/{i}"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for i in range(count)
        ]
        if any(process.wait() for process in running):
            raise click.ClickException("a training failed")
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
