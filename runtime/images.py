"""From an image file to the uint8 tensor every graph takes: one decode, colour and resize path for training and inference.

The rules (`Preprocess`) travel in the manifest, so that what a model saw in training is what it sees on the device. Scaling to [0, 1]
is not here: it lives inside the graphs. numpy is imported where an array is wanted: a process that only decodes does without.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import msgspec
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from .errors import ImageError
from .frames import count_frames
from .metadata import require_modest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 2**25
"""The 24 megapixels of cameras and phones are below; with transparency, an image of as many takes 400 MB while it is read."""
ORIENTATION_TAG = 0x0112
TURNED = (5, 6, 7, 8)
"""Orientations of images that lie on their side."""
WIDTH_TAG, HEIGHT_TAG = 0x0100, 0x0101
STRIP = 256
"""Rows that are converted at a time."""
READ_ONLY = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""A pipe without a writer must not keep the open call waiting."""

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}


class Preprocess(msgspec.Struct, frozen=True, kw_only=True):
    """How a decoded image becomes the (height, width, channels) uint8 tensor of a model."""

    height: int
    width: int
    channels: Literal[1, 3]
    """1: grey (ITU-R 601 luma), 3: RGB."""
    resample: Literal["bilinear", "lanczos", "nearest"] = "bilinear"
    """Pillow's filter; bilinear and lanczos average over the source when shrinking."""
    fit: Literal["pad", "stretch"] = "pad"
    """pad: keep the aspect ratio and fill with `background`; stretch: fill the frame."""
    background: int = 0
    """0..255, behind transparent pixels and around padded images."""
    invert: bool = False
    """Swap black and white after decoding, for a model trained on the other polarity."""
    sixteen_bit: Literal["divide_by_257"] = "divide_by_257"
    """Grey levels 0..65535 map linearly onto 0..255 (Pillow's own conversion clips at 255)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.height, self.width, self.channels

    def as_images(self, pixels: bytes) -> NDArray[np.uint8]:
        """The images (N, H, W, C) whose pixels `decode_image` and `decode_all` give."""
        import numpy as np

        return np.frombuffer(pixels, np.uint8).reshape(-1, *self.shape)

    def swapped(self, swap: bool = True) -> Preprocess:
        """These rules for images of the other polarity, if they are."""
        return msgspec.structs.replace(self, invert=self.invert != swap)


class Decoded(NamedTuple):
    """One image file, as a model sees it."""

    pixels: bytes
    """Of the (H, W, C) uint8 tensor."""
    frames: int
    """Of the file; the first one was read."""


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


def decode_image(source: str | os.PathLike[str] | bytes, preprocess: Preprocess) -> Decoded:
    """`read_image`, with what else the file says."""
    data = source if isinstance(source, bytes) else _read_bytes(source)
    if len(data) > MAX_BYTES:
        raise ImageError("too_large", f"the file is larger than the {MAX_BYTES:,} bytes that are read")
    with _opened(io.BytesIO(data)) as image:
        frames = count_frames(image, data)
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            # libjpeg shrinks while it decodes; twice the size that is needed loses nothing that the resize would keep. Whatever the
            # model's channels are: a folder is read in three before it is known to be grey.
            width, height = 2 * preprocess.width, 2 * preprocess.height
            image.draft(image.mode, (height, width) if _orientation(image) in TURNED else (width, height))
        image.load()
        upright = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION_TAG, 1) != 1 else image
        # What is transparent shows the background that the model knows, whichever way the image is turned over afterwards.
        background = 255 - preprocess.background if preprocess.invert else preprocess.background
        return Decoded(fit_image(_to_grey_or_rgb(upright, background), preprocess).tobytes(), frames)


class DecodedBlock(NamedTuple):
    """Many files, decoded."""

    frames: list[int | ImageError]
    """Of each source: frames in its file, or why it cannot be read."""
    pixels: bytes
    """Of the (N, H, W, C) uint8 tensor of the sources that can be read."""


def decode_all(sources: Sequence[str | bytes], preprocess: Preprocess, unwanted: Callable[[], bool] = lambda: False) -> DecodedBlock:
    """`decode_image` for many; a source that cannot be read does not raise. Sources are left out once they are `unwanted`."""
    frames: list[int | ImageError] = []
    pixels = []
    for source in sources:
        if unwanted():
            break
        try:
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
        return _transparent(image)


def _transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info


def _orientation(image: Image.Image) -> int:
    """How an image lies, before it is decoded: of a PNG, Pillow would decode it to look for what may stand behind its pixels."""
    if image.format != "PNG":
        return image.getexif().get(ORIENTATION_TAG, 1)
    exif = Image.Exif()
    exif.load(image.info.get("exif") or b"")
    return exif.get(ORIENTATION_TAG, 1)


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """The image in `file`, header read and caps checked; whatever a decoder throws inside comes out as `ImageError`."""
    try:
        require_modest(file)
        _load_plugins(file)
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise ImageError("too_many_pixels", f"the image is {size}, at most {MAX_PIXELS:,} pixels are decoded: make it smaller")
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", f"not a readable image; {', '.join(FORMATS)} are") from error
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to decode the image") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged files
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise ImageError("truncated_image", f"the image is cut short: {error}") from error
        raise ImageError("corrupt_image", f"the image is damaged: {error}") from error


def _load_plugins(file: BinaryIO) -> None:
    """Those of the formats that Pillow would load all of its plugins to look for, 50 ms of a cold start."""
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
        raise ImageError("missing", "no such file") from error
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _to_grey_or_rgb(image: Image.Image, background: int) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _divided(image)
    if image.mode == "F":
        raise ImageError("unsupported_mode", "floating-point pixels have no agreed range: save the image with 8 or 16 bits")
    if image.mode in ("LA", "La"):
        return _composite(image.convert("LA"), "L", background)
    if _transparent(image):
        return _composite(image.convert("RGBA"), "RGB", background)
    return _as_mode(image, "L" if image.mode in ("1", "L") else "RGB")


def _divided(image: Image.Image) -> Image.Image:
    """Grey levels 0..65535 over 257, rounded; no half is possible, 257 being odd. A strip at a time: 33 million pixels are 270 MB wide."""
    import numpy as np

    levels = np.asarray(image) if image.mode == "I" else np.asarray(image, dtype=np.uint16)
    if image.mode == "I" and (levels.min() < 0 or levels.max() > 65535):
        raise ImageError("unsupported_mode", f"integer grey levels {levels.min()}..{levels.max()}, expected 0..65535")
    grey = np.empty(levels.shape, np.uint8)
    for top in range(0, len(levels), STRIP):
        grey[top : top + STRIP] = (levels[top : top + STRIP].astype(np.uint32) + 128) // 257
    return Image.fromarray(grey)


def _as_mode(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert would copy it


def _composite(image: Image.Image, mode: Literal["L", "RGB"], background: int) -> Image.Image:
    """Lay a transparent image on the background: `convert` alone would show the colour hidden under it."""
    base = Image.new(mode, image.size, background if mode == "L" else (background,) * 3)
    base.paste(image.convert(mode), mask=image.getchannel("A"))
    return base


def fit_image(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Convert and resize an upright ``L`` or ``RGB`` image."""
    image = _as_mode(image, "L" if preprocess.channels == 1 else "RGB")
    if preprocess.invert:
        image = ImageChops.invert(image)
    wanted = (preprocess.width, preprocess.height)
    if image.size != wanted:
        filter_ = _RESAMPLE[preprocess.resample]
        if preprocess.fit == "stretch":
            image = image.resize(wanted, filter_)
        else:
            scale = min(wanted[0] / image.width, wanted[1] / image.height)
            inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            frame = Image.new(image.mode, wanted, preprocess.background if image.mode == "L" else (preprocess.background,) * 3)
            frame.paste(image.resize(inner, filter_), ((wanted[0] - inner[0]) // 2, (wanted[1] - inner[1]) // 2))
            image = frame
    return image
