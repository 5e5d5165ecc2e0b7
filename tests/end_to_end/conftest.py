"""Real commands in real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def command(name: str, *arguments: object, cwd: Path, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
    """Run one of our commands; output as text."""
    return subprocess.run(
        [str(BIN / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, **env},
    )
