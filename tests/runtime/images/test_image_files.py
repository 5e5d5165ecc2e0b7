"""The decode policy: what each kind of file becomes, and what is refused with which code."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from catvae.runtime.errors import ImageError
from catvae.runtime.images.image_files import decode_image, image_size_of, read_image
from catvae.runtime.images.opening import MAX_BYTES
from catvae.runtime.images.preprocess import Preprocess

GREY = Preprocess(height=8, width=8, channels=1)
COLOUR = Preprocess(height=8, width=8, channels=3)


def encoded(image: Image.Image, format_: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def code_of(data: bytes, rules: Preprocess = GREY) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(data, rules)
    return caught.value.code


def test_pixels_of_the_right_size_pass_unchanged():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(read_image(encoded(Image.fromarray(pixels)), GREY)[..., 0], pixels)


def test_sixteen_bit_ramp_keeps_its_levels():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = read_image(encoded(Image.fromarray(ramp)), GREY)[..., 0]
    assert np.array_equal(found, np.round(ramp / 257).astype(np.uint8))
    wide = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256)
    assert len(np.unique(read_image(encoded(Image.fromarray(wide)), Preprocess(height=1, width=256, channels=1)))) >= 245


@pytest.mark.parametrize(("mode", "hidden"), [("RGBA", (255, 255, 255, 0)), ("LA", (255, 0))])
@pytest.mark.parametrize("background", [0, 200])
def test_what_transparency_hides_stays_hidden(mode, hidden, background):
    rules = Preprocess(height=8, width=8, channels=1, background=background)
    assert (read_image(encoded(Image.new(mode, (8, 8), hidden)), rules) == background).all()


def test_transparent_palette_entry_shows_the_background():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 255, 255])
    assert (read_image(encoded(image, transparency=1), GREY) == 0).all()


@pytest.mark.parametrize(
    ("image", "format_", "expected"),
    [
        (Image.new("1", (8, 8), 1), "PNG", 255),
        (Image.new("P", (8, 8), 0), "PNG", 0),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG", 0),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG", 255),
        (Image.new("L", (8, 8), 77), "BMP", 77),
        (Image.new("L", (8, 8), 77), "TIFF", 77),
        (Image.new("RGB", (8, 8), (77, 77, 77)), "GIF", 77),
    ],
)
def test_modes_and_formats(image, format_, expected):
    found = read_image(encoded(image, format_), GREY).astype(int)
    assert np.abs(found - expected).max() <= 2


def test_a_sound_image_that_does_not_fit_into_memory_is_not_called_damaged(monkeypatch):
    def full(_image):
        raise MemoryError

    data = encoded(Image.new("L", (8, 8)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    assert code_of(data) == "out_of_memory"


def test_a_file_system_may_give_less_than_was_asked_for(tmp_path, monkeypatch):
    real = os.read
    (tmp_path / "a.png").write_bytes(encoded(Image.new("L", (80, 80), 50)))
    monkeypatch.setattr(os, "read", lambda handle, count: real(handle, min(count, 10)))
    assert (read_image(tmp_path / "a.png", GREY) == 50).all()


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_no_more_of_pillow_is_loaded_than_an_image_needs(tmp_path, format_):
    """All of its plugins take a quarter of a cold start."""
    (tmp_path / "image").write_bytes(encoded(Image.new("L", (8, 8)), format_))
    code = (
        "import sys; from catvae.runtime.images.image_files import read_image; from catvae.runtime.images.preprocess import Preprocess;"
        "read_image(sys.argv[1], Preprocess(height=8, width=8, channels=1)); print('PIL.FliImagePlugin' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "image"], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr


def test_float_tiff_is_refused_rather_than_blackened():
    assert code_of(encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")) == "unsupported_mode"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_tensor(orientation):
    upright = np.zeros((4, 8), np.uint8)
    upright[0, 0], upright[0, -1], upright[-1, 0] = 255, 180, 90
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    # Orientation o says how the stored rows and columns map to the upright picture; 6 and 8 turn by a quarter.
    stored = {6: np.rot90(upright, 1), 8: np.rot90(upright, -1)}.get(orientation, turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert image_size_of(data) == (8, 4)
    assert np.array_equal(read_image(data, Preprocess(height=4, width=8, channels=1))[..., 0], upright)


def test_tags_that_cannot_be_written_again_do_not_matter():
    """Cameras write them of wrong types; only how the image lies is needed."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    data = encoded(Image.new("L", (8, 4), 77), "JPEG", exif=exif)
    entry = bytes.fromhex("010f00020000000700000026")  # Make, a text of 7 letters elsewhere
    wrong = bytes.fromhex("010f0005000000010000000a")  # a fraction, of whatever stands there
    assert data.count(entry) == 1
    assert read_image(data.replace(entry, wrong), Preprocess(height=8, width=4, channels=1)).shape == (8, 4, 1)


