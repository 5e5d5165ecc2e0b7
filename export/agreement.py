"""The gate of reduced precision: the same clusters as in fp32 on real images, and what was gained, measured side by side."""

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.errors import DataError
from catvae.runtime.manifest import Quantisation
from catvae.runtime.session import Session

from .precision import Graphs, Precision

AT_LEAST = {"fp16": 0.999, "int8": 0.995}
"""Share of images that must keep their cluster."""
BATCHES = (1, 32)
ROUNDS = 40


class Speed(NamedTuple):
    """One row of what is printed."""

    precision: str
    size: int
    """Bytes of all graphs."""
    milliseconds: tuple[float, ...]
    """Of the classifier per run, at each of `BATCHES`; the median of `ROUNDS`, alternating between precisions."""


def check_agreement(full: Graphs, reduced: Graphs, precision: Precision, images: NDArray[np.uint8]) -> Quantisation:
    """Compare clusters of `images` (N, H, W, C); raises `DataError` when too many change."""
    expected, found = (np.argmax(_assignments(graphs, images), axis=1) for graphs in (full, reduced))
    agreement = float((expected == found).mean())
    if agreement < AT_LEAST[precision]:
        raise DataError(
            f"{precision}: {agreement:.2%} of {len(images):,} images keep their cluster, at least {AT_LEAST[precision]:.1%} must; nothing"
            " was written, use fp32"
        )
    return Quantisation(cluster_agreement=agreement, images=len(images), size_ratio=round(_size(reduced) / _size(full), 4))


def compare_speed(full: Graphs, reduced: Graphs, precision: Precision, images: NDArray[np.uint8]) -> list[Speed]:
    """Both precisions on this machine, one thread each, in one run."""
    graphs = {"fp32": full, precision: reduced}
    sessions = {name: Session(found["classifier"], name, threads=1) for name, found in graphs.items()}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for batch in BATCHES:
        feed = {"image": np.resize(images, (batch, *images.shape[1:]))}
        rounds: dict[str, list[float]] = {name: [] for name in graphs}
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                began = time.perf_counter()
                session.run(feed)
                rounds[name].append(time.perf_counter() - began)
        for name, seconds in rounds.items():
            times[name].append(1000 * float(np.median(seconds)))
    return [Speed(name, _size(found), tuple(times[name])) for name, found in graphs.items()]


def _assignments(graphs: Graphs, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = Session(graphs["classifier"], "classifier")
    return np.concatenate([session.run({"image": images[i : i + 64]})[0] for i in range(0, len(images), 64)])


def _size(graphs: Graphs) -> int:
    return sum(map(len, graphs.values()))
