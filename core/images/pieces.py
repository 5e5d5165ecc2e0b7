"""Images as the network takes them: floats, channels first in shape and last in memory, as many at a time as memory allows."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AT_A_TIME_VALUES = 56 * 56
"""Values per image up to which a full batch is encoded at a time: about 300 MB of activations for 1024 images."""


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, H, W, C) to float (N, C, H, W) in [0, 1], stored channels last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def at_a_time(images: Tensor | NDArray[np.uint8], at_most: int) -> int:
    """How many of images (N, ...) go through the network at a time: `at_most` of 56 x 56 grey pixels, fewer of larger ones."""
    return max(1, min(at_most, at_most * AT_A_TIME_VALUES // max(1, math.prod(images.shape[1:]))))


def in_pieces(images: NDArray[np.uint8], device: torch.device, at_most: int = 1024) -> Iterator[Tensor]:
    """Images (N, H, W, C) as float (n, C, H, W), `at_a_time` in a piece; where there are none, one empty piece of that shape."""
    size = at_a_time(images, at_most)
    for start in range(0, max(1, len(images)), size):
        piece = np.require(images[start : start + size], requirements=["C", "W"])  # torch warns of arrays it may not write into
        yield to_float(torch.from_numpy(piece).to(device))
