"""Frames are counted without reading a file to its end, and as Pillow counts them."""

import io

import numpy as np
import pytest
from PIL import Image

from catvae.runtime.errors import ImageError
from catvae.runtime.images.frames import MOST, count_frames
from catvae.runtime.images.image_files import decode_image
from catvae.runtime.images.preprocess import Preprocess

RULES = Preprocess(height=8, width=8, channels=1)


def animation(format_: str, frames: int) -> bytes:
    stream = io.BytesIO()
    images = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 5), dtype=np.uint8)) for i in range(frames)]
    images[0].save(stream, format_, save_all=True, append_images=images[1:])
    return stream.getvalue()


@pytest.mark.parametrize("format_", ["GIF", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_counts_are_pillows(format_, frames):
    data = animation(format_, frames)
    with Image.open(io.BytesIO(data)) as image:
        assert decode_image(data, RULES).frames == getattr(image, "n_frames", 1) == frames


def test_the_first_frame_is_read():
    for format_ in ("GIF", "TIFF"):
        assert decode_image(animation(format_, 4), RULES).pixels == decode_image(animation(format_, 1), RULES).pixels


def test_a_cut_animation_is_no_trap():
    data = animation("GIF", 5)
    counts = []
    for end in range(len(animation("GIF", 1)), len(data), 7):
        try:
            counts.append(decode_image(data[:end], RULES).frames)
        except ImageError:
            continue
    assert counts == sorted(counts)
    assert set(counts) <= set(range(1, 6))


def test_a_file_of_a_million_frames_is_read_at_once():
    one = animation("GIF", 1)
    frame = bytes([0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x4C, 1, 0])
    data = one[:-1] + frame * 1_000_000 + b";"
    assert decode_image(data, RULES).frames == MOST
    watched = Watched(data)
    with Image.open(io.BytesIO(data)) as image:
        assert count_frames(image, watched) == MOST
    assert watched.furthest < len(one) + (MOST + 1) * len(frame)  # what lies behind them is not looked at


class Watched(bytes):
    """Bytes that remember how far they were read."""

    furthest = 0

    def __getitem__(self, at):
        self.furthest = max(self.furthest, at)
        return super().__getitem__(at)