def test_a_tiff_is_as_large_as_it_is_shown():
    for orientation in range(1, 9):
        stream, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        Image.new("L", (8, 4)).save(stream, "TIFF", exif=exif)
        assert image_size_of(stream.getvalue()) == ((4, 8) if orientation > 4 else (8, 4))


def test_what_is_transparent_shows_the_background_when_turned_over_too():
    """Dark ink on nothing, for a model of white on black: the paper comes out black and the ink white."""
    stream, pixels = io.BytesIO(), np.zeros((6, 6, 4), np.uint8)
    pixels[2:4, 2:4, 3] = 255
    Image.fromarray(pixels, "RGBA").save(stream, "PNG")
    seen = read_image(stream.getvalue(), Preprocess(height=6, width=6, channels=1, invert=True))[..., 0]
    assert (seen == 255).sum() == 4
    assert (seen == 0).sum() == 32


def test_first_frame_of_an_animation():
    frames = [Image.new("L", (8, 8), level) for level in (10, 250)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(data, GREY) == 10).all()


def test_padding_keeps_the_aspect_ratio():
    wide = read_image(encoded(Image.new("L", (16, 8), 255)), GREY)[..., 0]
    assert (wide[2:6] == 255).all()
    assert (wide[:2] == 0).all()
    assert (wide[6:] == 0).all()
    stretched = read_image(encoded(Image.new("L", (16, 8), 255)), Preprocess(height=8, width=8, channels=1, fit="stretch"))
    assert (stretched == 255).all()


def test_invert_and_colour():
    rules = Preprocess(height=8, width=8, channels=3, invert=True)
    assert read_image(encoded(Image.new("RGB", (8, 8), (255, 0, 10))), rules)[0, 0].tolist() == [0, 255, 245]
    assert read_image(encoded(Image.new("L", (3, 3), 9)), COLOUR).shape == (8, 8, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (200, 200)])
def test_any_size_fits(size):
    assert read_image(encoded(Image.new("L", size, 255)), GREY).shape == (8, 8, 1)


