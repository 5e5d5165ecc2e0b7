"""How many frames an image file holds, without decoding them and without walking through millions.

Pillow's `n_frames` reads a GIF or TIFF to its end: 10,000 pages in a megabyte take it seconds. Formats whose header says it are asked.
"""

from PIL import Image

MOST = 1000
"""Frames that are counted, at most."""
EXTENSION, DESCRIPTOR = 0x21, 0x2C
"""What a block of a GIF begins with, the second one for an image."""


def count_frames(image: Image.Image, data: bytes) -> int:
    """Frames of an opened image whose file is `data`, of a GIF or TIFF at most `MOST`; the first one is left selected."""
    if image.format == "GIF":
        return max(1, _gif_frames(data))
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1)
    count = 1
    try:
        while count < MOST:
            image.seek(count)
            count += 1
    except EOFError:
        pass
    image.seek(0)
    return count


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
