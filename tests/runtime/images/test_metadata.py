"""Files whose metadata would cost more than their pixels are refused before Pillow reads them; ordinary ones are left to it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from catvae.runtime.errors import ImageError
from catvae.runtime.images.image_files import decode_image, image_size_of, read_image
from catvae.runtime.images.metadata import MOST, MOST_PIECES, MOST_SCANS, MOST_STEPS, READ, require_modest
from catvae.runtime.images.preprocess import Preprocess

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


def png_with(chunks: int, kind: bytes = b"prIv") -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, "PNG")
    data = file.getvalue()
    return data[:33] + (struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))) * chunks + data[33:]


def gif_with(pieces: int, junk: bytes = b"") -> bytes:
    """A comment of so many bytes, each in a block of its own."""
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, "GIF")
    data = file.getvalue()
    at = data.index(b",", 13 + 3 * 2 ** (1 + (data[10] & 7)))
    return data[:at] + junk + b"!\xfe" + b"\x01c" * pieces + b"\0" + data[at:]


def strips(count: int) -> bytes:
    return tiff_with(1, count).replace(struct.pack("<HH", 40_000, 7), struct.pack("<HH", 273, 3), 1)


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with(MOST + 1),
        jpeg_with(500_000),
        jpeg_with(MOST + 1)[:2] + b"\0\0" + jpeg_with(MOST + 1)[2:],
        jpeg_with(MOST + 1)[:2] + b"\xff\x00\xff\xf0" + jpeg_with(MOST + 1)[2:],
        png_with(MOST + 1),
        png_with(MOST_PIECES + 1, b"IDAT"),
        gif_with(MOST_PIECES),
        gif_with(MOST_PIECES, b"\x07"),
        strips(MOST_PIECES + 1),
        tiff_with(MOST + 1, 1),
        tiff_with(50, 2**21),
        tiff_with(50, 2**21, ">"),
        tiff_with(50, 2**21, big=True),
        tiff_with(50, 2**40, ">", big=True),
    ],
    ids=[
        *("jpeg", "a long jpeg", "junk", "markers alone", "png", "a png's pixels", "gif", "gif after junk", "strips"),
        *("entries", "bytes", "big-endian", "BigTIFF", "big-endian BigTIFF"),
    ],
)
def test_metadata_out_of_proportion_is_refused(data):
    with pytest.raises(ImageError) as caught:
        read_image(data, GREY)
    assert caught.value.code == "corrupt_image"


@pytest.mark.parametrize("data", [png_with(0), png_with(300), png_with(MOST - 5), gif_with(0), gif_with(300), gif_with(20_000)])
def test_other_files_with_ordinary_metadata_are_read(data):
    assert abs(int(read_image(data, GREY).mean()) - 77) <= 1


@pytest.mark.parametrize("segments", [0, 1, 300])
def test_a_jpeg_with_ordinary_metadata_is_read(segments):
    assert abs(int(read_image(jpeg_with(segments), GREY).mean()) - 77) <= 1


def test_fill_bytes_and_lone_markers_are_passed_over():
    data = jpeg_with(3)
    for fill in (3, MOST + 1, 10**6):
        require_modest(io.BytesIO(data[:2] + b"\xff" * fill + data[3:]))
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


def exif_of(entries: int, values: int) -> bytes:
    return b"Exif\0\0" + tiff_with(entries, values)


def with_exif(kind: str, exif: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=exif)
    return file.getvalue()


def png_with_profile(exif: bytes) -> bytes:
    """As ImageMagick writes it."""
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(exif)}\n{exif.hex()}")
    Image.new("L", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


@pytest.mark.parametrize(
    "make",
    [lambda exif: with_exif("PNG", exif), lambda exif: with_exif("WEBP", exif), lambda exif: with_exif("JPEG", exif), png_with_profile],
)
@pytest.mark.filterwarnings("ignore:Tag data larger than file")
def test_exif_out_of_proportion_is_refused_wherever_it_stands(make):
    for look in (lambda data: read_image(data, GREY), image_size_of):
        look(make(exif_of(9, 1)))
        with pytest.raises(ImageError, match="bytes of metadata"):
            look(make(exif_of(50, 2**21)))


def test_of_a_tiff_no_page_but_the_first_is_looked_into():
    """Entries of a second one that all point at the same bytes were read, once for each, to count the pages."""
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, "TIFF")
    data = bytearray(file.getvalue())
    (page,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, page)
    struct.pack_into("<I", data, page + 2 + 12 * entries, len(data))
    data += struct.pack("<H", 60_000) + struct.pack("<HHII", 40_000, 7, 2**21, 8) * 60_000 + bytes(4)
    assert decode_image(bytes(data), GREY).frames == 2
    assert decode_image(bytes(data[:-400_000]), GREY).frames == 1  # cut within its entries
    struct.pack_into("<I", data, page + 2 + 12 * entries, page)
    assert decode_image(bytes(data), GREY).frames == 1  # the next page is the first one


def test_an_animated_png_of_many_frames_is_read():
    frames = [Image.new("L", (8, 8), i % 256) for i in range(MOST + 200)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert read_image(file.getvalue(), GREY)[0, 0, 0] == 0


def progressive(scans: int) -> bytes:
    """A JPEG whose last scan comes so many times more."""
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (1 + scans) + data[-2:]


def test_every_scan_of_a_jpeg_costs_as_much_as_the_image():
    assert np.frombuffer(decode_image(progressive(20), GREY).pixels, np.uint8).mean() == pytest.approx(77, abs=1)
    with pytest.raises(ImageError, match="more pieces than its pixels can need"):
        require_modest(io.BytesIO(progressive(MOST_SCANS)))
    pieces = bytearray(READ * (MOST_SCANS + 1) + 1)
    for at in range(0, len(pieces), READ):  # all markers but the first on the border of two readings
        pieces[max(0, at - 1) : max(0, at - 1) + 2] = b"\xff\xda"
    with pytest.raises(ImageError, match="more pieces"):
        require_modest(io.BytesIO(b"\xff\xd8" + bytes(pieces)))


def bmp(compression: int, header: int = 40, behind: int = 0) -> bytes:
    return b"BM" + bytes(8) + struct.pack("<IIIIHHI", 54, header, 8, 8, 1, 8, compression) + bytes(20 + behind)


def test_a_compressed_bmp_is_taken_step_by_step():
    for compression in (1, 2):
        with pytest.raises(ImageError, match="compressed BMP") as caught:
            require_modest(io.BytesIO(bmp(compression, behind=MOST_STEPS)))
        assert caught.value.code == "too_large"
        require_modest(io.BytesIO(bmp(compression)))
    require_modest(io.BytesIO(bmp(0, behind=MOST_STEPS)))
    require_modest(io.BytesIO(bmp(1, header=12, behind=MOST_STEPS)))


@pytest.mark.parametrize(("order", "kind"), [("<", 3), (">", 3), ("<", 4), (">", 4)])
def test_a_tile_is_no_larger_than_an_image(order, kind):
    def tiled(side: int, called: int = kind, count: int = 1) -> bytes:
        value = struct.pack(order + {3: "H", 4: "I"}[kind], side).ljust(4, b"\0")
        entries = [struct.pack(order + "HHI", tag, called, count) + value for tag in (322, 323)]
        return {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, 2) + b"".join(entries)

    require_modest(io.BytesIO(tiled(256)))
    with pytest.raises(ImageError, match="tiles of 1,072,693,504 pixels") as caught:
        require_modest(io.BytesIO(tiled(32752)))
    assert caught.value.code == "too_many_pixels"
    for odd in (tiled(256, called=16), tiled(256, called=9), tiled(256, count=2)):
        with pytest.raises(ImageError, match="no proper size"):
            require_modest(io.BytesIO(odd))


@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1)])
def test_no_side_is_longer_than_a_jpeg_s(size):
    file = io.BytesIO()
    Image.new("L", size, 77).save(file, "PNG")
    with pytest.raises(ImageError, match="65,535 pixels a side") as caught:
        decode_image(file.getvalue(), GREY)
    assert caught.value.code == "too_many_pixels"
