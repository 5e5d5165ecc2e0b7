"""Starts: short runs to begin with, of which the best goes on. How many there are, how long they are, and their score without labels.

`trainer` trains them.
"""

import math

from ..config import TrainConfig
from .agglomeration import grouped, least_view_agreement, mutual_information
from .joints import Joints
from .merging import STAYS, merge

START_SHARE = 0.4
"""Share of the steps that a start takes at most: up to the first merge of over-clusters, by default."""
STARTS = 3
"""Starts by default: of forty single ones on digits, one in seven sorted worse than 0.90 (`benchmarks/starts.py`)."""
FAILED = -2.0
"""Score of a start whose loss was not a finite number; below every other score."""


def count_starts(config: TrainConfig) -> int:
    """The number of starts; with one there is nothing to choose, it is simply the run."""
    return config.starts or (STARTS if config.invariance_weight and config.most_clusters > 1 else 1)


def share(config: TrainConfig) -> float:
    """Share of the steps that a start takes: it ends before the first merge, which is made once."""
    return min([START_SHARE, *config.regroup]) if config.merges else START_SHARE


def worth(joints: Joints, config: TrainConfig, *, merges: bool) -> float:
    """Score of a start, in nats; the highest goes on.

    Where over-clusters are about to be merged: the mutual information of the groups they would be merged into, of images and views. If some
    group keeps less than `STAYS` of its views, I / log K - 1 instead, which is at most 0 and so below every start without such a group: it
    tells images from views, not kinds from kinds. Starts are compared by equal groups unless ``sizes="unequal"``, because unequal groups
    have less mutual information without being worse.

    While K is still to be chosen, groups of different K cannot be compared: the score is what all over-clusters share with those of nearest
    neighbours. Where nothing is merged it is the same of the clusters.

    Parameters
    ----------
    joints : Joints
        Of the network at the end of the start.
    config : TrainConfig
    merges : bool
        Whether over-clusters are about to be merged.
    """
    if config.chooses_clusters:
        return (mutual_information(joints.neighbours) + mutual_information(joints.pixels)) / 2
    if merges:
        clusters = config.most_clusters
        groups = grouped(joints.overclusters, merge(joints, clusters, unequal=config.sizes == "unequal"), clusters)
        nats = mutual_information(groups)
        return nats if least_view_agreement(groups) >= STAYS else nats / math.log(clusters) - 1
    return (mutual_information(joints.cluster_neighbours) + mutual_information(joints.cluster_pixels)) / 2
