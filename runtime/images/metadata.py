"""Refuses image files that would take memory or time out of all proportion, before Pillow reads them.

A JPEG of 32 MB may hold eight million empty segments, a PNG a third as many chunks, each of which Pillow keeps, and a GIF half as many
pieces of a comment as it has bytes. Each scan of a JPEG goes over all of its pixels, and each step of a compressed BMP is taken in Python.
The entries of a TIFF, or of the EXIF in any image, may all point at the same bytes, which older versions read once for each, or speak of
more strips than the image has rows, or of a tile that is larger than any image. Nothing else is judged here: what is no such file, or
damaged, is left to Pillow. Of a TIFF the first page alone is read.
"""

import io
import os
import struct
from typing import BinaryIO, NoReturn

from ..errors import ImageError

MOST = 2000
"""Segments or entries; pages of a scanner's EXIF have some 60, a colour profile in pieces at most 255 more."""
MOST_BYTES = 2**26
"""Bytes that all entries together may claim; files are half as large. Smaller claims are left to Pillow, which forgives damaged entries."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How one begins, of either order of bytes, with offsets of four bytes or of eight."""
SCAN = 0xDA
"""Marker of a JPEG after which the pixels follow."""
MOST_SCANS = 100
"""Of a progressive JPEG: files have about ten."""
RUNS = (b"\1\0\0\0", b"\2\0\0\0")
"""Compressions of a BMP by lengths of runs."""
MOST_STEPS = 2**23
"""Bytes of a BMP that is compressed so."""
TILE_SIDES, LARGEST_TILE = {322, 323}, 2**25
"""Tags of width and length of a TIFF's tiles, and the most pixels of one."""
SIDE_TYPES = {3: "H", 4: "I"}
"""Types that these have, as `struct` names them."""
ALONE = (0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE))
"""Markers of a JPEG without a segment behind them, an escaped 0xFF among them."""
READ = 2**16
"""Bytes that are looked through at a time."""
PIECES = {273, 279, 324, 325}
"""Tags of a TIFF with an entry for each strip or tile."""
MOST_PIECES = 2**16
"""Strips or tiles, and chunks of a PNG's pixels: an image of 33 million pixels has fewer of both."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type of a TIFF's entries."""


def require_modest(file: BinaryIO) -> None:
    """Raise `ImageError` for such a file; it is left at its beginning."""
    beginning = file.read(4)
    if beginning.startswith(b"\xff\xd8"):
        _jpeg(file)
    elif beginning == b"\x89PNG":
        _png(file)
    elif beginning == b"GIF8":
        _gif(file)
    elif beginning.startswith(b"BM"):
        _bmp(file)
    elif beginning in TIFF:
        _tiff(file, "<" if beginning.startswith(b"II") else ">", big=b"+" in beginning)
    file.seek(0)


def require_modest_exif(exif: bytes) -> None:
    """Raise `ImageError` for such EXIF, which is a TIFF without pixels, before anybody reads its entries."""
    require_modest(io.BytesIO(exif.removeprefix(b"Exif\0\0")))


def _jpeg(file: BinaryIO) -> None:
    at = 2
    for _ in range(MOST):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4:
            return
        if head[0] == 0xFF and head[1] == SCAN:
            _scans(file, at)
            return
        if head[0] != 0xFF:  # Pillow, too, looks for the next marker
            file.seek(at)
            junk = file.read(READ)
            at += len(junk) if (found := junk.find(0xFF)) < 0 else found
        elif head[1] == 0xFF:  # any number of fill bytes may stand before a marker
            file.seek(at)
            fill = file.read(READ)
            at += max(1, len(fill) - len(fill.lstrip(b"\xff")) - 1)
        else:
            at += 2 if head[1] in ALONE else 2 + int.from_bytes(head[2:], "big")
    _refuse_pieces()


def _scans(file: BinaryIO, at: int) -> None:
    """Count scans from the first one on: among their pixels no 0xFF stands before such a byte."""
    file.seek(at)
    marker, found, last = bytes((0xFF, SCAN)), 0, b""
    while found <= MOST_SCANS:
        if not (piece := file.read(READ)):
            return
        found += (last + piece).count(marker)
        last = piece[-1:]
    _refuse_pieces()


def _bmp(file: BinaryIO) -> None:
    file.seek(14)
    header = file.read(20)
    modern = int.from_bytes(header[:4], "little") >= 40  # shorter headers know no compression
    if modern and header[16:] in RUNS and (size := file.seek(0, os.SEEK_END)) > MOST_STEPS:
        raise ImageError("too_large", f"a compressed BMP of {size:,} bytes, at most {MOST_STEPS:,} are read: save it as PNG")


def _png(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) < 12 * MOST:  # too few bytes for more
        return
    at, pixels, others = 8, 0, 0
    while pixels <= MOST_PIECES and others <= MOST:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        if head[4:] in (b"IDAT", b"fdAT", b"fcTL"):  # the last two hold further frames, which nobody reads here
            pixels += 1
        else:
            others += 1
        at += 12 + int.from_bytes(head[:4], "big")
    _refuse_pieces()


def _gif(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) < 2 * MOST_PIECES:
        return
    file.seek(10)
    flags = file.read(1)
    at = 13 + (3 << (1 + (flags[0] & 7)) if flags and flags[0] & 128 else 0)
    inside = False
    for _ in range(MOST_PIECES):
        file.seek(at)
        head = file.read(2)
        if not head or (not inside and head[:1] in (b",", b";")):  # the first picture, or the end
            return
        if inside:
            at += 1 + head[0]
            inside = head[0] > 0
        elif head[:1] == b"!":
            at, inside = at + 2, True
        else:  # Pillow, too, looks for the next block
            at += 1
    _refuse_pieces()


def _refuse_pieces() -> NoReturn:
    raise ImageError("corrupt_image", "the image is damaged: it is in more pieces than its pixels can need")


def _tiff(file: BinaryIO, order: str, *, big: bool) -> None:
    room = file.seek(0, os.SEEK_END)
    file.seek(8 if big else 4)
    try:
        (at,) = struct.unpack(order + ("Q" if big else "I"), file.read(8 if big else 4))
        file.seek(min(at, room))
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        if count > MOST:
            raise ImageError("corrupt_image", f"the image is damaged: {count:,} entries in its header")
        entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
        held, tile = 0, 1
        for _ in range(count):
            tag, kind, values, field = entry.unpack(file.read(entry.size))
            if tag in PIECES and values > MOST_PIECES:
                _refuse_pieces()
            if tag in TILE_SIDES:
                if kind not in SIDE_TYPES or values != 1:  # libraries read other types too, some of which lie elsewhere
                    raise ImageError("corrupt_image", "the image is damaged: its tiles have no proper size")
                tile *= struct.unpack_from(order + SIDE_TYPES[kind], field)[0]
            held += SIZES.get(kind, 0) * values
        if tile > LARGEST_TILE:
            raise ImageError("too_many_pixels", f"the image lies in tiles of {tile:,} pixels, at most {LARGEST_TILE:,} are decoded")
        if held > MOST_BYTES:
            raise ImageError("corrupt_image", f"the image is damaged: its header speaks of {held:,} bytes of metadata")
    except struct.error:  # cut short: Pillow has words for it
        return