def png_of(size: tuple[int, int], bits: int, rows: bytes, *others: tuple[bytes, bytes], colour: bool = False) -> bytes:
    """Grey or RGB, of so many bits a level, from its packed rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, bits, 2 if colour else 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *others, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def huge_png() -> bytes:
    """A few bytes that promise 182 million pixels."""
    return png_of((13500, 13500), 8, b"")


@pytest.mark.parametrize(("bits", "packed"), [(2, [0b01110000]), (4, [0x13, 0x00])])
def test_a_level_of_few_bits_may_stand_for_transparent(bits, packed):
    """Two pixels of levels 1 and 3, of which 1 is seen through."""
    data = png_of((2, 1), bits, bytes([0, *packed]), (b"tRNS", struct.pack(">H", 1)))
    found = read_image(data, Preprocess(height=1, width=2, channels=1, background=200))
    assert found[0, :, 0].tolist() == [200, 3 * 255 // (2**bits - 1)]


@pytest.mark.parametrize("level", [0, 1])
def test_a_level_of_one_bit_may_stand_for_transparent(level):
    data = png_of((2, 1), 1, bytes([0, 0b10000000]), (b"tRNS", struct.pack(">H", level)))
    found = read_image(data, Preprocess(height=1, width=2, channels=1, background=200))
    assert found[0, :, 0].tolist() == ([200, 0] if level else [255, 200])


def test_a_colour_of_sixteen_bits_may_stand_for_transparent():
    """Pillow keeps the high byte of each level, and would compare it with the low one of the colour."""
    rules = Preprocess(height=1, width=2, channels=3, background=200)
    rows = b"\0" + b"\xff\xff" * 3 + b"\x80\x00" * 3
    for hidden, expected in ((0x8000, [255, 200]), (0x40FF, [255, 128])):
        found = read_image(png_of((2, 1), 16, rows, (b"tRNS", struct.pack(">HHH", *[hidden] * 3)), colour=True), rules)
        assert found[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", b"junkjunk"),
        (b"eXIf", b"\0" * 30),
        (b"eXIf", b"MM"),
        (b"tEXt", b"exif\0what"),
        (b"iTXt", b"exif\0\0\0\0\0what"),
        (b"zTXt", b"exif\0\0" + zlib.compress(b"what")),
        (b"tEXt", b"xmp\0what"),
        (b"tEXt", b"transparency\0what"),
        (b"tEXt", b"Raw profile type exif\0\n\n\nzz"),
    ],
    ids=lambda chunk: f"{chunk[0].decode()} {chunk[1][:6]!r}",
)
@pytest.mark.parametrize("behind", [False, True])
def test_metadata_that_nobody_can_read_takes_nothing_from_the_pixels(chunk, behind):
    data = png_of((2, 1), 8, bytes([0, 7, 9]), chunk)
    if behind:
        piece = data[33 : data.index(b"IDAT") - 4]
        data = data[:33] + data[33 + len(piece) : -12] + piece + data[-12:]
    rules = Preprocess(height=1, width=2, channels=1)
    assert read_image(data, rules)[0, :, 0].tolist() == [7, 9]
    assert image_size_of(data) == (2, 1)


def test_a_webp_with_damaged_exif_is_read():
    data = encoded(Image.new("RGB", (8, 8), (9, 9, 9)), "WEBP", lossless=True, exif=b"junkjunk")
    assert read_image(data, GREY)[0, 0, 0] == 9


def test_a_jpeg_with_more_pictures_behind_it_is_read_as_one():
    """As some cameras write it (MPO): shrunk while it is decoded, which twelve million pixels want."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 300), np.uint8)).resize((1200, 1600))
    alone, followed = io.BytesIO(), io.BytesIO()
    picture.save(alone, "JPEG")
    picture.save(followed, "MPO", save_all=True, append_images=[picture.rotate(90)])
    assert Image.open(followed).format == "MPO"
    assert np.array_equal(read_image(followed.getvalue(), GREY), read_image(alone.getvalue(), GREY))


def test_whole_numbers_of_32_bits_that_are_all_small_have_no_agreed_white():
    levels = np.arange(64, dtype=np.int32).reshape(8, 8)
    assert code_of(encoded(Image.fromarray(levels), "TIFF")) == "unsupported_mode"
    assert read_image(encoded(Image.fromarray(levels * 1000), "TIFF"), GREY)[7, 7, 0] == 63_000 // 257
    assert not read_image(encoded(Image.fromarray(levels * 0), "TIFF"), GREY).any()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_an_image"),
        (b"just text\n", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        (b"%PDF-1.4\n", "not_an_image"),
        (b"\x89PNG\r\n\x1a\n", "not_an_image"),
        (huge_png(), "too_many_pixels"),
        (b"\0" * (MAX_BYTES + 1), "too_large"),
    ],
)
def test_refused_bytes(data, code):
    assert code_of(data) == code


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    for read in (lambda path: read_image(path, GREY), image_size_of):
        with pytest.raises(ImageError, match="the file is empty"):
            read(tmp_path / "empty.png")


