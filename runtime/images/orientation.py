"""How an image lies, as its EXIF says, and turning it upright.

Pillow's `exif_transpose` also rewrites all other tags, and fails where it cannot.
"""

import contextlib
from collections.abc import Callable

from PIL import Image

from ..errors import ImageError
from .metadata import require_modest_exif

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
"""How an image of each orientation is made upright."""
EXIF_NAMES = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Metadata in which Pillow looks for the orientation, of a TIFF also in its tags."""


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is to be seen."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def orientation_of(image: Image.Image) -> int:
    """How an image lies, before it is decoded: of a PNG, Pillow would decode it to look for what may stand behind its pixels."""
    if image.format != "PNG":
        return exif_orientation(image)
    _require_modest_exif(image)
    exif = Image.Exif()
    return _orientation_in(lambda: exif.load(image.info.get("exif") or b"") or exif)


def exif_orientation(image: Image.Image) -> int:
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


def _require_modest_exif(image: Image.Image) -> None:
    """Raise `ImageError` for EXIF out of proportion, wherever Pillow would read it from."""
    exif, written = image.info.get("exif"), image.info.get("Raw profile type exif")
    if exif is None and written:  # as ImageMagick puts it into a PNG: hexadecimal, behind three lines
        with contextlib.suppress(ValueError):
            exif = bytes.fromhex("".join(written.split("\n")[3:]))
    if exif:
        require_modest_exif(exif)
