"""Merging many small clusters into K by what views and neighbours say of them: the information bottleneck, without labels.

A view sometimes lands in another small cluster than its image; clusters that exchange views belong together, and so do those of nearest
neighbours. Two kinds of partition into K groups are sought:

- the most informative of views: pairs are merged greedily by loss of the mutual information I(c; c') and by rate of exchange, then small
  clusters change groups one by one while that gains information. Information prefers equal groups: among ten rare and frequent classes it
  halves the frequent ones.
- the most apart: pairs are merged by `separation`, whatever their sizes. Where kinds shade into each other it grows one large blob and
  picks crumbs off it.

Which kind, and for `-k auto` which K, is read from the distributions in `grouping`. A K-way head trained on the same information settles in
worse places than either: it cuts through classes, because nothing ties together what lies on one side of its cut.
"""

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.matching import match_counts

from .agglomeration import (
    Merge,
    Path,
    cut,
    exchange_rates,
    grouped,
    information,
    kept_share,
    least_staying,
    merge_losses,
    merge_path,
    mutual_information,
    refine,
    remembered,
    standard_error,
)
from .joints import Joints
from .separation import most_apart

ERRORS = 4.0
"""Standard errors by which a merge must say more of views than another one to be told from it: they are of images that were trained on, and
too small. Crossed sevens can say so little more with the twos than with the sevens."""
STAYS = 0.5
"""Share of every group that a view must leave in it: 0.79 and more where several classes of handwriting are rare. Some beginnings on
garments had, beside a group of images, one of their views and of hardly any image: as a cluster, it would be empty."""
MARGIN = 0.025
"""Share of their own entropy that groups by neighbours must keep beyond those by views to be taken instead."""


def merge(joints: Joints, clusters: int, *, unequal: bool = False) -> NDArray[np.int64]:
    """The groups to take, (overclusters,): those that say most of the ones that a view is in, if views stay in each of them.

    Greedy merging ends in different places from different joint distributions; each place counts as it is, and refined on views. Of those
    that cannot be told from the best, the one that says most of neighbours by pixels. `unequal` merges by separation instead: see
    `merge_apart`.
    """
    if unequal:
        return merge_apart(joints, clusters)
    views, pixels = joints.overclusters, joints.pixels
    places = _places(joints, clusters, views)
    places = [place for place in places if least_staying(grouped(views, place, clusters)) >= STAYS] or places
    best = max(places, key=lambda place: information(views, place, clusters))
    most = information(views, best, clusters)

    def as_good(place: NDArray[np.int64]) -> bool:
        error = standard_error(views, best, place, clusters, joints.looked_at)
        return information(views, place, clusters) >= most - ERRORS * error

    return max(filter(as_good, places), key=lambda place: information(pixels, place, clusters))


def merge_by_neighbours(joints: Joints, clusters: int) -> NDArray[np.int64]:
    """The groups that say most of those of neighbours in the hidden layer instead, from the same ends of greedy merging."""
    neighbours = joints.neighbours
    return max(_places(joints, clusters, neighbours), key=lambda place: information(neighbours, place, clusters))


def _places(joints: Joints, clusters: int, judge: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Where greedy merging ends, as it is and refined on `judge`."""
    ends = [merge_clusters(source, clusters).group for source in sources(joints)]
    return [*ends, *(refine(judge, end, clusters).group for end in ends)]


def merge_apart(joints: Joints, clusters: int) -> NDArray[np.int64]:
    """Groups of any size, (overclusters,): the most apart by views, or those by neighbours that clearly keep more of their own entropy.

    Merging by separation, too, ends in different places. Views alone divide a kind that fills most of the set: it has most of the small
    clusters, which training has drawn apart; neighbours by pixels were not trained. What is kept is read from views and pixels together.
    """
    views, pixels = joints.overclusters, joints.pixels
    both = (views + pixels) / 2

    def kept(place: NDArray[np.int64]) -> float:
        return kept_share(grouped(both, place, clusters))

    first = most_apart(views, clusters)
    best = max((most_apart(source, clusters) for source in (joints.neighbours, pixels, both)), key=kept)
    return best if kept(best) >= kept(first) + MARGIN else first


def sources(joints: Joints) -> tuple[NDArray[np.float64], ...]:
    """The joint distributions that greedy merging by information starts from."""
    views, neighbours, pixels = joints.overclusters, joints.neighbours, joints.pixels
    return views, neighbours, (views + neighbours) / 2, (views + pixels) / 2


def agreement(joints: Joints, group: NDArray[np.int64], clusters: int) -> float:
    """Nats that groups share with those of nearest neighbours, the mean of those in the hidden layer and those by pixels; at most log K.

    What compares different times of one network: its own hidden layer finds near what it has put together, by pixels nothing follows it.
    """
    return sum(information(joint, group, clusters) for joint in (joints.neighbours, joints.pixels)) / 2


@remembered
def merge_clusters(joint: NDArray[np.float64], clusters: int) -> Merge:
    """The most informative partition that refining the greedy paths' ends leads to.

    Parameters
    ----------
    joint : ndarray, (overclusters, overclusters)
        Symmetric, sums to 1.
    clusters : int
        K, at most the number of small clusters.
    """
    if clusters == len(joint):  # as many as there are: nothing to merge, and a path of a thousand takes minutes
        return Merge(np.arange(clusters), mutual_information(joint))
    return max((refine(joint, cut(path, clusters), clusters) for path in information_paths(joint)), key=lambda merge: merge.information)


@remembered
def information_paths(joint: NDArray[np.float64]) -> list[Path]:
    """Greedy merges by lost information and by rate of exchange, for every K."""
    return [merge_path(joint, merge_losses), merge_path(joint, exchange_rates, sums=False)]


def align(group: NDArray[np.int64], shared: NDArray[np.float64]) -> NDArray[np.int64]:
    """Renumber groups so that they overlap most with the clusters they replace: decoder and offsets keep their blocks.

    Parameters
    ----------
    group : ndarray, (overclusters,)
    shared : ndarray, (overclusters, K)
        Joint distribution of small cluster and present cluster.
    """
    clusters = shared.shape[1]
    overlap = np.zeros((clusters, clusters))
    np.add.at(overlap, group, shared)
    return match_counts(overlap)[group]
