"""Which views suit a pile of images, by their symmetry and without labels: writing or things, and things that stand or lie at any angle.

The views themselves are in `views`.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray

from catvae.runtime.sampling import scattered

MIRRORED = 0.62
"""Mean correlation with their own mirror image from which on grey images are of things, not of writing."""
NO_UP = 0.03
"""Images have an up if they correlate with themselves upside down less than with their mirror image by more than this: landscapes have a
sky."""
UPRIGHT = 0.75
"""`upright_accuracy` from which on images have an up; `benchmarks/symmetry.py` measures it on several sets."""
FEWEST, MANY = 50, 300
"""Images below which nothing is decided, and from which on their mean image is subtracted."""
COARSE_SIDE = 8
"""Side of the coarse images that are compared."""
FOLDS = 5
"""Folds of the cross-validation, drawn at random: every n-th image may be of one kind."""
AT_A_TIME = 2**22
"""Values converted to floats at a time, 16 MB for each copy: frames may be large."""


def lie_at_any_angle(images: NDArray[np.uint8], mirrored: float) -> bool:
    """Whether nobody could say which way up the images belong, as of things on a belt, under a microscope or seen from above.

    Fewer than `FEWEST` images count as upright. A pile that half a turn maps onto itself, of sixes and nines alone, say, counts as lying at
    any angle.

    Parameters
    ----------
    images : ndarray, (N, H, W, C), uint8
    mirrored : float
        Their correlation with their mirror images, of `flip_correlation`.
    """
    stand = flip_correlation(images, axis=1) < mirrored - NO_UP
    return not stand and upright_accuracy(images) < UPRIGHT


def flip_correlation(images: NDArray[np.uint8], axis: int, at_most: int = 2000) -> float:
    """Mean Pearson correlation of an image with itself in the mirror (`axis` 2) or upside down (1), over at most so many
    of the images (N, H, W, C); 0 if constant."""
    found = []
    for piece in _pieces(images, scattered(len(images), at_most)):
        x = piece.astype(np.float32)
        x -= x.mean(axis=(1, 2, 3), keepdims=True)
        power = (x * x).sum(axis=(1, 2, 3))
        shared = (x * np.flip(x, axis)).sum(axis=(1, 2, 3))
        found.append(shared[power > 0] / power[power > 0])
    correlations = np.concatenate([*found, np.zeros(0, np.float32)])
    return float(correlations.mean()) if len(correlations) else 0.0


def upright_accuracy(images: NDArray[np.uint8], at_most: int = 1000) -> float:
    """Accuracy of telling images from themselves upside down, of a classifier trained on other images of the pile.

    About 0.5 where images lie at any angle or look alike both ways up, near 1 where there is an up. A correlation of pixels cannot show it:
    a heap of different things, each of them upright, hardly correlates either way.

    Parameters
    ----------
    images : ndarray, (N, H, W, C), uint8
    at_most : int
        The most images that are looked at.

    Returns
    -------
    float
        Share of right answers; 1 for fewer than `FEWEST` images, which count as upright.
    """
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.svm import SVC

    chosen = scattered(len(images), at_most)
    if len(chosen) < FEWEST:
        return 1.0
    upright = np.concatenate([_coarse(piece) for piece in _pieces(images, chosen)])
    if len(chosen) >= MANY:
        upright -= upright.mean(axis=0)  # the same lamp and place in the frame are no up; few images are their own mean
    upright /= upright.std(axis=(1, 2), keepdims=True) + 1e-3
    x = np.concatenate([upright, upright[:, ::-1, ::-1]]).reshape(2 * len(chosen), -1)
    turned, part = np.repeat([0, 1], len(chosen)), np.tile(np.random.default_rng(0).permutation(len(chosen)) % FOLDS, 2)
    answers = np.asarray(cross_val_predict(SVC(), x, turned, cv=PredefinedSplit(part)))
    return float((answers == turned).mean())


def _pieces(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    size = max(1, AT_A_TIME // math.prod(images.shape[1:]))
    yield from (images[rows[start : start + size]] for start in range(0, len(rows), size))


def _coarse(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Light and dark of images (N, H, W, C) in a few cells (N, COARSE_SIDE, COARSE_SIDE), 0 in the mean of each image."""
    light = torch.from_numpy(images.mean(axis=3, dtype=np.float32))
    x = nnF.adaptive_avg_pool2d(light[:, None], COARSE_SIDE)[:, 0].numpy()
    return x - x.mean(axis=(1, 2), keepdims=True)
