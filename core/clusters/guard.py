"""The collapse guard: notices, without labels, that clusters collapse while a network trains. What is done about it is in `steering`."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

ONE_CLUSTER = 0.9
"""Share of the images in one cluster from which on the model has collapsed."""
DEAD = 0.02
"""A cluster with less than this part of an equal share is dead; rare classes stay far above it."""


class Alarm(NamedTuple):
    """A collapse."""

    kind: Literal["one cluster", "dead"]
    """one cluster: it holds nearly every image, and clusters are not allowed to be that unequal; dead: clusters are nearly empty."""
    clusters: list[int]


def watch(shares: NDArray[np.float64], *, unequal: bool = False) -> Alarm | None:
    """The collapse that shares of the clusters, (K,), show, or None.

    Where clusters may be `unequal`, one may hold nearly every image as long as another one is alive.
    """
    if len(shares) < 2:
        return None
    dead = np.flatnonzero(shares < DEAD / len(shares)).tolist()
    if shares.max() > ONE_CLUSTER and (not unequal or len(dead) == len(shares) - 1):
        return Alarm("one cluster", [int(shares.argmax())])
    return Alarm("dead", dead) if dead else None


def said_of(clusters: list[int], one: str, several: str) -> str:
    """``cluster 3 is`` or ``clusters 3, 4 are``."""
    return f"cluster {clusters[0]} {one}" if len(clusters) == 1 else f"clusters {', '.join(map(str, clusters))} {several}"
