"""Where images come from: a named data set, a folder of images, IDX files, or numpy arrays; always one uint8 array in memory.

Labels are carried beside the images for the final score and for naming clusters; nothing in training reads them.
"""

import dataclasses
import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from catvae.runtime.errors import DataError
from catvae.runtime.files import sha256
from catvae.runtime.images.preprocess import Preprocess
from catvae.runtime.images.sources import is_image_name
from catvae.runtime.names import class_names
from catvae.runtime.ours import PLAN, RECORD

from .arrays import read_arrays
from .edges import background_of
from .idx import find_pairs, read_idx
from .image_folder import Images, Labels, read_folder

NAMED = ("digits", "mnist", "fashion-mnist")
DARK = 32
"""Level, of 255, up to which the brightest pixel of a pile is noted as dark."""
FEW = 100
"""Images below which a pile is noted as small."""
MIXED = 0.05
"""Share of grey pictures among coloured ones, or of coloured ones among grey, from which on a pile is noted as mixed."""


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images ready for training."""

    name: str
    """Name of the set, the folder or the file, without its path."""
    images: Images
    """(N, H, W, C) uint8, C is 1 or 3."""
    preprocess: Preprocess
    """How further images must be read to look like these."""
    labels: Labels | None = None
    """(N,) int64 classes, scoring only."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, made fit to name clusters."""
    files: tuple[str, ...] = ()
    """(N,) paths of image files below their folder; empty where images come from an array."""
    test_images: Images | None = None
    """(M, H, W, C) uint8, never trained on."""
    test_labels: Labels | None = None
    """(M,) int64, into `label_names`."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the data was read."""

    @property
    def hash(self) -> str:
        """SHA-256 of shape and pixels of the training images."""
        return sha256(repr(self.images.shape).encode(), np.ascontiguousarray(self.images).reshape(-1).data)


