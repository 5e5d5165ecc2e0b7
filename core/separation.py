"""How far apart two groups of small clusters are, whatever their sizes, and merging by it.

The separation of two clusters is the information that merging them loses over what it would lose if they exchanged no views: 0 for two
names of one thing, 1 for two that are never confused.
"""

import numpy as np
from numpy.typing import NDArray

from .agglomeration import Path, cut, grouped, merge_losses, merge_path, plogp, remembered

CRUMB = 0.25
"""Of an equal share of the small clusters, below which one counts as a crumb."""


def separations(joint: NDArray[np.float64], pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """How far apart every two clusters are, (n, n): the information merging them loses over the most it could lose, 0 to 1.

    Infinite on the diagonal; 0 for a cluster that nothing falls into.
    """
    share = joint.sum(1)
    together = share[:, None] + share[None]
    most = plogp(together) - plogp(share)[:, None] - plogp(share)[None]  # (p_i + p_j) times the entropy of i against j
    apart = np.divide(merge_losses(joint, pairs), most, out=np.zeros_like(joint), where=most > 1e-15)
    np.fill_diagonal(apart, np.inf)
    return apart


@remembered
def most_apart(joint: NDArray[np.float64], clusters: int) -> NDArray[np.int64]:
    """Groups (n,) left by merging what is least apart."""
    if clusters == len(joint):  # nothing to merge, and a path of a thousand takes minutes
        return np.arange(clusters)
    return cut(separation_path(joint), clusters)


def separation_path(joint: NDArray[np.float64]) -> Path:
    """Greedy merges of what is least apart; crumbs, too rare to be told from noise, are merged before anything else."""
    crumb = CRUMB / len(joint)

    def cost(P: NDArray[np.float64], pairs: NDArray[np.float64] | None) -> NDArray[np.float64]:
        rare = P.sum(1) < crumb
        return separations(P, pairs) - 2.0 * (rare[:, None] | rare[None])

    return merge_path(joint, cost)


def inner_separations(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int, smallest: float = 0.0) -> NDArray[np.float64]:
    """How far apart the two halves of each group are that are furthest apart, (clusters,); 0 where a half would hold less than `smallest`.

    Parameters
    ----------
    smallest : float
        Share of the images; at least that of a crumb counts.
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
    """Mean separation of a cluster from the one nearest to it."""
    return float(separations(joint).min(1).mean())
