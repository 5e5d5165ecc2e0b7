"""Some of many, evenly spaced: what is drawn, shown or measured where all would be too much."""

import numpy as np
from numpy.typing import NDArray


def evenly(count: int, at_most: int) -> NDArray[np.int64]:
    """At most so many of 0..count-1, evenly spaced."""
    return np.linspace(0, count - 1, min(count, at_most)).astype(np.int64)
