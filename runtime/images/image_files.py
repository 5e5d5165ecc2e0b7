"""From an image file to the uint8 tensor every graph takes: one path for training and inference, whatever the bytes.

What becomes of a decoded image is `preprocess`'s. numpy is imported where an array is wanted: a process that only decodes does without.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from ..errors import ImageError, UsageError
from .frames import count_frames
from .opening import MAX_BYTES, MAX_PIXELS, drop_misplaced, file_of, opened, read_bytes
from .orientation import TURNED, exif_orientation, orientation_of, upright
from .preprocess import Levels, Preprocess, fit_image, to_grey_or_rgb, transparent
from .tiff import levels_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

FEW_BITS = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow scales grey levels of 2 and 4 bits, by its name for them."""
WIDTH_TAG, HEIGHT_TAG = 0x0100, 0x0101


class Decoded(NamedTuple):
    """One image file, as a model sees it."""

    pixels: bytes
    """Bytes of the (H, W, C) uint8 tensor."""
    frames: int
    """Frames in the file; the first one was read."""


def read_image(source: str | os.PathLike[str] | bytes, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode, orient, convert and resize one image.

    Parameters
    ----------
    source : path or bytes
        A file, or the bytes of one. Only the first frame of an animation or multi-page file is read.
    preprocess : Preprocess
        The model's rules.

    Returns
    -------
    ndarray, (H, W, C), uint8

    Raises
    ------
    ImageError
        With one of the codes ``missing``, ``not_a_file``, ``unreadable``, ``too_large``, ``not_an_image``, ``too_many_pixels``,
        ``truncated_image``, ``corrupt_image``, ``unsupported_mode``, ``out_of_memory``.
    """
    (image,) = preprocess.as_images(decode_image(source, preprocess).pixels)
    return image


def image_of_array(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """A picture in memory, a camera's frame say, as `read_image` gives the same picture from a PNG file.

    Parameters
    ----------
    pixels : ndarray, (H, W), (H, W, 1) grey or (H, W, 3) RGB, uint8; grey may be uint16, where 65535 is white
        Of any size; OpenCV's frames are BGR: ``frame[..., ::-1]``.
    preprocess : Preprocess

    Raises
    ------
    UsageError
        On an array of another shape or type, without pixels, or with more than are read.
    """
    import numpy as np

    grey = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    wide = grey.dtype == np.uint16 and grey.ndim == 2
    if not (wide or (grey.dtype == np.uint8 and (grey.ndim == 2 or grey.shape[2:] == (3,)))) or not grey.size:
        raise UsageError(f"a picture is uint8 (H, W), (H, W, 1) or (H, W, 3), or uint16 and grey: got {pixels.dtype} {pixels.shape}")
    if grey.shape[0] * grey.shape[1] > MAX_PIXELS:
        raise UsageError(f"a picture has at most {MAX_PIXELS:,} pixels: got {grey.shape[1]} x {grey.shape[0]}")
    picture = to_grey_or_rgb(Image.fromarray(np.ascontiguousarray(grey)), preprocess.background, Levels())
    (image,) = preprocess.as_images(fit_image(picture, preprocess).tobytes())
    return image


def decode_image(source: str | os.PathLike[str] | bytes, preprocess: Preprocess) -> Decoded:
    """`read_image`, with what else the file says."""
    data = source if isinstance(source, bytes) else read_bytes(source)
    if len(data) > MAX_BYTES:
        raise ImageError("too_large", f"the file is larger than the {MAX_BYTES:,} bytes that are read")
    with opened(io.BytesIO(data)) as image:
        frames = count_frames(image, data)
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            # libjpeg shrinks while it decodes; twice the size that is needed loses nothing that the resize would keep. Whatever the
            # model's channels are: a folder is read in three before it is known to be grey. MPO is a JPEG with more pictures behind it,
            # as some cameras and telephones write.
            width, height = 2 * preprocess.width, 2 * preprocess.height
            image.draft(image.mode, (height, width) if orientation_of(image) in TURNED else (width, height))
        levels = levels_of(image)
        _scale_hidden(image)
        image.load()
        drop_misplaced(image)  # a PNG may have more text behind its pixels
        seen = upright(_grey_of_two(image), exif_orientation(image))
        # What is transparent shows the background that the model knows, whichever way the image is turned over afterwards.
        background = 255 - preprocess.background if preprocess.invert else preprocess.background
        return Decoded(fit_image(to_grey_or_rgb(seen, background, levels), preprocess).tobytes(), frames)


def _scale_hidden(image: ImageFile) -> None:
    """Scale a PNG's transparent level as Pillow scales its pixels: 2 and 4 grey bits up, 16 bits of a colour down."""
    hidden = image.info.get("transparency")
    stored = str(image.tile[0][3]) if len(image.tile) == 1 else ""
    if image.mode == "L" and isinstance(hidden, int):
        image.info["transparency"] = hidden * FEW_BITS.get(stored, 1)
    elif image.mode == "RGB" and isinstance(hidden, tuple) and stored == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in hidden)


def _grey_of_two(image: Image.Image) -> Image.Image:
    """An image of one bit in which a level stands for transparent, as grey: versions of Pillow differ on which level that is."""
    if image.mode != "1" or not isinstance(hidden := image.info.get("transparency"), int):
        return image
    del image.info["transparency"]
    grey = image.convert("L")
    grey.info["transparency"] = 255 if hidden else 0
    return grey


class DecodedBlock(NamedTuple):
    """Many files, decoded."""

    frames: list[int | ImageError]
    """For each source the number of frames in its file, or why it cannot be read."""
    pixels: bytes
    """Bytes of the (N, H, W, C) uint8 tensor of the sources that can be read."""


def decode_all(
    sources: Sequence[str | bytes | ImageError], preprocess: Preprocess, unwanted: Callable[[], bool] = lambda: False
) -> DecodedBlock:
    """`decode_image` for many; a source that cannot be read does not raise. Sources are left out once they are `unwanted`.

    In place of a source there may stand why it could not be had.
    """
    frames: list[int | ImageError] = []
    pixels = []
    for source in sources:
        if unwanted():
            break
        try:
            if isinstance(source, ImageError):
                raise source
            found = decode_image(source, preprocess)
        except ImageError as error:
            frames.append(error)
        else:
            pixels.append(found.pixels)
            frames.append(found.frames)
    return DecodedBlock(frames, b"".join(pixels))


def image_size_of(source: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(width, height) of the upright image, from its header alone; raises as `read_image`."""
    with file_of(source) as file, opened(file) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer versions of Pillow give its size as turned already, older as stored; its tags are as stored
            tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue] - of its own kind of image
            width, height = tags.get(WIDTH_TAG, width), tags.get(HEIGHT_TAG, height)
        return (height, width) if orientation_of(image) in TURNED else (width, height)


def may_be_transparent(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether an image has transparency of some kind, from its header alone; raises as `read_image`."""
    with file_of(source) as file, opened(file) as image:
        return transparent(image)
