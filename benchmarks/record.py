"""What every result file begins with: where, with what, and from which commit it was measured."""

import csv
import io
import json
import os
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catvae.runtime.files import atomic_write

RESULTS = Path(__file__).resolve().parent / "results"


def autocast() -> Any:
    """bfloat16 where this processor computes in it: elsewhere it is emulated, twenty times as slow as float32."""
    import torch

    from catvae.core.machine.devices import resolve_precision

    return torch.autocast("cpu", torch.bfloat16, enabled=resolve_precision("auto", torch.device("cpu")) == "bf16")


CODE = [f"../{name}" for name in ("core", "kernels", "export", "runtime", "setup.py", "benchmarks")] + [":(exclude)../benchmarks/results"]
"""What must be unchanged for a result to belong to a commit, as git names it from this folder."""


def circumstances() -> dict[str, Any]:
    """Machine, versions and commit; changed code is named as such."""
    import torch

    from catvae.kernels.ops.node import node

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=RESULTS.parent).stdout.strip()

    told = [line.split(":") for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    about = {key.strip(): value.strip() for key, value in reversed(told)}
    cpu = about.get("model name", "")
    if cpu and "cpu family" in about:  # one name may be that of several generations
        cpu += f" (family {about['cpu family']}, model {about['model']})"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "--", *CODE) else ""),
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
        "node": "C++" if node() else "Python",
        "cuda": "not run: no GPU on this machine" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
    }


def write_csv(name: str, rows: list[dict[str, Any]]) -> Path:
    """`results/NAME.csv`, circumstances first as a comment line of JSON."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    text = io.StringIO()
    text.write("# " + json.dumps(circumstances()) + "\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))  # rows of an earlier call may know fewer
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())
    return path


SAME = ("cpu", "cores", "isa", "torch", "numpy")
"""What must be the same for rows to stand in one file."""


def rows_before(name: str) -> list[dict[str, Any]]:
    """Rows of `results/NAME.csv`, values as text, of this machine and where no code has changed since: what a stopped run has finished."""
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        found, here = json.loads(file.readline().removeprefix("# ")), circumstances()
        commit = found["commit"]
        if commit.endswith("+changes") or any(found.get(key) != here[key] for key in SAME):
            return []
        if subprocess.run(["git", "diff", "--quiet", commit, "--", *CODE], cwd=RESULTS.parent).returncode:
            return []
        return list(csv.DictReader(file))


def spread(values: list[float]) -> str:
    """Mean, standard deviation and minimum of a few runs."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"mean {statistics.mean(values):.4f}, sd {deviation:.4f}, min {min(values):.4f} over {len(values)} seeds"
