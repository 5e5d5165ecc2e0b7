"""The gate of reduced precision: the clusters and reconstructions of fp32 on real images, its drawings, and what was gained, measured side
by side.
"""

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catvae.core.images.held_back import Calibration
from catvae.runtime.bundles.manifest import Quantisation
from catvae.runtime.bundles.session import Session
from catvae.runtime.errors import DataError

from .precision import Graphs, Precision, drawn, run_over

AT_LEAST = {"fp16": 0.999, "int8": 0.995}
"""Share of images that must keep their cluster."""
PIXELS = {"fp16": 0.002, "int8": 0.02}
"""Mean |difference| of reconstructions, and of drawings, in [0, 1], at most: half a grey level of 255, and five."""
BATCHES = (1, 32)
ROUNDS = 40


class Speed(NamedTuple):
    """One row of what is printed."""

    precision: str
    size: int
    """Bytes of all graphs."""
    milliseconds: tuple[float, ...]
    """Of the classifier per run, at each of `BATCHES`; the median of `ROUNDS`, alternating between precisions."""


def check_agreement(
    full: Graphs, reduced: Graphs, precision: Precision, calibration: Calibration, means: NDArray[np.float32]
) -> Quantisation:
    """Compare clusters and reconstructions of the images that a run kept, and drawings from the prior.

    Raises
    ------
    DataError
        When too many clusters, or pictures too much, change.
    """
    instead = "export with --fp16, which is half the size, or without either" if precision == "int8" else f"export without --{precision}"
    images = np.concatenate([calibration.held_back, calibration.trained])
    expected, found = (run_over(graphs, "classifier", images, "assignment").argmax(1) for graphs in (full, reduced))
    agreement = float((expected == found).mean())
    if agreement < AT_LEAST[precision]:
        raise DataError(
            f"{precision}: {agreement:.2%} of {len(images):,} images keep their cluster, at least {AT_LEAST[precision]:.1%} must; nothing"
            f" was written: {instead}"
        )
    kept = [run_over(graphs, "encoder", images, "mean") for graphs in (full, reduced)]
    reconstructions = _pixels_apart(full, reduced, *kept)
    latents = drawn(means, seed=1)  # others than ranges were read from
    drawings = _pixels_apart(full, reduced, latents, latents)
    for what, apart in ((f"reconstructions of {len(images):,} images", reconstructions), (f"{len(latents):,} drawings", drawings)):
        if not apart <= PIXELS[precision]:  # also catches NaN
            raise DataError(
                f"{precision}: {what} differ by {apart:.4f} of full scale, at most {PIXELS[precision]} is accepted; nothing was written:"
                f" {instead}"
            )
    return Quantisation(
        cluster_agreement=agreement,
        images=len(images),
        held_back=len(calibration.held_back),
        pixel_difference=float(f"{reconstructions:.3g}"),
        drawing_difference=float(f"{drawings:.3g}"),
        mean_difference=float(f"{np.abs(kept[1] - kept[0]).mean() / max(float(kept[0].std()), 1e-6):.3g}"),
        size_ratio=round(_size(reduced) / _size(full), 4),
    )


def _pixels_apart(full: Graphs, reduced: Graphs, latents: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Mean |difference| of what the one decoder draws from `latents` and the other from `others`."""
    return float(np.abs(run_over(full, "decoder", latents, "image") - run_over(reduced, "decoder", others, "image")).mean())


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


def _size(graphs: Graphs) -> int:
    return sum(map(len, graphs.values()))
