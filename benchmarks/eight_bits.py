"""What equalised channels and a first convolution in fp32 are worth to a classifier of 8 bits: `python -m benchmarks.eight_bits RUN...`.

Rows per run: images that keep their cluster, of those that the run kept, size and speed beside fp32. No label is read.
"""

from functools import partial
from pathlib import Path

import click
import numpy as np

from catvae.core.images.held_back import read_calibration
from catvae.core.runs.folder import RunFolder
from catvae.export.description import graph_metadata
from catvae.export.graphs import graph_specs, trace
from catvae.export.precision import run_over, to_int8
from catvae.runtime.bundles.session import Session

from .record import circumstances, write_csv
from .timing import compare

FORMS = {
    "all in 8 bits": {"equalised": False, "outermost": True},
    "first convolution in fp32": {"equalised": False},
    "equalised": {"outermost": True},
    "equalised, first convolution in fp32": {},
}
BATCH = 32


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--seconds", default=2.0, show_default=True, help="Time spent on each row, about.")
def main(runs: tuple[Path, ...], seconds: float) -> None:
    """Export the classifier of every RUN in each form and write results/eight-bits.csv."""
    click.echo(str(circumstances()))
    rows: list[dict[str, object]] = []
    for run in runs:
        folder, calibration = RunFolder(run), read_calibration(run)
        record = folder.read_record()
        (spec,) = (spec for spec in graph_specs(folder.read_model()) if spec.role == "classifier")
        full = trace(spec, graph_metadata(record, "0" * 64))
        images = np.concatenate([calibration.held_back, calibration.trained])
        graphs = {"fp32": full} | {name: to_int8(full, calibration.trained, **options) for name, options in FORMS.items()}
        answers = {name: run_over({"classifier": graph}, "classifier", images, "assignment") for name, graph in graphs.items()}
        sessions = {name: Session(graph, name, threads=1) for name, graph in graphs.items()}
        feed = {"image": images[:BATCH]}
        times = compare({name: partial(session.run, feed) for name, session in sessions.items()}, seconds)
        for name, graph in graphs.items():
            same = answers[name].argmax(1) == answers["fp32"].argmax(1)
            rows.append(
                {
                    "run": record.data.name, "form": name, "images": len(images), "same_cluster": f"{same.mean():.4f}",
                    "mean_difference": f"{np.abs(answers[name] - answers['fp32']).mean():.2e}",
                    "size": f"{len(graph) / len(full):.3f}", "ms": f"{times[name][0]:.3f}",
                    "speed": f"{times['fp32'][0] / times[name][0]:.2f}",
                }
            )  # fmt: skip
            click.echo("  ".join(str(value) for value in rows[-1].values()))
    click.echo(f"written to {write_csv('eight-bits', rows)}")


if __name__ == "__main__":
    main()
