"""Refuses image files whose metadata alone would take memory or time out of all proportion, before Pillow reads it.

A JPEG of 32 MB may hold eight million empty segments, each of which Pillow keeps; the entries of a TIFF, or of the EXIF in any image, may
all point at the same bytes, which older versions read once for each. Nothing else is judged here: what is no such file, or damaged, is
left to Pillow. Of a TIFF the first page alone is read.
"""

import io
import os
import struct
from typing import BinaryIO

from .errors import ImageError

MOST = 2000
"""Segments or entries; pages of a scanner's EXIF have some 60, a colour profile in pieces at most 255 more."""
MOST_BYTES = 2**26
"""Of all entries together: files are half as large. Less is left to Pillow, which reads images whose lesser entries are damaged."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How one begins, of either order of bytes, with offsets of four bytes or of eight."""
SCAN, ALONE = 0xDA, (0x01, *range(0xD0, 0xD9))
"""Markers of a JPEG: pixels begin; those that stand without a segment."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type of a TIFF's entries."""


def require_modest(file: BinaryIO) -> None:
    """Raise `ImageError` for such a file; it is left at its beginning."""
    beginning = file.read(4)
    if beginning.startswith(b"\xff\xd8"):
        _jpeg(file)
    elif beginning in TIFF:
        _tiff(file, "<" if beginning.startswith(b"II") else ">", big=b"+" in beginning)
    file.seek(0)


def require_modest_exif(exif: bytes) -> None:
    """The same of what an image holds as EXIF, which is a TIFF without pixels; raised before anybody reads its entries."""
    require_modest(io.BytesIO(exif.removeprefix(b"Exif\0\0")))


def _jpeg(file: BinaryIO) -> None:
    at = 2
    for _ in range(MOST):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == SCAN:
            return
        if head[1] == 0xFF:  # fill bytes may stand before a marker
            at += 1
        else:
            at += 2 if head[1] in ALONE else 2 + int.from_bytes(head[2:], "big")
    raise ImageError("corrupt_image", f"the image is damaged: its pixels come after more than {MOST:,} pieces of metadata")


def _tiff(file: BinaryIO, order: str, *, big: bool) -> None:
    room = file.seek(0, os.SEEK_END)
    file.seek(8 if big else 4)
    try:
        (at,) = struct.unpack(order + ("Q" if big else "I"), file.read(8 if big else 4))
        file.seek(min(at, room))
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        if count > MOST:
            raise ImageError("corrupt_image", f"the image is damaged: {count:,} entries in its header")
        entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
        held = 0
        for _ in range(count):
            _, kind, values, _ = entry.unpack(file.read(entry.size))
            held += SIZES.get(kind, 0) * values
        if held > MOST_BYTES:
            raise ImageError("corrupt_image", f"the image is damaged: its header speaks of {held:,} bytes of metadata")
    except struct.error:  # cut short: Pillow has words for it
        return
