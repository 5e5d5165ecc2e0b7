"""Images kept out of training, and a sample of those kept in: what export calibrates reject thresholds and 8-bit ranges with.

Which images depends on their number alone, so every seed, every resumed run and every recipe holds back the same ones.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from catvae.runtime.errors import DataError
from catvae.runtime.files import atomic_write
from catvae.runtime.sampling import scattered

FILE = "calibration.safetensors"
SHARE = 0.05
MOST, LEAST = 1000, 50
"""Images held back: a twentieth, at most a thousand; where a twentieth is fewer than 50, a threshold would be noise and none are."""
SAMPLE = 512
"""Training images kept with a run."""


class Split(NamedTuple):
    """Rows of the training data, each sorted."""

    trained: NDArray[np.int64]
    held_back: NDArray[np.int64]


class Calibration(NamedTuple):
    """What a run folder keeps of its images, each (n, H, W, C) uint8."""

    trained: NDArray[np.uint8]
    held_back: NDArray[np.uint8]
    """Empty where the data was too small to hold any back."""


def split(count: int) -> Split:
    """The rows that are trained on and those that are held back, of `count`."""
    held = min(MOST, round(SHARE * count))
    held = held if held >= LEAST else 0
    order = np.random.default_rng(0x4E1D).permutation(count)
    return Split(np.sort(order[held:]), np.sort(order[:held]))


def write_calibration(folder: Path, images: NDArray[np.uint8]) -> None:
    """Keep a sample of `images` (N, H, W, C), the run's training data, in its folder."""
    rows = split(len(images))
    sample = rows.trained[scattered(len(rows.trained), SAMPLE)]
    kept = {"trained": np.ascontiguousarray(images[sample]), "held_back": np.ascontiguousarray(images[rows.held_back])}
    atomic_write(folder / FILE, safetensors.numpy.save(kept))


def read_calibration(folder: Path) -> Calibration:
    """What `write_calibration` kept; raises `DataError` when it is missing or damaged."""
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"{path} is missing: the images that thresholds are read from; restore it, or train again")
    try:
        kept = safetensors.numpy.load(path.read_bytes())
        return Calibration(kept["trained"], kept["held_back"])
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
