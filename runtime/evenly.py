"""Some of many, evenly spaced: what is drawn, shown or measured where all would be too much."""

import numpy as np
from numpy.typing import NDArray


def evenly(count: int, at_most: int) -> NDArray[np.int64]:
    """At most so many of 0..count-1, evenly spaced."""
    return np.linspace(0, count - 1, min(count, at_most)).astype(np.int64)


def spaced(count: int, at_most: int) -> slice:
    """The same as a slice, which copies nothing: every n-th, so that at most so many of them remain."""
    return slice(None, None, -(-count // at_most) or 1)
