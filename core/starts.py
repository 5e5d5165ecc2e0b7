"""Short runs to begin with: how many, how long, what each shows without labels, and which one goes on. Training them is `training`'s."""

import msgspec

from .agglomeration import mutual_information
from .config import TrainConfig
from .grouping import sizes_and_number
from .joints import Joints
from .merging import information, merge

SHARE = 0.4
"""Of the steps that a short run takes: up to the first merge of over-clusters."""
STARTS = 3
"""Short runs where one is to be chosen: of forty on digits one in five fails, see `benchmarks/beginnings.py`."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a short run showed."""

    worth: float
    """In nats, see `look`."""
    unequal: bool = False
    """Clusters are to be of unequal size."""


def count_starts(config: TrainConfig) -> int:
    """How many short runs there are; one is simply the run."""
    return config.starts or (STARTS if config.invariance_weight and config.most_clusters > 1 else 1)


def look(joints: Joints, config: TrainConfig, *, merges: bool) -> Start:
    """What a short run shows at its end.

    Its worth is what the groups that its over-clusters are about to be merged into say of those that a view is in: what they were chosen by
    among all groups. While K is not chosen, groups of different number would be compared: all over-clusters count instead, and what they
    share with those of neighbours; where nothing is merged, the clusters in the same way.

    Parameters
    ----------
    joints : Joints
        Of the short run's network.
    merges : bool
        Over-clusters are about to be merged.
    """
    if not merges:
        return Start(worth=(mutual_information(joints.cluster_neighbours) + mutual_information(joints.cluster_pixels)) / 2)
    unequal, clusters = sizes_and_number(joints, config)
    if config.choose_clusters:
        worth = (mutual_information(joints.neighbours) + mutual_information(joints.pixels)) / 2
    else:
        worth = information(joints.overclusters, merge(joints, clusters, unequal=unequal), clusters)
    return Start(worth=worth, unequal=unequal)


def goes_on(shown: list[Start], best: int) -> bool:
    """Whether the last of the short runs goes on in place of the best before it: what most show of sizes holds, then worth.

    No third needs to be kept: when most come to show something else than before, it is the last one that shows it.
    """
    last, before = shown[-1], shown[best]
    holds = 2 * sum(start.unequal for start in shown) > len(shown)
    if last.unequal == before.unequal:
        return last.worth > before.worth and last.unequal == holds
    return last.unequal == holds
