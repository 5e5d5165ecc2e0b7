"""Reject thresholds of a bundle: how low training-like images may score, and how little contrast have, before one is called unknown.

Scores are the finished graphs' own, in their precision, of images that were held back from training, or where there are none of some that
were not. Contrast asks no model: it is read from both.
"""

import math

import numpy as np
from numpy.typing import NDArray

from catvae.core.images.held_back import Calibration
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.manifest import Scoring
from catvae.runtime.bundles.scoring import contrast
from catvae.runtime.errors import DataError

QUANTILE = 0.01
"""Share of images like those trained on that is called unknown."""
FAINT = 0.5
"""The least contrast, as a part of the `QUANTILE` of contrasts: 0 where that is 0, because some images of training were blank."""
PIECE = 512
"""Images whose contrast is read at a time."""
ENOUGH = 100
"""Images of a cluster that give it a threshold of its own: the lowest of a hundred is its first percentile."""


def calibrate(bundle: Bundle, calibration: Calibration) -> tuple[list[float], Scoring]:
    """A threshold for each cluster, in nats, and what they were read from.

    Where a cluster has too few images, it gets the threshold of all.

    Raises
    ------
    DataError
        When no answer is a finite number.
    """
    held_back = len(calibration.held_back) > 0
    images = calibration.held_back if held_back else calibration.trained
    answers = bundle.examine(images, score=True)
    answers = answers.only(answers.finite)
    if not len(answers.assignment):
        raise DataError(f"the model answers none of {len(images):,} of its own images with finite numbers: train it again")
    assert answers.score is not None
    clusters, scores = answers.clusters, answers.score.astype(np.float64)  # not yet unknown: there is no threshold to score below
    overall = _quantile(scores)
    thresholds = []
    for cluster in range(len(bundle.names)):
        own = scores[clusters == cluster]
        thresholds.append(_rounded_down(_quantile(own) if len(own) >= ENOUGH else overall))
    record = Scoring(
        images=len(images),
        held_back=held_back,
        quantile=QUANTILE,
        mean=round(float(scores.mean()), 3),
        standard_deviation=round(float(scores.std()), 3),
        least_contrast=least_contrast(np.concatenate([calibration.held_back, calibration.trained])),
    )
    return thresholds, record


def least_contrast(images: NDArray[np.uint8]) -> float:
    """The contrast that images like these (N, H, W, C) do not fall below."""
    found = [contrast(images[i : i + PIECE]) for i in range(0, len(images), PIECE)]
    return _rounded_down(FAINT * _quantile(np.concatenate(found).astype(np.float64)))


def _rounded_down(threshold: float) -> float:
    """To 0.001: rounded up, it would call unknown all images that score alike, as empty ones do."""
    return math.floor(1000 * threshold) / 1000


def _quantile(values: NDArray[np.float64]) -> float:
    """The `QUANTILE`, from below, so that no more than this share lies under it."""
    return float(np.sort(values)[math.floor(QUANTILE * (len(values) - 1))])
