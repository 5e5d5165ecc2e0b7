"""Some of many, where all would be too much: evenly spaced to be looked at, or in no pattern to be measured."""

import numpy as np
from numpy.typing import NDArray


def evenly(count: int, at_most: int) -> NDArray[np.int64]:
    """At most so many of 0..count-1, evenly spaced, first and last among them."""
    return np.linspace(0, count - 1, min(count, at_most)).astype(np.int64)


def scattered(count: int, at_most: int) -> NDArray[np.int64]:
    """At most so many of 0..count-1, sorted, in no pattern, and each time the same ones.

    A camera may have gone from kind to kind in turn: every n-th of its images can be of one kind.
    """
    if count <= at_most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, at_most, replace=False, shuffle=False))
