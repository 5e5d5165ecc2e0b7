"""Opening an image file: what may stand there, how large, and what a decoder's failure means. `image_files` decodes what is opened."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from .metadata import TIFF, require_modest

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 2**25
"""The 24 megapixels of cameras and phones are below; with transparency, an image of as many takes 400 MB while it is read."""
MAX_SIDE = 2**16 - 1
"""Of a JPEG no side can be longer. To make a row, or a column, of millions of pixels smaller can take much more memory than it holds."""
INFO_TYPES = {"exif": (bytes,), "xmp": (bytes,), "transparency": (int, bytes, tuple)}
"""Types that Pillow expects under these names of metadata."""
READ_ONLY = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""A pipe without a writer must not keep the open call waiting."""


@contextlib.contextmanager
def opened(file: BinaryIO) -> Iterator[ImageFile]:
    """The image in `file`, header read and caps checked; whatever a decoder throws inside comes out as `ImageError`."""
    try:
        if not file.read(1):
            raise ImageError("not_an_image", "the file is empty")
        file.seek(0)
        require_modest(file)
        _load_plugins(file)
        with Image.open(file, formats=FORMATS) as image:
            size = f"{image.width} x {image.height}"
            if image.width * image.height > MAX_PIXELS:
                raise ImageError("too_many_pixels", f"the image is {size}, at most {MAX_PIXELS:,} pixels are decoded: make it smaller")
            if max(image.size) > MAX_SIDE:
                raise ImageError("too_many_pixels", f"the image is {size}, at most {MAX_SIDE:,} pixels a side are decoded: cut it")
            drop_misplaced(image)
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
def file_of(source: str | os.PathLike[str] | bytes) -> Iterator[BinaryIO]:
    """`source` as a file, of which no more is read than is asked for."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    handle, size = _open_regular(source)
    with os.fdopen(handle, "rb") as file:
        if size > MAX_BYTES:
            raise ImageError("too_large", f"the file is larger than the {MAX_BYTES:,} bytes that are read")
        yield file


def read_bytes(path: str | os.PathLike[str]) -> bytes:
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


def drop_misplaced(image: Image.Image) -> None:
    """Drop metadata of an unexpected type: a text in a PNG may have any name."""
    if not image.info:
        return
    for name, kinds in INFO_TYPES.items():
        if not isinstance(image.info.get(name, kinds[0]()), kinds):
            del image.info[name]
