"""Symmetry of a pile: what the readings are, and which views they choose."""

import numpy as np
import pytest

from catvae.core.images import symmetry
from catvae.core.images.symmetry import UPRIGHT, flip_correlation, upright_accuracy
from catvae.core.images.views import choose_policy
from catvae.runtime.sampling import scattered


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def bars(rng, count: int, channels: int = 1) -> np.ndarray:
    """A bar with a knob at one end, at any angle, anywhere in the frame; lit from the same dark to the same bright."""
    rows, columns = np.mgrid[:24, :24]
    images = np.zeros((count, 24, 24, channels), np.uint8)
    for image, angle, (y, x) in zip(images, rng.uniform(0, 2 * np.pi, count), rng.uniform(9.5, 13.5, (count, 2)), strict=True):
        along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        image[((abs(along) < 8) & (abs(across) < 2)) | (np.hypot(along - 6, across) < 4)] = rng.integers(120, 256)
    return images


def test_a_mirror_image_of_itself(rng):
    half = rng.integers(0, 256, (30, 8, 4, 1), dtype=np.uint8)
    assert flip_correlation(np.concatenate([half, half[:, :, ::-1]], axis=2), axis=2) == pytest.approx(1)
    assert flip_correlation(np.full((3, 8, 8, 1), 7, np.uint8), axis=2) == 0


@pytest.mark.parametrize("count", [1, 3, 7, 50])
def test_the_correlation_is_of_some_images_a_few_at_a_time(monkeypatch, count, rng):
    """Large frames are floated in pieces; never more images than asked for are looked at."""
    x = rng.integers(0, 256, (count, 9, 9, 1), dtype=np.uint8)
    whole = flip_correlation(x, axis=2)
    assert np.isclose(whole, np.mean([np.corrcoef(i.ravel(), i[:, ::-1].ravel())[0, 1] for i in x]), atol=1e-6)
    monkeypatch.setattr(symmetry, "AT_A_TIME", 2 * 81)
    assert np.isclose(flip_correlation(x, axis=2), whole, atol=1e-6)
    looked_at, spoilt = scattered(count, -(-count // 2)), x // 2
    spoilt[looked_at] = x[looked_at]
    assert flip_correlation(spoilt, 2, at_most=len(looked_at)) == flip_correlation(x, 2, at_most=len(looked_at))


def test_writing_and_digits_have_an_up(digits):
    assert upright_accuracy(digits.images) > 0.9
    assert upright_accuracy(digits.images[:60]) > UPRIGHT
    assert choose_policy("auto", digits.images).name == "digits"


@pytest.mark.parametrize("kinds", [2, 3, 6])
def test_kinds_in_turn_have_an_up_too(rng, kinds):
    """Every n-th image would be of one kind, whose up the others do not show."""
    ups = rng.integers(0, 256, (kinds, 12, 12, 1))
    images = np.clip(ups[np.arange(2400) % kinds] + rng.normal(0, 20, (2400, 12, 12, 1)), 0, 255).astype(np.uint8)
    assert upright_accuracy(images) > 0.95
    assert upright_accuracy(images[:60]) > UPRIGHT


def test_what_lies_at_any_angle_has_none_whatever_its_shape_and_frame(rng):
    """Neither alike in the mirror nor symmetric in any way; a frame of another shape stretches all of them alike."""
    images = bars(rng, 300)
    assert flip_correlation(images, axis=2) < 0.62
    assert upright_accuracy(images) < UPRIGHT
    assert upright_accuracy(np.repeat(images, 2, axis=2)) < UPRIGHT
    for some in (images, images[:60], bars(rng, 300, channels=3)):
        assert choose_policy("auto", some).name == "any-angle"


def test_a_lamp_at_one_side_is_no_up_but_a_sky_is(rng):
    """The one is the same in every picture, the other begins higher or lower."""
    rows = np.arange(24)[None, :, None, None]
    lamp = bars(rng, 300, channels=3) // 2 + (4 * rows).astype(np.uint8).swapaxes(1, 2)
    assert upright_accuracy(lamp) < UPRIGHT
    assert choose_policy("auto", lamp).name == "any-angle"
    sky = np.where(rows < rng.integers(4, 20, (300, 1, 1, 1)), rng.integers(60, 120, (300, 1, 1, 1)), 0).astype(np.uint8)
    outside = bars(rng, 300, channels=3) // 2 + sky
    assert choose_policy("auto", outside).name == "objects"


def test_things_that_stand_and_are_alike_in_the_mirror_are_objects(rng):
    half = rng.integers(0, 128, (300, 12, 6, 1), dtype=np.uint8)
    half[:, 6:] //= 4
    assert choose_policy("auto", np.concatenate([half, half[:, :, ::-1]], axis=2)).name == "objects"


def test_the_answer_does_not_depend_on_how_many_are_floated_at_a_time(monkeypatch, digits):
    whole = upright_accuracy(digits.images, at_most=300)
    monkeypatch.setattr(symmetry, "AT_A_TIME", 7 * 64)
    assert upright_accuracy(digits.images, at_most=300) == whole


def test_too_few_or_too_even_images_to_tell():
    assert upright_accuracy(np.zeros((49, 8, 8, 1), np.uint8)) == 1
    assert upright_accuracy(np.zeros((300, 5, 9, 3), np.uint8)) == 0.5
