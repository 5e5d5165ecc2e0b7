"""Runs of `catvae-train` as a user makes them, in folders that are gone afterwards."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import RunRecord

TRAIN = str(Path(sys.executable).parent / "catvae-train")


@contextlib.contextmanager
def trained(source: str, *options: object) -> Iterator[RunFolder]:
    """The finished run of ``catvae-train SOURCE OPTIONS``, as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        subprocess.run([TRAIN, source, "-q", "-o", str(run), *map(str, options)], check=True, stdout=subprocess.DEVNULL)
        yield RunFolder(run)


@contextlib.contextmanager
def trained_on(images: NDArray[np.uint8], labels: NDArray[np.int64], *options: object) -> Iterator[RunFolder]:
    """The finished run on images (N, H, W) or (N, H, W, C) with labels (N,), which score it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "images.npz"
        np.savez(source, images=images, labels=labels)
        with trained(str(source), *options) as run:
            yield run


def verdict_of(record: RunRecord) -> str:
    """``healthy`` or ``degenerate``."""
    assert record.verdict is not None
    return record.verdict.status


def took_unequal(record: RunRecord) -> bool:
    """Whether groups of unequal size were taken at the first merge."""
    return any("unequal" in event.what for event in record.events)


def has(rows: list[dict[str, Any]], **key: object) -> bool:
    """Whether a row with these values was measured before; rows of an earlier call hold them as text."""
    return any(all(str(row[name]) == str(value) for name, value in key.items()) for row in rows)
