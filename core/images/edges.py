"""The outermost pixels of images, which show what is around the things. Whether clusters follow them is measured in `borders`."""

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.sampling import scattered

Pixels = NDArray[np.uint8]


def edges(images: Pixels, rows: NDArray[np.int64] | slice = slice(None)) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Upper, lower, left and right edge, (n, W, C) twice and (n, H, C) twice, of some of the images (N, H, W, C)."""
    return images[rows, 0], images[rows, -1], images[rows, :, 0], images[rows, :, -1]


def background_of(images: Pixels, at_most: int = 2000) -> float:
    """The median of the pixels on the images' edges, in [0, 1]: 0 for white on black, 1 for ink on paper."""
    some = edges(images, scattered(len(images), at_most))
    return float(np.median(np.concatenate([edge.reshape(-1) for edge in some]))) / 255
