"""Short runs to begin with: how many, how long, and what each is worth without labels. Training them is `training`'s."""

import math

from .agglomeration import grouped, least_staying, mutual_information
from .config import TrainConfig
from .joints import Joints
from .merging import STAYS, merge

SHARE = 0.4
"""Of the steps that a short run takes at most: up to the first merge of over-clusters, by default."""
STARTS = 3
"""Short runs where one is to be chosen: of forty on digits one in seven sorts worse than 0.90, see `benchmarks/beginnings.py`."""

FAILED = -2.0
"""Nats of a short run whose loss stopped being a number: less than any is worth."""


def count_starts(config: TrainConfig) -> int:
    """How many short runs there are; one is simply the run."""
    return config.starts or (STARTS if config.invariance_weight and config.most_clusters > 1 else 1)


def share(config: TrainConfig) -> float:
    """Of the steps that a short run takes: none goes past a merge, which is made once."""
    return min([SHARE, *config.regroup]) if config.merges else SHARE


def worth(joints: Joints, config: TrainConfig, *, merges: bool) -> float:
    """What the clusters that a short run is about to get say of those that a view is in, in nats.

    All short runs are compared by equal groups, unless unequal ones are asked for: what says less since it is of unequal size is not worse.
    Groups of which one is left by views are worth less than any others, 0 or less: what they say of each other is of image and view, not of
    kinds. While K is not chosen, groups of different number would be compared: all over-clusters count instead, and what they share with
    those of neighbours; where nothing is merged, the clusters in the same way.

    Parameters
    ----------
    joints : Joints
        Of the short run's network.
    merges : bool
        Over-clusters are about to be merged.
    """
    if config.choose_clusters:
        return (mutual_information(joints.neighbours) + mutual_information(joints.pixels)) / 2
    if merges:
        clusters = config.most_clusters
        groups = grouped(joints.overclusters, merge(joints, clusters, unequal=config.sizes == "unequal"), clusters)
        nats = mutual_information(groups)
        return nats if least_staying(groups) >= STAYS else nats / math.log(clusters) - 1
    return (mutual_information(joints.cluster_neighbours) + mutual_information(joints.cluster_pixels)) / 2
