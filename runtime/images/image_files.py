"""From an image file to the uint8 tensor every graph takes: one path for training and inference, whatever the bytes.

What becomes of a decoded image is `preprocess`'s. numpy is imported where an array is wanted: a process that only decodes does without.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, UsageError
from .frames import count_frames
from .metadata import TIFF, require_modest, require_modest_exif
from .preprocess import Preprocess, fit_image, to_grey_or_rgb, transparent
from .tiff import levels_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 2**25
"""The 24 megapixels of cameras and phones are below; with transparency, an image of as many takes 400 MB while it is read."""
ORIENTATION_TAG = 0x0112
TURNED = (5, 6, 7, 8)
"""Orientations of images that lie on their side."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image of each orientation is made upright; Pillow's `exif_transpose` also rewrites all other tags, and fails where it cannot."""
FEW_BITS = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow scales grey levels of 2 and 4 bits, by its name for them."""
WIDTH_TAG, HEIGHT_TAG = 0x0100, 0x0101
EXIF_NAMES = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Metadata in which Pillow looks for the orientation, of a TIFF also in its tags."""
INFO_TYPES = {"exif": (bytes,), "xmp": (bytes,), "transparency": (int, bytes, tuple)}
"""Types that Pillow expects under these names of metadata."""
READ_ONLY = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""A pipe without a writer must not keep the open call waiting."""


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
    pixels : ndarray, (H, W), (H, W, 1) grey or (H, W, 3) RGB, uint8
        Of any size; OpenCV's frames are BGR: ``frame[..., ::-1]``.
    preprocess : Preprocess

    Raises
    ------
    UsageError
        On an array of another shape or type, without pixels, or with more than are read.
    """
    import numpy as np

    grey = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if grey.dtype != np.uint8 or not (grey.ndim == 2 or (grey.ndim == 3 and grey.shape[2] == 3)) or not grey.size:
        raise UsageError(f"a picture is uint8 (H, W), (H, W, 1) or (H, W, 3): got {pixels.dtype} {pixels.shape}")
    if grey.shape[0] * grey.shape[1] > MAX_PIXELS:
        raise UsageError(f"a picture has at most {MAX_PIXELS:,} pixels: got {grey.shape[1]} x {grey.shape[0]}")
    (image,) = preprocess.as_images(fit_image(Image.fromarray(np.ascontiguousarray(grey)), preprocess).tobytes())
    return image


def decode_image(source: str | os.PathLike[str] | bytes, preprocess: Preprocess) -> Decoded:
    """`read_image`, with what else the file says."""
    data = source if isinstance(source, bytes) else _read_bytes(source)
    if len(data) > MAX_BYTES:
        raise ImageError("too_large", f"the file is larger than the {MAX_BYTES:,} bytes that are read")
    with _opened(io.BytesIO(data)) as image:
        frames = count_frames(image, data)
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            # libjpeg shrinks while it decodes; twice the size that is needed loses nothing that the resize would keep. Whatever the
            # model's channels are: a folder is read in three before it is known to be grey. MPO is a JPEG with more pictures behind it,
            # as some cameras and telephones write.
            width, height = 2 * preprocess.width, 2 * preprocess.height
            image.draft(image.mode, (height, width) if _orientation(image) in TURNED else (width, height))
        levels = levels_of(image)
        _scale_hidden(image)
        image.load()
        _drop_misplaced(image)  # a PNG may have more text behind its pixels
        lies = _exif_orientation(image)
        seen = _grey_of_two(image)
        upright = seen.transpose(UPRIGHT[lies]) if lies in UPRIGHT else seen
        # What is transparent shows the background that the model knows, whichever way the image is turned over afterwards.
        background = 255 - preprocess.background if preprocess.invert else preprocess.background
        return Decoded(fit_image(to_grey_or_rgb(upright, background, levels), preprocess).tobytes(), frames)


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
    with _file(source) as file, _opened(file) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer versions of Pillow give its size as turned already, older as stored; its tags are as stored
            tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue] - of its own kind of image
            width, height = tags.get(WIDTH_TAG, width), tags.get(HEIGHT_TAG, height)
        return (height, width) if _orientation(image) in TURNED else (width, height)


