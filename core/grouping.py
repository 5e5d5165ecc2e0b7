"""How many groups, and whether of unequal size: read from the joint distributions of small clusters, without labels.

Groups are worth having where views keep them. Of the entropy that more groups add, a part is kept, as mutual information, and a part is
lost to views that change groups; `choose_clusters` adds groups while enough is kept. `unequal_is_clearer` compares groups of any size with
equal ones at the same K.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .agglomeration import cut, entropy, grouped, information, kept_share, least_staying, mutual_information, refine
from .config import TrainConfig
from .joints import Joints
from .merging import STAYS, information_paths, merge_apart, merge_by_neighbours, merge_clusters, sources
from .separation import inner_separations, mean_nearest, most_apart, separation_path, separations

WORTH, WORTH_APART = 0.75, 0.8
"""Share of the entropy of groups that views must keep, where groups are equal and where the most apart: half of a digit keeps less of what
it adds, a digit more. The most apart are asked for more, since a few images that are far from all others cost hardly any entropy."""
WHERE_LITTLE_IS_KEPT = 5 / 6
"""Of the share that the best of `MANY` equal groups or more keep, so much is enough where it is less than `WORTH`: in small sets of
garments views keep less, but for clothes against shoes and bags, which would be all there is."""
MANY = 4
LEAST = 0.5
"""Share that must be kept nevertheless: where views go anywhere, no groups are worth having."""
KEEP_MORE = 0.1
"""By how much more of their own entropy unequal groups keep than equal ones, through views and neighbours by pixels, where that alone
decides: 0.12 to 0.24 where one kind fills most of a set of digits or garments; where all are alike, 0.01 on digits, 0.05 to above 0.1 on
garments. Equal ones are here those that say most of neighbours in the hidden layer: views divide what fills most of a set."""
FILLS = 1 / 3
"""Share of the images that the largest unequal group must hold then: 0.41 and 0.68 on garments of which one kind is 0.53, 0.24 and 0.25
where all are alike."""
UNEVEN = 0.955
"""Share of K below which the perplexity of equal groups says enough: information makes groups equal where it can, to 0.99 where classes of
handwriting are all alike, 0.96 to 0.98 on garments; 0.89 to 0.96 where half of the classes are at 1/3 or 1/10."""
CLEARLY = 2.0
"""Mean separation from the nearest group that unequal groups must gain for every unit of evenness above `UNEVEN`: they gain 0.03 to 0.19
where classes differ by 10:1, and up to 0.055 where they are all alike and equal groups even, to 0.998, which asks for 0.086."""
KEPT = 0.88
"""Share of their own entropy that unequal groups must keep through a view: 0.92 to 0.98 where several classes of handwriting are rare, 0.75
to 0.83 on garments, whose kinds shade into each other and where merging by separation grows one large blob."""
GAP = -0.01
"""By how much every two unequal groups must be further apart than the halves of any one, but for noise: -0.005 to 0.13 where several
classes of handwriting are rare; of an earlier version down to -0.016 where they were all alike."""


class Signs(NamedTuple):
    """What tells at a merge whether groups may be of unequal size."""

    more: float
    """How much more of their own entropy unequal groups keep than equal ones, through views and neighbours by pixels; see `KEEP_MORE`."""
    fills: float
    """Share of the largest of those unequal groups; see `FILLS`."""
    evenness: float
    """Perplexity of equal groups over K; see `UNEVEN`."""
    further: float
    """Mean separation from the nearest group that unequal groups gain; see `CLEARLY`."""
    kept: float
    """Share of their own entropy that unequal groups keep through a view, 0 where all is in one; see `KEPT`."""
    gap: float
    """How much every two unequal groups are further apart than the halves of any one; see `GAP`."""
    stays: float
    """Smallest share of an unequal group that a view leaves in it; see `merging.STAYS`."""


def _perplexity_share(joint: NDArray[np.float64]) -> float:
    return float(np.exp(entropy(joint))) / len(joint)


def unequal_signs(joints: Joints, clusters: int) -> Signs:
    """The signs for K >= 2."""
    joint, both = joints.overclusters, (joints.overclusters + joints.pixels) / 2
    equal, unequal = merge_by_neighbours(joints, clusters), merge_apart(joints, clusters)
    group = most_apart(joint, clusters)
    halved, apart = grouped(joint, merge_clusters(joint, clusters).group, clusters), grouped(joint, group, clusters)
    kept = grouped(both, unequal, clusters)
    return Signs(
        kept_share(kept) - kept_share(grouped(both, equal, clusters)),
        float(kept.sum(1).max()),
        _perplexity_share(halved),
        mean_nearest(apart) - mean_nearest(halved),
        kept_share(apart),
        float(separations(apart).min() - inner_separations(joint, group, clusters).max()),
        least_staying(apart),
    )


def unequal_is_clearer(joints: Joints, clusters: int) -> bool:
    """Whether the signs say that groups of unequal size are what the images show: the first two, or all the others together."""
    if clusters < 2:
        return False
    signs = unequal_signs(joints, clusters)
    needed = max(0.0, CLEARLY * (signs.evenness - UNEVEN))
    together = signs.further >= needed and signs.kept >= KEPT and signs.gap >= GAP and signs.stays >= STAYS
    return (signs.more >= KEEP_MORE and signs.fills >= FILLS) or together


def sizes_and_number(joints: Joints, config: TrainConfig) -> tuple[bool, int]:
    """Whether clusters may be of unequal size, and K; each decided where the configuration leaves it open.

    Where both are open, either kind of groups comes to a K of its own, and they are compared at the larger: at the smaller, rare classes
    are one group of either kind, or a few groups say of one blob that it fills the set.
    """
    at_most = config.most_clusters
    if not config.choose_clusters:
        return config.sizes == "unequal" or (config.sizes == "auto" and unequal_is_clearer(joints, at_most)), at_most
    if config.sizes == "unequal":
        return True, choose_clusters(joints, at_most, unequal=True)
    equal = choose_clusters(joints, at_most)
    if config.sizes == "auto":
        unequal = choose_clusters(joints, at_most, unequal=True)
        if unequal > 1 and unequal_is_clearer(joints, max(equal, unequal)):
            return True, unequal
    return False, equal


def choose_clusters(joints: Joints, at_most: int, *, unequal: bool = False) -> int:
    """The K whose groups keep most, a share of their entropy taken off, see `WORTH`; 1 where none keeps that share.

    The groups are those of greedy merging, refined on neighbours and judged by views: judged by what they were refined on, they would win
    by its noise.

    Parameters
    ----------
    joints : Joints
    at_most : int
        K_max, at most the number of small clusters.
    """
    groups = _apart(joints) if unequal else _informative(joints)
    found = [grouped(joints.overclusters, groups(clusters), clusters) for clusters in range(1, at_most + 1)]
    if unequal:
        share = WORTH_APART
    else:
        most = max(map(kept_share, found[MANY - 1 :]), default=1.0)
        share = min(WORTH, max(LEAST, WHERE_LITTLE_IS_KEPT * most))
    worth = [mutual_information(joint) - share * entropy(joint) for joint in found]
    return 1 + int(np.argmax(worth))


def _apart(joints: Joints) -> Callable[[int], NDArray[np.int64]]:
    path = separation_path(joints.overclusters)  # once: a path holds the merges for every K
    return lambda clusters: cut(path, clusters)


def _informative(joints: Joints) -> Callable[[int], NDArray[np.int64]]:
    paths = [path for source in sources(joints) for path in information_paths(source)]
    neighbours = joints.neighbours

    def groups(clusters: int) -> NDArray[np.int64]:
        places = [cut(path, clusters) for path in paths]
        best = max(places, key=lambda place: information(neighbours, place, clusters))
        return refine(neighbours, best, clusters).group

    return groups
