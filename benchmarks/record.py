"""What every result file begins with: where, with what, and from which commit it was measured."""

import csv
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


CODE = [f"../{name}" for name in ("core", "kernels", "export", "runtime", "setup.py", "benchmarks")] + [":(exclude)../benchmarks/results"]
"""What must be unchanged for a result to belong to a commit, as git names it from this folder."""


def circumstances() -> dict[str, Any]:
    """Machine, versions and commit; changed code is named as such."""
    import torch

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=RESULTS.parent).stdout.strip()

    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "--", *CODE) else ""),
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
        "cuda": "not run: no GPU on this machine" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
    }


def write_csv(name: str, rows: list[dict[str, Any]]) -> Path:
    """`results/NAME.csv`, circumstances first as a comment line of JSON."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write("# " + json.dumps(circumstances()) + "\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
