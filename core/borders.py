"""Do clusters follow what lies around the things, the light and the tint of backgrounds? Read off the images' borders, without labels.

Views keep a background as they keep a thing, and nothing in training knows which of the two was meant. Which it became is told here.
"""

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.evenly import scattered

from .edges import edges

AT_MOST = 2000
"""Images that are looked at."""
FEWEST = 50
"""Images below which nothing is told."""
NEIGHBOURS = 5
PARTS = 5
"""That images are told in, drawn at random: each by the clusters of the others. A camera may have gone from kind to kind in turn."""


def predicted_by_borders(images: NDArray[np.uint8], clusters: NDArray[np.int64]) -> float:
    """How much of the clusters the mean colours of an image's four borders tell, by the nearest neighbours of those colours.

    Parameters
    ----------
    images : ndarray, (N, H, W, C), uint8
    clusters : ndarray, (N,), int

    Returns
    -------
    float
        0 where they tell no more than that every image is in the largest cluster, 1 where they tell all: the share of right answers beyond
        the former. 0 too for fewer than `FEWEST` images.
    """
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    some = scattered(len(images), AT_MOST)
    clusters = clusters[some]
    most = np.bincount(clusters).max() / len(clusters) if len(clusters) else 1.0
    if len(some) < FEWEST or most == 1:
        return 0.0
    colours = np.concatenate([edge.mean(axis=1) for edge in edges(images, some)], axis=1)  # (N, 4 C)
    parts = KFold(PARTS, shuffle=True, random_state=0)
    answers = np.asarray(cross_val_predict(KNeighborsClassifier(NEIGHBOURS), colours, clusters, cv=parts))
    return max(0.0, float(((answers == clusters).mean() - most) / (1 - most)))
