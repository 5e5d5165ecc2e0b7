"""Files whose metadata would cost more than their pixels are refused before Pillow reads them; ordinary ones are left to it."""

import io
import struct

import pytest
from PIL import Image

from catvae.runtime.errors import ImageError
from catvae.runtime.images import read_image
from catvae.runtime.metadata import MOST, require_modest
from catvae.runtime.preprocess import Preprocess

GREY = Preprocess(height=8, width=8, channels=1)


def jpeg_with(segments: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, "JPEG")
    data = file.getvalue()
    return data[:2] + b"\xff\xe5\x00\x02" * segments + data[2:]


def tiff_with(entries: int, values: int, order: str = "<", *, big: bool = False) -> bytes:
    """One whose first directory has so many entries, each of so many bytes at one place."""
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8)))
    count = struct.pack(order + ("Q" if big else "H"), entries)
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    return head + count + b"".join(entry.pack(40_000 + i, 7, values, 8) for i in range(entries)) + bytes(2000)


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with(MOST + 1),
        jpeg_with(500_000),
        tiff_with(MOST + 1, 1),
        tiff_with(50, 2**21),
        tiff_with(50, 2**21, ">"),
        tiff_with(50, 2**21, big=True),
        tiff_with(50, 2**40, ">", big=True),
    ],
    ids=["jpeg", "a long jpeg", "entries", "bytes", "big-endian", "BigTIFF", "big-endian BigTIFF"],
)
def test_metadata_out_of_proportion_is_refused(data):
    with pytest.raises(ImageError) as caught:
        read_image(data, GREY)
    assert caught.value.code == "corrupt_image"


@pytest.mark.parametrize("segments", [0, 1, 300])
def test_a_jpeg_with_ordinary_metadata_is_read(segments):
    assert abs(int(read_image(jpeg_with(segments), GREY).mean()) - 77) <= 1


def test_fill_bytes_and_lone_markers_are_passed_over():
    data = jpeg_with(3)
    require_modest(io.BytesIO(data[:2] + b"\xff\xff\xff" + data[3:]))
    require_modest(io.BytesIO(data[:2] + b"\xff\x01\xff\xd0" + data[2:]))


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "GIF", "BMP", "WEBP"])
def test_other_files_are_left_at_their_beginning(kind):
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, kind)
    file.seek(0)
    require_modest(file)
    assert file.tell() == 0


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0+\0\x08", tiff_with(9, 1)[:40]]
)
def test_what_is_cut_short_is_left_to_pillow(data):
    require_modest(io.BytesIO(data))
