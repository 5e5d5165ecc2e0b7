"""Arguments of Python calls: what a caller can get wrong is a `UsageError` with what was found and what was expected."""

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError


def whole_number(value: Any, what: str, least: int = 0) -> int:
    """`value` as an int; numpy's integers are welcome, booleans are not."""
    expected = f"{what} is {value!r}, expected a whole number from {least} on"
    if isinstance(value, bool):
        raise UsageError(expected)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise UsageError(expected) from error
    if number < least:
        raise UsageError(expected)
    return number


def images_like(images: Any, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A caller's images (N, H, W, C), uint8, of a model's `shape` (H, W, C); (N, H, W) is accepted for grey ones."""
    try:
        images = np.asarray(images)
    except ValueError as error:  # of different shapes
        raise UsageError(f"images must be one array, uint8 (N, {', '.join(map(str, shape))}): got a list of different shapes") from error
    if images.ndim == 3 and shape[-1] == 1 and images.shape[1:] == shape[:2]:
        images = images[..., None]
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        hint = ""
        if images.shape in (shape, shape[:2]):
            hint = "; one image is images[None]"
        elif images.dtype.kind in "USO":
            hint = "; files are read by bundle.read(path)"
        elif images.shape[1:] == shape:
            hint = "; floats in [0, 1] are (images * 255).round().astype('uint8')"
        raise UsageError(f"images must be uint8 (N, {', '.join(map(str, shape))}): got {images.dtype} {images.shape}{hint}")
    return images


def rows_of_numbers(rows: Any, length: int, what: str) -> NDArray[np.float32]:
    """A caller's rows of `length` finite numbers, (N, length) float32."""
    try:
        found = np.ascontiguousarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} must be numbers, (N, {length}): got {type(rows).__name__}") from error
    if found.ndim != 2 or found.shape[1] != length:
        raise UsageError(f"{what} must be (N, {length}): got {found.shape}")
    if not np.isfinite(found).all():
        raise UsageError(f"{what} must be finite numbers: some are NaN or infinite")
    return found
