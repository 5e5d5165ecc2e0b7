"""A folder of images of any size as one array: which files are read, into what size, and what fills a frame of another shape.

Bars beside an image are what clusters would form by: they outlive every view, and say how wide an image was and nothing of what is on it.
So images are fitted in with their aspect ratio kept only where nobody sees the bars, on one plain background; elsewhere they are stretched.
"""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from catvae.runtime.errors import DataError, ImageError
from catvae.runtime.images.decoding import Decoding
from catvae.runtime.images.image_files import image_size_of, may_be_transparent, read_image
from catvae.runtime.images.preprocess import Preprocess
from catvae.runtime.images.sources import SUFFIXES, walk_images
from catvae.runtime.sampling import scattered
from catvae.runtime.wording import printable

from .edges import edges

BLOCK = 64
"""Images that are decoded before they are copied into the array."""
SAY_EVERY = 60.0
"""Seconds between two lines that say how far reading has come."""
LARGEST_NATIVE = 64
"""A folder of equally sized images keeps their size up to this many pixels a side; else images are fitted into a square of
their longest side, at most this one."""
LOOKED_AT = 200
"""The most images whose borders are searched for a common background."""
PLAIN = 8
"""Levels around the common background within which a pixel belongs to it: the noise of a scanner, of JPEG and of shrinking."""
MOSTLY = 0.9
"""Share of the pixels on borders that belong to a plain background: things may touch the border here and there."""

USUAL = 0.9
"""Share of the images that are of one size from which on the others are few."""

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Sizes = Set[tuple[int, int]]
"""(width, height) of images."""


class FolderImages(NamedTuple):
    """What a folder holds."""

    images: Images
    """(N, H, W, C), C is 1 or 3."""
    preprocess: Preprocess
    labels: Labels | None
    """(N,), where every image lies in a sub-folder of its class."""
    names: tuple[str, ...]
    """Names of the classes."""
    files: tuple[str, ...]
    """(N,) paths below the folder."""
    notes: tuple[str, ...]
    """What the user should know about how the folder was read."""


def read_folder(folder: Path, image_size: int | None, warn: Callable[[str], None]) -> FolderImages:
    """Every image below `folder`, in sorted order; the first folder level names the label.

    Raises
    ------
    DataError
        Where no image can be read.
    """
    found = list(_image_files(folder, warn))
    if not found:
        raise DataError(f"{folder} holds no images: expected {', '.join(sorted(SUFFIXES))} files in it or in its sub-folders")
    size_of = _sizes(found, warn)
    preprocess = fitting(list(size_of), set(size_of.values()), image_size)
    images, readable = _decoded(list(size_of), preprocess, warn)
    if not readable:
        raise DataError(f"{folder}: none of its {len(found):,} image files can be read")
    shapes = Counter(size_of[file] for file in readable)
    sizes = set(shapes)
    if len(readable) < len(size_of) and (better := fitting(readable, sizes, image_size)) != preprocess:
        preprocess = better  # what cannot be read has no say in how the others are fitted in
        images, readable = _decoded(readable, preprocess, warn)
    if all((image[..., :1] == image).all() for image in images):  # grey pictures saved as RGB train as grey
        images, preprocess = images[..., :1].copy(), msgspec.structs.replace(preprocess, channels=1)
    labels, names = _labels(readable, folder)
    notes = _notes_on_sizes(sizes, preprocess) + ([] if image_size else _note_on_usual_size(shapes, preprocess))
    if skipped := len(found) - len(readable):
        notes.insert(0, f"{skipped:,} of {len(found):,} image files could not be read and were left out")
    inside = sum(file.parent != folder for file in readable)
    if 0 < inside < len(readable):
        notes.append(f"{len(readable) - inside:,} of {len(readable):,} images in no sub-folder: names of sub-folders are not used")
    elif inside and labels is None:
        notes.append("all images lie in one sub-folder: there are no classes to name clusters after")
    files = tuple(str(file.relative_to(folder)) for file in readable)
    return FolderImages(images, preprocess, labels, names, files, tuple(notes))


def _sizes(files: Sequence[Path], warn: Callable[[str], None]) -> dict[Path, tuple[int, int]]:
    """(width, height) of the files whose header can be read."""
    size_of = {}
    for file in files:
        try:
            size_of[file] = image_size_of(file)
        except ImageError as error:
            warn(f"left out {file}: {error}")
    return size_of


def _decoded(files: Sequence[Path], rules: Preprocess, warn: Callable[[str], None]) -> tuple[Images, list[Path]]:
    """Images of the files that can be read, (N, H, W, C), and which these are; several are decoded at a time."""
    readable, said = [], time.monotonic()
    try:
        images = np.empty((len(files), *rules.shape), np.uint8)
    except MemoryError as error:
        size = f"{len(files):,} images of {rules.width} x {rules.height}"
        raise DataError(f"{size} do not fit into memory: a smaller --image-size needs less") from error
    with contextlib.closing(Decoding(rules, BLOCK)) as decoding:
        for block in decoding.blocks(map(os.fspath, files)):
            found = rules.as_images(block.decoded.pixels)
            images[len(readable) : len(readable) + len(found)] = found
            for path, frames in zip(block.paths, block.decoded.frames, strict=True):
                if isinstance(frames, ImageError):
                    warn(f"left out {path}: {frames}")
                else:
                    readable.append(Path(path))
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                warn(f"read {len(readable):,} of {len(files):,} images")
    return images[: len(readable)], readable


