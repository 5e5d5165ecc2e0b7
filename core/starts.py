"""Short runs to begin with: how many, how long, and what each is worth without labels. Training them is `training`'s."""

from .agglomeration import mutual_information
from .config import TrainConfig
from .joints import Joints
from .merging import agreement, merge_by_neighbours

SHARE = 0.4
"""Of the steps that a short run takes: up to the first merge of over-clusters."""
COLOUR = 3
"""Short runs on colour images, whose seeds differ most: `benchmarks/photographs.py` has the rows."""


def count_starts(config: TrainConfig, channels: int) -> int:
    """How many short runs there are; one is simply the run."""
    return config.starts or (COLOUR if channels == 3 and config.invariance_weight else 1)


def worth(joints: Joints, config: TrainConfig, *, merges: bool) -> float:
    """How far neighbours agree with the clusters a short run is about to get, in nats.

    Parameters
    ----------
    joints : Joints
        Of the short run's network.
    merges : bool
        Over-clusters are about to be merged. While K is not chosen, all of them count.
    """
    if config.choose_clusters:
        return (mutual_information(joints.neighbours) + mutual_information(joints.pixels)) / 2
    if merges:
        clusters = config.most_clusters
        return agreement(joints, merge_by_neighbours(joints, clusters, unequal=config.sizes == "unequal").group, clusters)
    return (mutual_information(joints.cluster_neighbours) + mutual_information(joints.cluster_pixels)) / 2