def may_be_transparent(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether an image has transparency of some kind, from its header alone; raises as `read_image`."""
    with _file(source) as file, _opened(file) as image:
        return transparent(image)


def _orientation(image: Image.Image) -> int:
    """How an image lies, before it is decoded: of a PNG, Pillow would decode it to look for what may stand behind its pixels."""
    if image.format != "PNG":
        return _exif_orientation(image)
    _require_modest_exif(image)
    exif = Image.Exif()
    return _orientation_in(lambda: exif.load(image.info.get("exif") or b"") or exif)


def _exif_orientation(image: Image.Image) -> int:
    if EXIF_NAMES.isdisjoint(image.info) and image.format != "TIFF":
        return 1
    _require_modest_exif(image)
    return _orientation_in(image.getexif)


def _orientation_in(read: Callable[[], Image.Exif]) -> int:
    """The orientation in the EXIF that `read` gives; upright where it cannot be read, for which Pillow raises all kinds of errors."""
    try:
        return read().get(ORIENTATION_TAG, 1)
    except (ImageError, MemoryError):
        raise
    except Exception:
        return 1


def _drop_misplaced(image: Image.Image) -> None:
    """Drop metadata of an unexpected type: a text in a PNG may have any name."""
    if not image.info:
        return
    for name, kinds in INFO_TYPES.items():
        if not isinstance(image.info.get(name, kinds[0]()), kinds):
            del image.info[name]


def _require_modest_exif(image: Image.Image) -> None:
    """Raise `ImageError` for EXIF out of proportion, wherever Pillow would read it from."""
    exif, written = image.info.get("exif"), image.info.get("Raw profile type exif")
    if exif is None and written:  # as ImageMagick puts it into a PNG: hexadecimal, behind three lines
        with contextlib.suppress(ValueError):
            exif = bytes.fromhex("".join(written.split("\n")[3:]))
    if exif:
        require_modest_exif(exif)


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[ImageFile]:
    """The image in `file`, header read and caps checked; whatever a decoder throws inside comes out as `ImageError`."""
    try:
        if not file.read(1):
            raise ImageError("not_an_image", "the file is empty")
        file.seek(0)
        require_modest(file)
        _load_plugins(file)
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise ImageError("too_many_pixels", f"the image is {size}, at most {MAX_PIXELS:,} pixels are decoded: make it smaller")
            _drop_misplaced(image)
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:
        file.seek(0)
        if file.read(4) in TIFF:
            raise ImageError("unsupported_mode", "a TIFF of pixels that are not read, or damaged: save it with 8 or 16 bits") from error
        raise ImageError("not_an_image", f"not a readable image; {', '.join(FORMATS)} are") from error
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to decode the image") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged files
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise ImageError("truncated_image", f"the image is cut short: {error}") from error
        raise ImageError("corrupt_image", f"the image is damaged: {error}") from error


def _load_plugins(file: BinaryIO) -> None:
    """Load the plugins for TIFF and WebP where they may be needed: Pillow would load all of its own, 50 ms of a cold start."""
    beginning = file.read(4)
    file.seek(0)
    if not beginning.startswith((b"\x89PNG", b"\xff\xd8", b"BM", b"GIF8")):
        from PIL import TiffImagePlugin, WebPImagePlugin  # noqa: F401 - they register themselves


@contextlib.contextmanager
def _file(source: str | os.PathLike[str] | bytes) -> Iterator[BinaryIO]:
    """`source` as a file, of which no more is read than is asked for."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    handle, size = _open_regular(source)
    with os.fdopen(handle, "rb") as file:
        if size > MAX_BYTES:
            raise ImageError("too_large", f"the file is larger than the {MAX_BYTES:,} bytes that are read")
        yield file


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    handle, size = _open_regular(path)
    try:
        wanted, pieces = min(size, MAX_BYTES) + 1, []
        while wanted and (piece := os.read(handle, wanted)):  # some file systems give less than was asked for
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except OSError as error:
        raise ImageError("unreadable", f"cannot be read: {error.strerror or error}") from error
    finally:
        os.close(handle)


def _open_regular(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Handle and size of a file, whatever else stands there refused; the caller closes it."""
    try:
        handle = os.open(path, READ_ONLY)
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode):
            return handle, status.st_size
        os.close(handle)
        raise ImageError("not_a_file", "a folder, pipe or device, expected an image file")
    except IsADirectoryError as error:
        raise ImageError("not_a_file", "a folder, pipe or device, expected an image file") from error
    except FileNotFoundError as error:
        of_a_pattern = ", and as a pattern it matches none" if set("*?[") & set(os.fsdecode(path)) else ""
        raise ImageError("missing", f"no such file{of_a_pattern}") from error
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
