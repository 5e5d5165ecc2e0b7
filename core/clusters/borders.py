"""Whether clusters follow the backgrounds instead of the things: how well the colours of the images' borders predict them, without labels.

Views keep a background just as they keep a thing, and nothing in training knows which of the two was meant.
"""

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.sampling import scattered

from ..images.edges import edges

AT_MOST = 2000
"""The most images that are looked at."""
FEWEST = 50
"""Images below which nothing is predicted."""
NEIGHBOURS = 5
"""Images with the nearest border colours, whose clusters vote."""
FOLDS = 5
"""Folds of the cross-validation, drawn at random: every n-th image may be of one kind."""


def predicted_by_borders(images: NDArray[np.uint8], clusters: NDArray[np.int64]) -> float:
    """How well the mean colours of an image's four borders predict its cluster, by nearest neighbours of those colours.

    Parameters
    ----------
    images : ndarray, (N, H, W, C), uint8
    clusters : ndarray, (N,), int

    Returns
    -------
    float
        Accuracy, rescaled so that 0 is always answering the largest cluster and 1 is no error; 0 too for fewer than `FEWEST` images.
    """
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    some = scattered(len(images), AT_MOST)
    clusters = clusters[some]
    most = np.bincount(clusters).max() / len(clusters) if len(clusters) else 1.0
    if len(some) < FEWEST or most == 1:
        return 0.0
    colours = np.concatenate([edge.mean(axis=1) for edge in edges(images, some)], axis=1)  # (N, 4 C)
    parts = KFold(FOLDS, shuffle=True, random_state=0)
    answers = np.asarray(cross_val_predict(KNeighborsClassifier(NEIGHBOURS), colours, clusters, cv=parts))
    return max(0.0, float(((answers == clusters).mean() - most) / (1 - most)))
