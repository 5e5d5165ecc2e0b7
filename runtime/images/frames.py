"""How many frames an image file holds, without decoding them and without walking through millions.

Pillow's `n_frames` reads a GIF or TIFF to its end: 10,000 pages in a megabyte take it seconds, and what their entries point at is read
too. Formats whose header says it are asked.
"""

import struct

from PIL import Image

from .metadata import TIFF

MOST = 1000
"""Frames that are counted, at most."""
EXTENSION, DESCRIPTOR = 0x21, 0x2C
"""What a block of a GIF begins with, the second one for an image."""


def count_frames(image: Image.Image, data: bytes) -> int:
    """Frames of an opened image whose file is `data`, of a GIF or TIFF at most `MOST`."""
    if image.format == "GIF":
        return max(1, _gif_frames(data))
    if image.format == "TIFF":
        return max(1, _tiff_frames(data))
    return getattr(image, "n_frames", 1)


def _tiff_frames(data: bytes) -> int:
    """Pages in a TIFF's chain of directories; what is cut off, or leads back, is not counted."""
    if data[:4] not in TIFF:
        return 1
    order, big = "<" if data.startswith(b"II") else ">", b"+" in data[:4]
    number, offset = struct.Struct(order + ("Q" if big else "H")), struct.Struct(order + ("Q" if big else "I"))
    entry, at = 20 if big else 12, 8 if big else 4
    seen: set[int] = set()
    try:
        (page,) = offset.unpack_from(data, at)
        while page and page not in seen and len(seen) < MOST:
            (entries,) = number.unpack_from(data, page)
            after = page + number.size + entries * entry
            (following,) = offset.unpack_from(data, after)
            seen.add(page)
            page = following
    except struct.error:  # cut short
        pass
    return len(seen)


def _gif_frames(data: bytes) -> int:
    """Image descriptors in a GIF's chain of blocks; what is cut off is not counted."""
    count, at = 0, 13 + _palette(data, 10)
    while at < len(data) and count < MOST:
        if data[at] == DESCRIPTOR:
            count += 1
            at += 10 + _palette(data, at + 9) + 1
        elif data[at] == EXTENSION:
            at += 2
        else:
            break
        while at < len(data) and data[at]:  # sub-blocks, each behind its length, up to an empty one
            at += 1 + data[at]
        at += 1
    return count


def _palette(data: bytes, at: int) -> int:
    """Bytes of the colour table that the flags at a position announce."""
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
