"""Pictures in memory, such as a camera's frames: read as from a file, or refused."""

import io

import numpy as np
import pytest
from PIL import Image

from catvae.runtime.errors import UsageError
from catvae.runtime.images.image_files import image_of_array, read_image
from catvae.runtime.images.preprocess import Preprocess

GREY = Preprocess(height=8, width=8, channels=1)
COLOUR = Preprocess(height=8, width=8, channels=3)


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("rules", [GREY, COLOUR])
@pytest.mark.parametrize("shape", [(31, 47), (31, 47, 1), (31, 47, 3), (8, 8)])
def test_pixels_in_memory_are_read_as_from_a_file(rules, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    file = encoded(Image.fromarray(pixels[..., 0] if shape[2:] == (1,) else pixels))
    assert np.array_equal(image_of_array(pixels, rules), read_image(file, rules))
    assert np.array_equal(image_of_array(pixels[::-1, ::-1], rules), image_of_array(pixels[::-1, ::-1].copy(), rules))


@pytest.mark.parametrize("rules", [GREY, COLOUR])
@pytest.mark.parametrize("shape", [(31, 47), (31, 47, 1)])
def test_sixteen_bits_in_memory_are_read_as_from_a_file(rules, shape):
    """As cameras of microscopes deliver them."""
    pixels = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    assert np.array_equal(image_of_array(pixels, rules), read_image(encoded(Image.fromarray(pixels.reshape(31, 47))), rules))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((0, 4), np.uint8),
        np.zeros((0, 4), np.uint16),
        np.zeros(4, np.uint8),
    ],
)
def test_arrays_that_are_no_picture(wrong):
    with pytest.raises(UsageError, match=r"a picture is uint8 \(H, W\), \(H, W, 1\) or \(H, W, 3\), or uint16 and grey: got"):
        image_of_array(wrong, GREY)


def test_an_array_of_too_many_pixels():
    with pytest.raises(UsageError, match="a picture has at most"):
        image_of_array(np.broadcast_to(np.uint8(0), (2**13, 2**13)), GREY)
