"""How well the clusters agree with classes, over seeds: `python -m benchmarks.quality digits --seeds 5`.

Every row is one `catvae-train` run with the defaults, or with the options given after `--`; the last line is mean, standard deviation and
minimum. Labels score the finished runs and nothing else. A row is written as soon as its run is finished.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from .record import write_csv


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--name", help="Of the result file. [default: quality-NAME-OF-DATA]")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(data: str, seeds: int, name: str | None, options: tuple[str, ...]) -> None:
    """Train DATA from seeds 0 to SEEDS - 1 and score the runs; OPTIONS go to catvae-train."""
    rows: list[dict[str, object]] = []
    title = name or f"quality-{Path(data).name}"
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            command = [str(Path(sys.executable).parent / "catvae-train"), data, "-q", "--seed", str(seed), "-o", str(run), *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            record = json.loads((run / "run.json").read_text())
        for part, score in record["scores"].items():
            rows.append({"data": Path(data).name, "options": " ".join(options), "seed": seed, "part": part, **score, **_common(record)})
            click.echo(
                f"seed {seed} {part:<5} ACC {score['acc']:.4f}  NMI {score['nmi']:.4f}  ARI {score['ari']:.4f}  {record['seconds']:.0f} s"
            )
        write_csv(title, rows)
    for part in dict.fromkeys(str(row["part"]) for row in rows):
        values = [float(str(row["acc"])) for row in rows if row["part"] == part]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        click.echo(f"{part}: ACC mean {statistics.mean(values):.4f}, sd {spread:.4f}, min {min(values):.4f} over {len(values)} seeds")


def _common(record: dict) -> dict[str, object]:
    return {"perplexity": record["health"]["perplexity"], "seconds": record["seconds"], "precision": record["precision"]}


if __name__ == "__main__":
    main()