def fitting(files: Sequence[Path], sizes: Sizes, image_size: int | None) -> Preprocess:
    """How images of these (width, height) become images of one size; `image_size` is the side of a square."""
    height, width = _target_size(sizes, image_size)
    stretched = Preprocess(height=height, width=width, channels=3, fit="stretch")  # also for new images, where these need no bars
    stretched = msgspec.structs.replace(stretched, background=_transparent_background(files, stretched))
    background = _plain_background(files, stretched)
    return stretched if background is None else msgspec.structs.replace(stretched, fit="pad", background=background)


def _needs_bars(sizes: Sizes, preprocess: Preprocess) -> bool:
    """Whether some image is of another shape than the frame."""
    return any(width * preprocess.height != height * preprocess.width for width, height in sizes)


def _transparent_background(files: Sequence[Path], rules: Preprocess) -> int:
    """What transparent images are laid on: 0, black, where their content is light, 255 where it is dark."""
    shown = opaque = 0.0
    for file in _looked_at(files):
        try:
            if not may_be_transparent(file):
                continue
            on_black = read_image(file, rules).astype(np.float64)
            on_white = read_image(file, msgspec.structs.replace(rules, background=255))
        except ImageError:  # whoever reads them all says so
            continue
        if (on_black != on_white).any():
            shown += on_black.sum() / 255
            opaque += (1 - (on_white - on_black) / 255).sum()
    return 255 if shown < opaque / 2 else 0


def _looked_at(files: Sequence[Path]) -> Sequence[Path]:
    return [files[i] for i in scattered(len(files), LOOKED_AT)]


def _plain_background(files: Sequence[Path], stretched: Preprocess) -> int | None:
    """The grey level, 0..255, that nearly all of the images' borders show; None where they do not."""
    pieces = []
    for file in _looked_at(files):
        try:
            x = read_image(file, stretched)
        except ImageError:  # whoever reads them all says so
            continue
        pieces += [edge[0] for edge in edges(x[None])]
    if not pieces:
        return None
    around = np.concatenate(pieces).astype(np.int64)
    background = int(np.median(around))
    plain = (np.abs(around - background) <= PLAIN).all(1)
    return background if plain.mean() >= MOSTLY else None


def _labels(files: Sequence[Path], folder: Path) -> tuple[Labels | None, tuple[str, ...]]:
    parents = [file.relative_to(folder).parts[0] if file.parent != folder else "" for file in files]
    names = tuple(sorted(set(parents), key=lambda name: (printable(name), name)))
    if "" in names or len(names) < 2:
        return None, ()
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[parent] for parent in parents], dtype=np.int64), names


def _image_files(folder: Path, warn: Callable[[str], None]) -> Iterator[Path]:
    """Images below `folder` as `walk_images` finds them, without folders that cannot be listed."""
    for path in map(Path, walk_images(os.fspath(folder), warn)):
        if os.path.isdir(path):  # Path's own raises where the folder may not be entered
            warn(f"left out {path}: a folder that cannot be listed")
        else:
            yield path


def _target_size(sizes: Sizes, image_size: int | None) -> tuple[int, int]:
    """(H, W) that images of these (width, height) are fitted into."""
    if not sizes:
        return 1, 1
    largest = max(max(size) for size in sizes)
    if image_size is None and len(sizes) == 1 and largest <= LARGEST_NATIVE:
        width, height = next(iter(sizes))
        return height, width
    side = image_size or min(LARGEST_NATIVE, largest)
    return side, side


def _note_on_usual_size(shapes: Counter[tuple[int, int]], preprocess: Preprocess) -> list[str]:
    """A line where a few larger images make a frame that most of them would not need."""
    (size, count), total = shapes.most_common(1)[0], shapes.total()
    pixels, side = preprocess.width * preprocess.height, max(size)
    if count < USUAL * total or 2 * side**2 > pixels:
        return []
    less = f"{pixels / side**2:.1f} times fewer pixels to compute"
    return [f"{count:,} of {total:,} images are {size[0]} x {size[1]}: --image-size {side} leaves {less}"]


def _notes_on_sizes(sizes: Sizes, preprocess: Preprocess) -> list[str]:
    """A line about what was done to the sizes, where anything was."""
    frame = f"{preprocess.width} x {preprocess.height} pixels"
    if len(sizes) > 1:
        what = f"images come in {len(sizes):,} sizes: each was"
    else:
        width, height = next(iter(sizes))
        if (width, height) == (preprocess.width, preprocess.height):
            return []
        what = f"images of {width} x {height} were"
    if not _needs_bars(sizes, preprocess):
        return [f"{what} resized to {frame}"]
    if preprocess.fit == "stretch":
        return [f"{what} stretched to {frame}: without a plain background in common, bars beside them would be seen"]
    return [f"{what} fitted into {frame}, aspect ratio kept, on their common background (grey level {preprocess.background})"]
