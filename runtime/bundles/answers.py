"""A bundle's answers to images, as arrays; rows for files and terminals are made of them in `pipeline`."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Cluster of an image that the model does not explain."""


class Answers(NamedTuple):
    """A bundle's answers to N images."""

    clusters: NDArray[np.int64]
    """(N,); `UNKNOWN` where scores were asked for and an image is like none of training, see `scoring`."""
    confidence: NDArray[np.float32]
    """(N,)."""
    assignment: NDArray[np.float32]
    """(N, K)."""
    embedding: NDArray[np.float32] | None
    """(N, D), if asked for."""
    score: NDArray[np.float32] | None
    """(N,) evidence lower bounds, if asked for. An image may be unknown for other reasons than this number, see `scoring`."""
    finite: NDArray[np.bool_]
    """(N,) whether every number of the row is finite; the others answer nothing."""

    def only(self, rows: NDArray[np.bool_]) -> "Answers":
        """The answers to some of the images, chosen by (N,) bool."""
        kept: dict[str, Any] = {name: None if part is None else part[rows] for name, part in self._asdict().items()}
        return Answers(**kept)
