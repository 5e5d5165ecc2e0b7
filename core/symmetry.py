"""What a pile is made of, told without labels by its symmetry: writing from things, and things that stand from those that lie at any angle.

What is done with it, which views are made, stands in `views`.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray

from catvae.runtime.evenly import scattered

MIRRORED = 0.62
"""Grey images that correlate with their own mirror image at least this much on average are of things, not of writing."""
NO_UP = 0.03
"""How much less images may correlate with themselves upside down than in the mirror where they have no up: landscapes have a sky."""
UPRIGHT = 0.75
"""Images that are told from themselves turned by half at least this often have an up; `benchmarks/symmetry.py` reads how often some are."""
FEWEST, MANY = 50, 300
"""Images to tell anything by, and to know their mean image by."""
CELLS = 8
"""A side, of the coarse images that are compared."""
PARTS = 5
"""That images are told in, drawn at random: each by what the others showed. A camera may have gone from kind to kind in turn."""
AT_A_TIME = 2**22
"""Values that are floated at a time, 16 MB for each copy: frames may be large."""


def lie_at_any_angle(images: NDArray[np.uint8], mirrored: float) -> bool:
    """Whether nobody could say which way up images belong: things on a belt, under a microscope, seen from above.

    Of fewer than `FEWEST` images nothing is known, and they count as upright. A pile that half a turn maps onto itself, of sixes and nines
    alone, say, counts as one that lies at any angle.

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
    """How often images are told from themselves turned by half a turn, by a classifier that learned it on others of the pile.

    About 0.5 where images lie at any angle, or look alike both ways up, however a frame of another shape stretched them; near 1 where
    there is an up. A correlation of pixels cannot say it: a heap of different things, each of them upright, hardly correlates either way.

    Parameters
    ----------
    images : ndarray, (N, H, W, C), uint8
    at_most : int
        Images that are looked at.

    Returns
    -------
    float
        Share of right answers; 1 for fewer than `FEWEST` images, of which nothing is known.
    """
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.svm import SVC

    chosen = scattered(len(images), at_most)
    if len(chosen) < FEWEST:
        return 1.0
    upright = np.concatenate([_coarse(piece) for piece in _pieces(images, chosen)])
    if len(chosen) >= MANY:
        upright -= upright.mean(axis=0)  # the same lamp, and the same place in the frame, are no up; of few images it is their own
    upright /= upright.std(axis=(1, 2), keepdims=True) + 1e-3
    x = np.concatenate([upright, upright[:, ::-1, ::-1]]).reshape(2 * len(chosen), -1)
    turned, part = np.repeat([0, 1], len(chosen)), np.tile(np.random.default_rng(0).permutation(len(chosen)) % PARTS, 2)
    answers = np.asarray(cross_val_predict(SVC(), x, turned, cv=PredefinedSplit(part)))
    return float((answers == turned).mean())


def _pieces(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    size = max(1, AT_A_TIME // math.prod(images.shape[1:]))
    yield from (images[rows[start : start + size]] for start in range(0, len(rows), size))


def _coarse(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Light and dark of images (N, H, W, C) in a few cells (N, CELLS, CELLS), 0 in the mean of each image."""
    light = torch.from_numpy(images.mean(axis=3, dtype=np.float32))
    x = nnF.adaptive_avg_pool2d(light[:, None], CELLS)[:, 0].numpy()
    return x - x.mean(axis=(1, 2), keepdims=True)