@pytest.mark.parametrize(
    "magic", [b"8BPS\0\1" + bytes(20), b"SIMPLE  =                    T", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_formats_that_are_not_on_the_list(magic):
    assert code_of(magic) == "not_an_image"


def test_no_interpreter_is_started_for_postscript(tmp_path, monkeypatch):
    for name in ("gs", "gswin64c"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert code_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n") == "not_an_image"
    assert not (tmp_path / "started").exists()


def test_the_format_is_told_by_content_not_by_name(tmp_path):
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(Image.new("L", (8, 8), 77)))
    assert (read_image(path, GREY) == 77).all()


def test_the_cap_is_on_pixels_as_announced():
    assert code_of(encoded(Image.new("1", (8193, 4096)))) == "too_many_pixels"
    assert read_image(encoded(Image.new("1", (8192, 4096), 1)), GREY).max() == 255


def test_a_large_text_chunk_is_no_way_in():
    """64 MB of text in a PNG of 65 kB: refused or passed over, never kept."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 64_000_000, zip=True)
    data = encoded(Image.new("L", (8, 8), 5), pnginfo=text)
    assert len(data) < 100_000
    assert code_of(data) == "corrupt_image"


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read_and_all_are_counted(format_):
    frames = [Image.new("L", (8, 8), level) for level in (10, 120, 250)]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:], **({"lossless": True} if format_ == "WEBP" else {}))
    found = decode_image(data, GREY)
    assert found.frames == 3
    assert abs(max(found.pixels) - 10) <= 1  # WebP keeps colour as luma and chroma


def test_counting_many_frames_is_bounded():
    noise = np.random.default_rng(0).integers(0, 256, (1000, 6, 6), dtype=np.uint8)
    frames = [Image.fromarray(pixels) for pixels in noise]
    assert decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), GREY).frames == 1000


def test_damaged_files_are_corrupt_not_crashes():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    assert code_of(encoded(noise)[: len(encoded(noise)) * 6 // 10]) == "truncated_image"
    assert code_of(encoded(noise, "JPEG")[:-2][:400]) == "truncated_image"


def test_things_that_are_no_files(tmp_path):
    import os

    for path, code in ((tmp_path / "none.png", "missing"), (tmp_path, "not_a_file")):
        with pytest.raises(ImageError) as caught:
            read_image(path, GREY)
        assert caught.value.code == code
    fifo = tmp_path / "pipe.png"
    os.mkfifo(fifo)
    with pytest.raises(ImageError) as caught:
        read_image(fifo, GREY)  # must not wait for a writer
    assert caught.value.code == "not_a_file"


@settings(max_examples=150)
@given(st.data())
def test_mutated_files_give_an_image_or_an_image_error(data):
    original = bytearray(
        encoded(
            Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)),
            data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP"])),
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read_image(bytes(original[: data.draw(st.integers(1, len(original)))]), GREY).shape == (8, 8, 1)
    except ImageError as error:
        assert error.code in {"not_an_image", "corrupt_image", "truncated_image", "too_many_pixels", "unsupported_mode"}


@pytest.mark.parametrize("background", [0, 255])
def test_a_transparent_level_of_sixteen_bits_shows_the_background(tmp_path, background):
    levels = np.full((8, 8), 65535, np.uint16)
    levels[:4] = 257 * 40
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=65535)
    pixels = read_image(tmp_path / "a.png", Preprocess(height=8, width=8, channels=1, background=background))
    assert (pixels[:4] == 40).all()
    assert (pixels[4:] == background).all()
