"""Reject thresholds of a bundle: how low training-like images may score, and how little contrast have, before one is called unknown.

Scores are the finished graphs' own, in their precision, of images that were held back from training, or where there are none of some that
were not. Contrast asks no model: it is read from both.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from catvae.core.images.held_back import Calibration
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.manifest import Manifest, Scoring
from catvae.runtime.bundles.scoring import contrast, pixel_entropy
from catvae.runtime.errors import DataError

from .precision import Graphs

QUANTILE = 0.01
"""Share of images like those trained on that is called unknown, about."""
EACH = QUANTILE / 2
"""Share that lies below either threshold, of the bound and of the relative bound."""
FAINT = 0.5
"""The least contrast, as a part of the `QUANTILE` of contrasts: 0 where that is 0, because some images of training were blank."""
PIECE = 512
"""Images whose pixels are looked at a time."""
ENOUGH = 200
"""Images of a cluster that give it thresholds of its own: the lowest of two hundred is what `EACH` leaves below."""
UNWRITTEN = Path("the exported graphs")
"""Stands for the folder of a bundle that is still in memory."""


class Thresholds(NamedTuple):
    """Of one cluster, in nats."""

    bound: float
    """Below which the evidence lower bound of an image is too low."""
    relative: float
    """The same of the bound relative to the most that the image's pixels allow."""


def with_thresholds(manifest: Manifest, graphs: Graphs, calibration: Calibration) -> Manifest:
    """The manifest of these graphs with thresholds of their own; any that it has are forgotten."""
    bare = [msgspec.structs.replace(cluster, reject_threshold=None, reject_relative=None) for cluster in manifest.clusters]
    manifest = msgspec.structs.replace(manifest, clusters=bare, scoring=None)
    thresholds, scoring = calibrate(Bundle(manifest, graphs, UNWRITTEN), calibration)
    clusters = [
        msgspec.structs.replace(cluster, reject_threshold=own.bound, reject_relative=own.relative)
        for cluster, own in zip(bare, thresholds, strict=True)
    ]
    return msgspec.structs.replace(manifest, clusters=clusters, scoring=scoring, seal="")


def calibrate(bundle: Bundle, calibration: Calibration) -> tuple[list[Thresholds], Scoring]:
    """Thresholds for each cluster, and what they were read from.

    Where a cluster has too few images, it gets the thresholds of all.

    Raises
    ------
    DataError
        When no answer is a finite number.
    """
    held_back = len(calibration.held_back) > 0
    images = calibration.held_back if held_back else calibration.trained
    answers = bundle.examine(images, score=True)
    if not answers.finite.any():
        raise DataError(f"the model answers none of {len(images):,} of its own images with finite numbers: train it again")
    answers, images = answers.only(answers.finite), images[answers.finite]
    assert answers.score is not None
    bounds = answers.score.astype(np.float64)
    scores = np.stack([bounds, bounds + _in_pieces(pixel_entropy, images)])  # (2, N); no cluster is unknown yet: there are no thresholds
    own = [scores[:, answers.clusters == cluster] for cluster in range(len(bundle.names))]
    thresholds = [_thresholds(some if some.shape[1] >= ENOUGH else scores) for some in own]
    record = Scoring(
        images=len(images),
        held_back=held_back,
        quantile=QUANTILE,
        mean=round(float(bounds.mean()), 3),
        standard_deviation=round(float(bounds.std()), 3),
        least_contrast=least_contrast(calibration.held_back, calibration.trained),
    )
    return thresholds, record


def _thresholds(scores: NDArray[np.float64]) -> Thresholds:
    bound, relative = (_rounded_down(_quantile(some, EACH)) for some in scores)
    return Thresholds(bound, relative)


def least_contrast(*piles: NDArray[np.uint8]) -> float:
    """The contrast that images like these, each (N, H, W, C), do not fall below."""
    found = np.concatenate([_in_pieces(contrast, images) for images in piles])
    return _rounded_down(FAINT * _quantile(found.astype(np.float64), QUANTILE))


def _in_pieces(measure: Callable[[NDArray[np.uint8]], NDArray], images: NDArray[np.uint8]) -> NDArray:
    """A number of every image, (N,)."""
    return np.concatenate([measure(images[i : i + PIECE]) for i in range(0, max(1, len(images)), PIECE)])


def _rounded_down(threshold: float) -> float:
    """To 0.001: rounded up, it would call unknown all images that score alike, as empty ones do."""
    return math.floor(1000 * threshold) / 1000


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """A quantile, from below, so that no more than this share lies under it."""
    return float(np.sort(values)[math.floor(share * (len(values) - 1))])
