"""Merging over-clusters into K groups by the information bottleneck, without labels.

A view is sometimes assigned to another over-cluster than its image. Over-clusters that exchange views belong together; so do those that
exchange nearest neighbours. There are two ways to choose K groups:

- by mutual information: pairs are merged greedily, by loss of I(c; c') or by rate of exchange, then over-clusters change groups one by one
  while that raises I. Mutual information prefers groups of equal size: among ten classes, some rare and some frequent, it halves the
  frequent ones.
- by `separation`, whatever the sizes. Where kinds shade into each other this grows one large blob and picks crumbs off it.

`grouping` decides which of the two is used and, for ``-k auto``, which K. A head with K outputs that is trained on the same mutual
information ends up worse than either: it cuts through classes, because nothing holds together what lies on one side of its cut.
"""

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.bundles.matching import match_counts

from .agglomeration import (
    Partition,
    Path,
    cut,
    exchange_rates,
    grouped,
    information,
    least_view_agreement,
    merge_losses,
    merge_path,
    mutual_information,
    refine,
    remembered,
    standard_error,
    uncertainty_coefficient,
)
from .joints import Joints
from .separation import most_apart

ERRORS = 4.0
"""Standard errors within which two partitions count as equally informative. The errors are estimated on images that were trained on, so
they are too small: crossed sevens may look slightly better grouped with the twos than with the other sevens."""
STAYS = 0.5
"""Least share of a group's views that must be in that same group: 0.79 and more where several classes of handwriting are rare. On garments
some starts had a group of images beside a group of only their views: as a cluster, the second would be empty."""
MARGIN = 0.025
"""By how much the uncertainty coefficient of groups by neighbours must exceed that of groups by views for them to be taken instead."""


def merge(joints: Joints, clusters: int, *, unequal: bool = False) -> NDArray[np.int64]:
    """The partition of the over-clusters into K groups that training goes on with, (overclusters,).

    Candidates come from greedy merging of each of `sources`, as they are and refined on views. Those in which some group keeps less than
    `STAYS` of its views are dropped, if others remain. Of the candidates within `ERRORS` standard errors of the highest mutual information
    of views, the one with most mutual information of neighbours by pixels is taken.

    Parameters
    ----------
    joints : Joints
    clusters : int
        K.
    unequal : bool
        Merge by separation instead: see `merge_apart`.
    """
    if unequal:
        return merge_apart(joints, clusters)
    views, pixels = joints.overclusters, joints.pixels
    candidates = _candidates(joints, clusters, views)
    candidates = [group for group in candidates if least_view_agreement(grouped(views, group, clusters)) >= STAYS] or candidates
    best = max(candidates, key=lambda group: information(views, group, clusters))
    most = information(views, best, clusters)

    def as_good(group: NDArray[np.int64]) -> bool:
        error = standard_error(views, best, group, clusters, joints.images)
        return information(views, group, clusters) >= most - ERRORS * error

    return max(filter(as_good, candidates), key=lambda group: information(pixels, group, clusters))


def merge_by_neighbours(joints: Joints, clusters: int) -> NDArray[np.int64]:
    """The candidate, (overclusters,), with most mutual information of neighbours in the hidden layer instead of views."""
    neighbours = joints.neighbours
    return max(_candidates(joints, clusters, neighbours), key=lambda group: information(neighbours, group, clusters))


def _candidates(joints: Joints, clusters: int, refined_on: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Where greedy merging of each source ends, as it is and refined on the joint distribution `refined_on`."""
    ends = [merge_clusters(source, clusters).group for source in sources(joints)]
    return [*ends, *(refine(refined_on, end, clusters).group for end in ends)]


def merge_apart(joints: Joints, clusters: int) -> NDArray[np.int64]:
    """Groups of any size, (overclusters,), by separation: of views, or of neighbours where those clearly keep more of their entropy.

    Views alone divide a kind that fills most of the set, because it has most of the over-clusters and training has separated them;
    neighbours by pixels were not trained. What is kept is read from views and pixels together.
    """
    views, pixels = joints.overclusters, joints.pixels
    both = (views + pixels) / 2

    def kept(group: NDArray[np.int64]) -> float:
        return uncertainty_coefficient(grouped(both, group, clusters))

    by_views = most_apart(views, clusters)
    by_neighbours = max((most_apart(source, clusters) for source in (joints.neighbours, pixels, both)), key=kept)
    return by_neighbours if kept(by_neighbours) >= kept(by_views) + MARGIN else by_views


def sources(joints: Joints) -> tuple[NDArray[np.float64], ...]:
    """The joint distributions that greedy merging by mutual information is run on."""
    views, neighbours, pixels = joints.overclusters, joints.neighbours, joints.pixels
    return views, neighbours, (views + neighbours) / 2, (views + pixels) / 2


def neighbour_information(joints: Joints, group: NDArray[np.int64], clusters: int) -> float:
    """Mutual information, in nats, between groups (overclusters,) of images and of their neighbours: mean of hidden layer and pixels.

    It compares the groups of one network at different times: by its own hidden layer a network finds near what it has grouped together,
    neighbours by pixels do not follow it.
    """
    return sum(information(joint, group, clusters) for joint in (joints.neighbours, joints.pixels)) / 2


@remembered
def merge_clusters(joint: NDArray[np.float64], clusters: int) -> Partition:
    """The partition with most mutual information that greedy merging and refining find.

    Parameters
    ----------
    joint : ndarray, (overclusters, overclusters)
        Symmetric, sums to 1.
    clusters : int
        K, at most the number of over-clusters.
    """
    if clusters == len(joint):  # as many as there are: nothing to merge, and a path of a thousand takes minutes
        return Partition(np.arange(clusters), mutual_information(joint))
    return max((refine(joint, cut(path, clusters), clusters) for path in information_paths(joint)), key=lambda found: found.information)


@remembered
def information_paths(joint: NDArray[np.float64]) -> list[Path]:
    """Two greedy paths through the over-clusters (n, n), by lost information and by rate of exchange; a path holds the merges for every
    K."""
    return [merge_path(joint, merge_losses), merge_path(joint, exchange_rates, sums=False)]


def align(group: NDArray[np.int64], shared: NDArray[np.float64]) -> NDArray[np.int64]:
    """Renumber groups so that each gets the number of the cluster it overlaps most: decoder and offsets keep their blocks.

    Parameters
    ----------
    group : ndarray, (overclusters,)
    shared : ndarray, (overclusters, K)
        Joint distribution of over-cluster and present cluster.
    """
    clusters = shared.shape[1]
    overlap = np.zeros((clusters, clusters))
    np.add.at(overlap, group, shared)
    return match_counts(overlap)[group]
