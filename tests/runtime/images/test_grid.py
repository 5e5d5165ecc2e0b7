"""Pictures as PNG: their layout, and letters that not every font has."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from catvae.runtime.images import grid as grids
from catvae.runtime.images.grid import grid, picture, png_bytes
from catvae.runtime.names import distinct


def test_every_image_is_where_its_row_and_column_say():
    rows = [np.full((3, 8, 8, 1), level, np.uint8) for level in (10, 200)]
    sheet = np.asarray(grid(rows, cell=16, gap=4))
    assert sheet.shape == (2 * 20 - 4 + 24, 3 * 20 - 4 + 24, 3)
    for r, level in enumerate((10, 200)):
        for c in range(3):
            top, left = 12 + 20 * r, 12 + 20 * c
            assert (sheet[top : top + 16, left : left + 16] == level).all()
    assert (sheet[28:32, 12:-12] == grids.PAPER).all()


def test_floats_and_bytes_are_the_same_picture():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert png_bytes(picture(pixels)) == png_bytes(picture(pixels / 255))


def test_letters_that_pillows_font_lacks_come_from_the_system(monkeypatch):
    own = ImageFont.load_default(14)
    assert grids._font("abc", 14).getname() == own.getname()
    found = grids._font("кошка", 14)
    if found.getname() == own.getname():
        pytest.skip("no font here has Cyrillic letters")
    assert grids._knows(found, "кошка")
    assert not grids._knows(own, "кошка")
    monkeypatch.setattr(grids, "FONTS", ("no such font.ttf",))
    assert grids._font("кошка", 14).getname() == own.getname()


def test_a_name_of_letters_is_no_row_of_boxes(tmp_path):
    if grids._font("猫", 14).getname() == ImageFont.load_default(14).getname():
        pytest.skip("no font here has Chinese letters")
    rows = [np.zeros((1, 8, 8, 1), np.uint8)] * 2
    sheet = np.asarray(grid(rows, ["猫", "犬"]).convert("L"))
    half = len(sheet) // 2
    assert not np.array_equal(sheet[:half, :60], sheet[half : 2 * half, :60])


def test_clusters_of_one_name_are_told_apart():
    assert distinct(["cat", "dog", "cat"]) == ["cat (0)", "dog", "cat (2)"]
    assert distinct([]) == []


def test_a_picture_is_readable_as_png():
    import io

    with Image.open(io.BytesIO(png_bytes(picture(np.zeros((5, 7, 1)))))) as image:
        assert image.size == (7, 5)