def load_data(
    source: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    labels: bool = True,
    named: bool | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> ImageData:
    """Load images from whatever `source` names.

    Parameters
    ----------
    source : str or path
        ``digits``, ``mnist``, ``fashion-mnist``, or a path: a folder of images (sub-folder names become labels), a folder of IDX files,
        an ``.npz`` or ``.npy`` file.
    image_size : int, optional
        Side of the square that images of a folder are fitted into.
    labels : bool
        Whether names of sub-folders and stored labels are classes; a folder for every day or camera is none.
    named : bool, optional
        Whether `source` is the name of a data set; when left out, as `is_named` says.
    warn : callable
        Receives a line for each file that had to be left out, and, where it takes long, how far reading has come.

    Returns
    -------
    ImageData
        All images, in memory.

    Raises
    ------
    DataError
        When there is nothing to read, it is damaged, or takes more memory than there is; of a folder, when no image can be read.
    """
    source = os.fspath(source)
    data = _load_named(source) if (is_named(source) if named is None else named) else _load(source, image_size, warn)
    data = dataclasses.replace(data, notes=(*data.notes, *_looks(data.images)))
    return data if labels else dataclasses.replace(data, labels=None, label_names=(), test_labels=None)


def _looks(images: Images) -> tuple[str, ...]:
    """Notes on images that look wrong: all alike, dark, few, or of two kinds before anything is learnt."""
    if len(images) > 1 and all((image == images[0]).all() for image in images):
        return ("all images are the same once read: there is nothing to sort",)
    if (brightest := int(images.max())) < DARK:
        return (f"no pixel is brighter than {brightest} of 255: levels of fewer bits, 12 in files of 16 say, are to be stretched before",)
    notes = [f"{len(images)} images are few: with less than {FEW}, clusters may be chance"] if len(images) < FEW else []
    if images.shape[-1] == 3:
        grey = sum(bool((image == image[..., :1]).all()) for image in images)
        if MIXED <= grey / len(images) <= 1 - MIXED:
            notes.append(
                f"{grey:,} of {len(images):,} images are grey, the others in colour: clusters may be that alone; convert all of them to"
                " grey, or try --colours ignore"
            )
    return tuple(notes)


def is_named(source: str) -> bool:
    """Whether a data set of that name is meant: not where a folder is called so, unless it is one of `catvae-train`'s."""
    if source not in NAMED:
        return False
    return not os.path.isdir(source) or not {RECORD, PLAN}.isdisjoint(os.listdir(source))


def _load_named(name: str) -> ImageData:
    return _digits() if name == "digits" else _openml(name)


def _load(source: str, image_size: int | None, warn: Callable[[str], None]) -> ImageData:
    if not source:
        raise DataError("the path of the images is empty")  # not the working folder, which Path makes of it
    path = Path(source)
    if not path.exists():
        near = difflib.get_close_matches(source, NAMED, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"give a path, or one of {', '.join(NAMED)}"
        if any(sign in source for sign in "*?["):
            hint = "patterns are not expanded: give the folder"
        raise DataError(f"no data at {source}: no such file or folder; {hint}")
    if path.is_dir():
        pairs = find_pairs(path)
        if pairs:
            return _idx(path, pairs)
        found = read_folder(path, image_size, warn)
        names = class_names(found.names)
        return ImageData(path.resolve().name, found.images, found.preprocess, found.labels, names, found.files, notes=found.notes)
    if path.suffix.lower() in (".npz", ".npy"):
        found = read_arrays(path)
        _require_some(found.images, path)
        return ImageData(
            path.stem,
            found.images,
            native_preprocess(found.images),
            found.labels,
            found.names,
            test_images=found.test_images,
            test_labels=found.test_labels,
            notes=found.notes,
        )
    raise DataError(f"{source} is not a data set: expected a folder, an .npz or an .npy file{_meant(path)}")


def _meant(file: Path) -> str:
    """What to do with a file that is no data set, where its name says what it is."""
    if file.suffix.lower() == ".csv":
        return "; a CSV file of path and class is given with --labels, beside the images"
    if is_image_name(file.name):
        return "; give the folder that the images are in"
    if "idx" in file.name:
        return "; give the folder of the IDX files"
    return "; unpack it, and give the folder" if file.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") else ""


def is_image_folder(source: str) -> bool:
    """Whether `load_data` would fit image files of `source` into a common size."""
    return not is_named(source) and Path(source).is_dir() and not find_pairs(Path(source))


def native_preprocess(images: Images) -> Preprocess:
    """The rules under which further images come out like `images`, (N, H, W, C): of another shape, they lie on their background."""
    height, width, channels = images.shape[1:]
    background = round(255 * background_of(images)) if images.size else 0
    return Preprocess(height=height, width=width, channels=channels, background=background)


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return ImageData("digits", images, native_preprocess(images), bunch.target.astype(np.int64), tuple("0123456789"))


def _openml(name: str) -> ImageData:
    from sklearn.datasets import fetch_openml

    title = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}[name]
    try:
        # liac-arff is scikit-learn's own parser: the other one needs pandas.
        bunch: Any = fetch_openml(title, version=1, as_frame=False, parser="liac-arff")
    except Exception as error:  # sockets, HTTP, cache and parser all fail in their own ways
        raise DataError(
            f"cannot fetch {title} from OpenML ({type(error).__name__}: {error}); give a folder with its IDX files instead"
        ) from error
    images = bunch.data.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = bunch.target.astype(np.int64)
    names = FASHION_NAMES if name == "fashion-mnist" else tuple("0123456789")
    return ImageData(
        name, images[:60000], native_preprocess(images), labels[:60000], names, test_images=images[60000:], test_labels=labels[60000:]
    )


FASHION_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def _idx(folder: Path, pairs: dict[str, tuple[Path, Path | None]]) -> ImageData:
    parts: dict[str, tuple[Images, Labels | None]] = {}
    for part, (image_file, label_file) in pairs.items():
        images = read_idx(image_file)
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise DataError(f"{image_file} has shape {images.shape}, expected (N, H, W) or (N, H, W, 1 or 3)")
        labels = None
        if label_file:
            labels = read_idx(label_file).astype(np.int64)
            if labels.shape != (len(images),):
                raise DataError(f"{label_file} holds {labels.shape} labels, expected {len(images):,} as in {image_file.name}")
        parts[part] = images, labels
    images, labels = parts.get("train") or parts["test"]
    test = parts.get("test") if "train" in parts else None
    if test and test[0].shape[1:] != images.shape[1:]:
        raise DataError(f"{folder}: test images have shape {test[0].shape[1:]}, training images {images.shape[1:]}")
    _require_some(images, folder)
    return ImageData(
        folder.resolve().name,
        images,
        native_preprocess(images),
        labels,
        _numbered(labels),
        test_images=test[0] if test else None,
        test_labels=test[1] if test else None,
    )


def _numbered(labels: Labels | None) -> tuple[str, ...]:
    return () if labels is None or not len(labels) else tuple(map(str, range(int(labels.max()) + 1)))


def _require_some(images: Images, source: Path) -> None:
    if not len(images):
        raise DataError(f"{source} holds no images")
    if not min(images.shape[1:3]):
        raise DataError(f"{source} holds images of {images.shape[2]} x {images.shape[1]} pixels")
