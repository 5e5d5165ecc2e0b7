"""A bundle's answers to images, as arrays; rows for files and terminals are made of them in `pipeline`."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Cluster of an image that the model does not explain."""
BLANK, UNLIKE = "blank", "unlike"
"""Why an image is unknown, as rows say it: there is hardly anything on it; it scores below the thresholds of its cluster."""


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
    blank: NDArray[np.bool_] | None
    """(N,) whether there is hardly anything on an image, if scores were asked for; such images are unknown, whatever their score."""
    finite: NDArray[np.bool_]
    """(N,) whether every number of the row is finite; the others answer nothing."""

    @property
    def reasons(self) -> list[str]:
        """Of each image `BLANK` or `UNLIKE` where it is unknown, else an empty text."""
        blank = np.zeros(len(self.clusters), bool) if self.blank is None else self.blank
        return np.where(self.clusters != UNKNOWN, "", np.where(blank, BLANK, UNLIKE)).tolist()

    def only(self, rows: NDArray[np.bool_]) -> "Answers":
        """The answers to some of the images, chosen by (N,) bool."""
        kept: dict[str, Any] = {name: None if part is None else part[rows] for name, part in self._asdict().items()}
        return Answers(**kept)
