"""How many groups there are, and whether they are of unequal size: read from joint distributions of over-clusters, without labels.

`choose_clusters` asks how much of their entropy groups keep through views: K grows while what another group adds is kept well enough.
`unequal_is_clearer` compares groups of any size with equal ones at the same K.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from .agglomeration import cut, entropy, grouped, information, least_view_agreement, mutual_information, refine, uncertainty_coefficient
from .joints import Joints
from .merging import STAYS, information_paths, merge_apart, merge_by_neighbours, merge_clusters, sources
from .separation import inner_separations, mean_nearest, most_apart, separation_path, separations

WORTH, WORTH_APART = 0.75, 0.8
"""`choose_clusters` takes the K with the largest I - s H, where H is the entropy of the groups and I their mutual information through
views; this is s, for equal groups and for groups by separation. Half of a digit keeps less than this of what it adds, a digit more. Groups
by separation must keep more, because a few images that are far from all others add hardly any entropy."""
WHERE_LITTLE_IS_KEPT = 5 / 6
"""s is at most this part of the largest I / H among groups of `MANY` or more: in small sets of garments views keep less, and nothing but
clothes, shoes and bags would be told apart."""
MANY = 4
"""Groups from which on their largest I / H counts for that."""
LEAST = 0.5
"""The smallest s: where views go anywhere, no groups are worth having."""
KEEP_MORE = 0.1
"""`UnequalEvidence.more` from which on groups are unequal if `fills` says so too. 0.12 to 0.24 where one kind fills most of a set of digits
or garments; where all kinds are equally frequent 0.01 on digits, 0.05 to above 0.1 on garments."""
FILLS = 1 / 3
"""`UnequalEvidence.fills` that this needs: 0.41 and 0.68 on garments of which one kind is 0.53 of the set, 0.24 and 0.25 where all kinds
are equally frequent."""
UNEVEN = 0.955
"""`UnequalEvidence.evenness` below which equal groups are themselves a sign of unequal kinds. Mutual information makes groups equal where
it can: to 0.99 where classes of handwriting are equally frequent, 0.96 to 0.98 on garments; 0.89 to 0.96 where half of the classes have 1/3
or 1/10 of the images of the others."""
CLEARLY = 2.0
"""`UnequalEvidence.further` needed for every unit of evenness above `UNEVEN`. It is 0.03 to 0.19 where classes differ by 10:1, and up to
0.055 where all are equally frequent and equal groups even, to 0.998, which needs 0.086."""
KEPT = 0.88
"""`UnequalEvidence.kept` that is needed: 0.92 to 0.98 where several classes of handwriting are rare, 0.75 to 0.83 on garments, whose kinds
shade into each other and where merging by separation grows one large blob."""
GAP = -0.01
"""`UnequalEvidence.gap` that is needed, 0 but for noise: -0.005 to 0.13 where several classes of handwriting are rare; where all are
equally frequent an earlier version had down to -0.016."""


class UnequalEvidence(NamedTuple):
    """What tells, at a merge, whether groups may be of unequal size.

    U is the uncertainty coefficient I / H of groups: the share of their own entropy that they keep.
    """

    more: float
    """U of groups by separation, less that of equal ones, through views and neighbours by pixels. The equal groups are here those with most
    mutual information of neighbours in the hidden layer: views divide a kind that fills most of the set."""
    fills: float
    """Share of the images in the largest of those groups by separation."""
    evenness: float
    """Perplexity of equal groups, divided by K."""
    further: float
    """Mean separation from the nearest group: of groups by separation, less that of equal ones."""
    kept: float
    """U of groups by separation, through views; 0 where all is in one group."""
    gap: float
    """Smallest separation between two groups by separation, less the largest one between the halves of one of them."""
    stays: float
    """Smallest share of a group's views that are in that same group; see `merging.STAYS`."""


def _perplexity_share(joint: NDArray[np.float64]) -> float:
    return float(np.exp(entropy(joint))) / len(joint)


def unequal_evidence(joints: Joints, clusters: int) -> UnequalEvidence:
    """The evidence for K = `clusters`, at least 2."""
    views, both = joints.overclusters, (joints.overclusters + joints.pixels) / 2
    filling = grouped(both, merge_apart(joints, clusters), clusters)
    equal_by_neighbours = grouped(both, merge_by_neighbours(joints, clusters), clusters)
    group = most_apart(views, clusters)
    apart, equal = grouped(views, group, clusters), grouped(views, merge_clusters(views, clusters).group, clusters)
    return UnequalEvidence(
        more=uncertainty_coefficient(filling) - uncertainty_coefficient(equal_by_neighbours),
        fills=float(filling.sum(1).max()),
        evenness=_perplexity_share(equal),
        further=mean_nearest(apart) - mean_nearest(equal),
        kept=uncertainty_coefficient(apart),
        gap=float(separations(apart).min() - inner_separations(views, group, clusters).max()),
        stays=least_view_agreement(apart),
    )


def unequal_is_clearer(joints: Joints, clusters: int) -> bool:
    """Whether the images show groups of unequal size: one kind fills most of the set, or several kinds are rare."""
    if clusters < 2:
        return False
    found = unequal_evidence(joints, clusters)
    one_fills_the_set = found.more >= KEEP_MORE and found.fills >= FILLS
    clearly_further = found.further >= max(0.0, CLEARLY * (found.evenness - UNEVEN))
    some_are_rare = clearly_further and found.kept >= KEPT and found.gap >= GAP and found.stays >= STAYS
    return one_fills_the_set or some_are_rare


def sizes_and_number(joints: Joints, config: TrainConfig) -> tuple[bool, int]:
    """Whether clusters may be of unequal size, and K; each is decided only where the configuration leaves it open.

    Where both are open, equal groups and groups by separation each have a K of their own, and are compared at the larger one: at the
    smaller one all rare classes would be one group either way, or one of a few groups would be taken for a kind that fills the set.
    """
    at_most = config.most_clusters
    if not config.chooses_clusters:
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
    """The K with the largest I - s H through views, see `WORTH`; 1 where no groups keep the share s of their entropy.

    Groups are refined on neighbours and judged by views: judged by what they were refined on, many groups would win by its noise.

    Parameters
    ----------
    joints : Joints
    at_most : int
        The largest K, at most the number of over-clusters.
    unequal : bool
        Groups by separation instead of equal ones.
    """
    groups = _apart(joints) if unequal else _informative(joints)
    found = [grouped(joints.overclusters, groups(clusters), clusters) for clusters in range(1, at_most + 1)]
    if unequal:
        share = WORTH_APART
    else:
        most = max(map(uncertainty_coefficient, found[MANY - 1 :]), default=1.0)
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
        candidates = [cut(path, clusters) for path in paths]
        best = max(candidates, key=lambda group: information(neighbours, group, clusters))
        return refine(neighbours, best, clusters).group

    return groups
