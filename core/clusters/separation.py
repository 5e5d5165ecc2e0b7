"""How far apart two clusters are, whatever their sizes, and merging by that.

The separation of two clusters is the mutual information lost by merging them, divided by what would be lost if they exchanged no views: 0
for two halves of one thing, 1 for two clusters that views never confuse.
"""

import numpy as np
from numpy.typing import NDArray

from .agglomeration import Path, cut, grouped, merge_losses, merge_path, plogp, remembered

CRUMB = 0.25
"""An over-cluster with less than this part of an equal share is a crumb: too rare to be told from noise."""


def separations(joint: NDArray[np.float64], pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Separation of every two clusters, (n, n), 0 to 1; infinite on the diagonal, 0 where a cluster is empty.

    Parameters
    ----------
    joint : ndarray, (n, n)
        Symmetric joint distribution of clusters.
    pairs : ndarray, (n, n), optional
        Its `pair_sums`, where they are known.
    """
    share = joint.sum(1)
    together = share[:, None] + share[None]
    most = plogp(together) - plogp(share)[:, None] - plogp(share)[None]  # (p_i + p_j) times the entropy of i against j
    apart = np.divide(merge_losses(joint, pairs), most, out=np.zeros_like(joint), where=most > 1e-15)
    np.fill_diagonal(apart, np.inf)
    return apart


@remembered
def most_apart(joint: NDArray[np.float64], clusters: int) -> NDArray[np.int64]:
    """Groups, (n,) in 0..clusters-1, after merging the least separated pairs."""
    if clusters == len(joint):  # nothing to merge, and a path of a thousand takes minutes
        return np.arange(clusters)
    return cut(separation_path(joint), clusters)


def separation_path(joint: NDArray[np.float64]) -> Path:
    """Greedy merges of the least separated pair of over-clusters (n, n); pairs with a crumb come before all others."""
    crumb = CRUMB / len(joint)

    def cost(P: NDArray[np.float64], pairs: NDArray[np.float64] | None) -> NDArray[np.float64]:
        rare = P.sum(1) < crumb
        return separations(P, pairs) - 2.0 * (rare[:, None] | rare[None])

    return merge_path(joint, cost)


def inner_separations(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int, smallest: float = 0.0) -> NDArray[np.float64]:
    """How separate the two halves of each group are, (K,), split where they are furthest apart.

    Parameters
    ----------
    joint : ndarray, (n, n)
        Joint distribution of over-clusters.
    group : ndarray, (n,)
        Group of each, in 0..K-1.
    clusters : int
        K.
    smallest : float
        Share of the images below which a half does not count; never less than that of a crumb. A group without two halves gets 0.
    """
    smallest = max(smallest, CRUMB / len(joint))
    found = np.zeros(clusters)
    for k in range(clusters):
        rows = np.flatnonzero(group == k)
        inside = joint[np.ix_(rows, rows)]
        if len(rows) < 2 or inside.sum() <= 0:
            continue
        inside, share = inside / inside.sum(), inside.sum()
        for halves in (cut(separation_path(inside), 2), cut(merge_path(inside, merge_losses), 2)):
            two = grouped(inside, halves, 2)
            if two.sum(1).min() * share >= smallest:
                found[k] = max(found[k], separations(two)[0, 1])
    return found


def mean_nearest(joint: NDArray[np.float64]) -> float:
    """Mean, over the clusters of a joint distribution (n, n), of the separation from the nearest other one."""
    return float(separations(joint).min(1).mean())
