"""TIFF's ways to store grey levels: the same picture gives the same tensor, whichever way; what has no agreed meaning is refused."""

import struct

import numpy as np
import pytest

from catvae.runtime.errors import ImageError
from catvae.runtime.images.image_files import read_image
from catvae.runtime.images.preprocess import Preprocess

RULES = Preprocess(height=6, width=8, channels=1)
PICTURE = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)


def tiff(bits: int, pixels: bytes, *, order: str = "<", photometric: int = 1, sample_format: int = 1) -> bytes:
    """8 x 6 grey pixels in one strip."""
    begin = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entries = {
        256: 8,
        257: 6,
        258: bits,
        259: 1,
        262: photometric,
        273: 8 + 2 + 10 * 12 + 4,
        277: 1,
        278: 6,
        279: len(pixels),
        339: sample_format,
    }
    table = struct.pack(order + "H", len(entries))
    for tag, value in entries.items():
        table += struct.pack(order + "HHI", tag, 4 if tag in (273, 279) else 3, 1)
        table += struct.pack(order + "I", value) if tag in (273, 279) else struct.pack(order + "HH", value, 0)
    return begin + table + struct.pack(order + "I", 0) + pixels


def packed(levels: np.ndarray) -> bytes:
    """Twelve bits each, without gaps."""
    first, second = levels.ravel()[::2].astype(int), levels.ravel()[1::2].astype(int)
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()


WIDE = PICTURE.astype(np.uint16) * 257
TWELVE = np.round(PICTURE / 255 * 4095).astype(np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        tiff(8, PICTURE.tobytes()),
        tiff(8, (255 - PICTURE).tobytes(), photometric=0),
        tiff(16, WIDE.astype("<u2").tobytes()),
        tiff(16, (65535 - WIDE).astype("<u2").tobytes(), photometric=0),
        tiff(16, WIDE.astype(">u2").tobytes(), order=">"),
        tiff(12, packed(TWELVE)),
        tiff(32, WIDE.astype("<u4").tobytes()),
    ],
    ids=["8 bits", "8 bits, white is 0", "16 bits", "16 bits, white is 0", "16 bits, big-endian", "12 bits", "32 bits"],
)
def test_one_picture_is_one_tensor(data):
    assert np.array_equal(read_image(data, RULES)[..., 0], PICTURE)


@pytest.mark.parametrize(
    "data",
    [
        tiff(8, PICTURE.tobytes(), sample_format=2),
        tiff(16, WIDE.astype("<u2").tobytes(), sample_format=2),
        tiff(32, WIDE.astype(">u4").tobytes(), order=">"),
        tiff(32, WIDE.astype("<u4").tobytes(), photometric=0),
    ],
    ids=["8 bits, signed", "16 bits, signed", "32 bits, big-endian", "32 bits, white is 0"],
)
def test_pixels_that_are_not_read_are_named_so(data):
    """Some of them Pillow does not know; a TIFF they are nevertheless."""
    with pytest.raises(ImageError) as caught:
        read_image(data, RULES)
    assert caught.value.code == "unsupported_mode"
