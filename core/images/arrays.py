"""Images from numpy files: which arrays are images, masks or labels, and what their numbers mean."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.errors import DataError
from catvae.runtime.names import class_names

from .image_folder import Images, Labels


class ArrayImages(NamedTuple):
    """What a numpy file holds."""

    images: Images
    """(N, H, W, C), C is 1 or 3; none where N is 0."""
    labels: Labels | None
    """(N,), into `names`."""
    names: tuple[str, ...]
    """Names of the classes, made fit to name clusters."""
    test_images: Images | None
    test_labels: Labels | None
    """(M,), into `names`."""
    notes: tuple[str, ...]
    """What the user should know about how the arrays were read."""


def read_arrays(path: Path) -> ArrayImages:
    """The images of an ``.npy`` or ``.npz`` file; ``docs/files.md`` says under which names an ``.npz`` holds what.

    Raises
    ------
    DataError
        When it cannot be read without pickle, or its arrays are no images, or labels and images do not fit together.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"images": loaded}
        else:
            with loaded:
                arrays = dict(loaded)
    except Exception as error:  # zip, header and pickle refusals each raise their own kind
        raise DataError(f"cannot read {path} as numpy data without pickled objects: {error}") from error

    def first(*names: str) -> NDArray | None:
        return next((arrays[name] for name in names if name in arrays), None)

    images = first("x_train", "images", "x", "data")
    if images is None and len(arrays) == 1:
        images = next(iter(arrays.values()))
    if images is None:
        raise DataError(f"{path} holds {', '.join(arrays)}: expected the images under 'images' or 'x_train'")
    images = _as_images(images, path)
    labels, classes = _as_labels(first("y_train", "labels", "y", "target"), len(images), path)
    test = first("x_test")
    test_images = None if test is None else _as_images(test, path, mask=_black_and_white(images))
    if test_images is not None and test_images.shape[1:] != images.shape[1:]:
        raise DataError(f"{path}: x_test has images of {test_images.shape[1:]}, the training images are {images.shape[1:]}")
    test_labels, values, notes = None, first("y_test"), ()
    if test_images is not None and values is not None:
        if classes is None:
            notes = ("y_test is not used: there is no y_train beside it, whose classes clusters would be named after",)
        else:
            test_labels = _labels_among(classes, _column(values), len(test_images), path)
    names = () if classes is None else class_names([str(value) for value in classes.tolist()])
    return ArrayImages(images, labels, names, test_images, test_labels, notes)


def _black_and_white(images: Images) -> bool:
    """Whether all pixels are 0 or 255. Images are looked at one by one: mostly the first decides, and no set is copied as a whole."""
    return all(((image == 0) | (image == 255)).all() for image in images)


def _as_images(array: NDArray, path: Path, *, mask: bool | None = None) -> Images:
    """An array as (N, H, W, C) uint8. `mask` says whether 0 and 1 are black and white, where that is known from the training images."""
    if array.ndim == 3 and array.shape[-1] == 3 and min(array.shape[:2]) > 3:
        raise DataError(
            f"{path} holds an array of shape {array.shape}: one colour image is (1, {array.shape[0]}, {array.shape[1]}, 3), grey ones three"
            f" pixels wide are ({array.shape[0]}, {array.shape[1]}, 3, 1)"
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise DataError(f"{path} holds images of shape {array.shape}, expected (N, H, W) or (N, H, W, C) with 1 or 3 channels")
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"{path} holds images of type {array.dtype}, expected uint8 or floats in [0, 1]")
    if array.size and not np.isfinite(array).all():
        raise DataError(f"{path} holds pixels that are not finite numbers")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if np.issubdtype(array.dtype, np.integer) and low >= 0 and high <= 255:
        levels = array.astype(np.uint8, copy=False)
        is_mask = high == 1 if mask is None else mask and high <= 1  # 0 and 1 alone are no two shades of black
        return levels * np.uint8(255) if is_mask else levels
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
        return np.round(array * 255).astype(np.uint8)
    raise DataError(f"{path} holds {array.dtype} pixels in {low:g}..{high:g}, expected uint8, integers 0..255 or floats in [0, 1]")


def _column(labels: NDArray) -> NDArray:
    """(N, 1), as some sets store it, as (N,); bytes as the text they are."""
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    return np.char.decode(labels, "utf-8", "backslashreplace") if labels.dtype.kind == "S" else labels


def _as_labels(array: NDArray | None, count: int, path: Path) -> tuple[Labels | None, NDArray | None]:
    """Labels (N,) into the classes, and the classes, each once, in order."""
    if array is None:
        return None, None
    array = _column(array)
    if array.shape != (count,):
        raise DataError(f"{path} holds labels of shape {array.shape}, expected ({count},) as there are images")
    classes, labels = np.unique(array, return_inverse=True)
    return labels.astype(np.int64), classes


def _labels_among(classes: NDArray, values: NDArray, count: int, path: Path) -> Labels:
    """Labels (M,) of test images, into the classes of the training images."""
    refusal = DataError(f"{path}: y_test must hold one of the training labels for each of {count:,} images")
    if values.shape != (count,) or not len(classes):
        raise refusal
    try:
        if (classes.dtype.kind in "US") != (values.dtype.kind in "US"):  # "1" beside 1
            classes, values = classes.astype(str), values.astype(str)
        order = np.argsort(classes)
        found = order[np.searchsorted(classes, values, sorter=order).clip(max=len(classes) - 1)]
        same = (classes[found] == values) | ((classes[found] != classes[found]) & (values != values))  # not a number is one class
    except TypeError as error:  # dates beside numbers
        raise refusal from error
    if not same.all():
        raise refusal
    return found.astype(np.int64)
