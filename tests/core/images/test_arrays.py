"""Images from numpy files: masks, levels, labels of any kind, and what is refused."""

import numpy as np
import pytest

from catvae.core.images.data import load_data
from catvae.runtime.errors import DataError


def test_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 5, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    assert np.array_equal(load_data(str(tmp_path / "a.npy")).images[..., 0], images)
    names = np.array(["b", "a"] * 4)
    np.savez(tmp_path / "b.npz", images=images / 255, labels=names)
    data = load_data(str(tmp_path / "b.npz"))
    assert np.array_equal(data.images[..., 0], images)
    assert data.label_names == ("a", "b")
    assert data.labels.tolist() == [1, 0] * 4
    np.savez(tmp_path / "c.npz", x_train=images, y_train=np.arange(8) % 2, x_test=images[:3], y_test=np.arange(3) % 2)
    assert load_data(str(tmp_path / "c.npz")).test_labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_masks_are_black_and_white_whatever_their_type(tmp_path, dtype):
    mask = np.random.default_rng(0).integers(0, 2, (8, 5, 4))
    np.save(tmp_path / "a.npy", mask.astype(dtype))
    assert np.array_equal(load_data(str(tmp_path / "a.npy")).images[..., 0], 255 * mask)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((3, 4))}, "shape"),
        ({"images": np.zeros((3, 4, 4, 2))}, "1 or 3 channels"),
        ({"images": np.full((3, 4, 4), 2.0)}, "floats in"),
        ({"images": np.full((3, 4, 4), np.nan)}, "not finite"),
        ({"images": np.full((3, 4, 4), 300)}, r"300\.\.300"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "no images"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(2)}, r"expected \(3,\)"),
        ({"a": np.zeros((3, 4, 4)), "b": np.zeros(3)}, "expected the images under"),
        ({"images": np.array([None, 1], dtype=object)}, "without pickled objects"),
        ({"images": np.array(["a"])}, "shape"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_data(str(tmp_path / "a.npz"))


def test_levels_of_few_bits_in_an_array_are_told_to_be_dark(tmp_path):
    levels = np.random.default_rng(0).integers(0, 17, (20, 8, 8))
    levels[0, 0, 0] = 16
    np.save(tmp_path / "digits.npy", levels)
    assert any("no pixel is brighter than 16 of 255" in note for note in load_data(str(tmp_path / "digits.npy")).notes)


def test_one_colour_image_is_not_taken_for_many_narrow_ones(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"one colour image is \(1, 30, 40, 3\), grey ones three pixels wide are \(30, 40, 3, 1\)"):
        load_data(str(tmp_path / "one.npy"))


def test_classes_of_arrays_may_be_a_column_and_masks_are_told_by_the_training_images(tmp_path):
    images, flat = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4), np.ones((2, 4, 4), np.uint8)
    column = np.array([[0], [1], [0], [1]])
    np.savez(tmp_path / "a.npz", x_train=images, y_train=column, x_test=flat, y_test=column[:2])
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    data = load_data(str(tmp_path / "A.NPZ"))
    assert data.labels is not None
    assert data.test_labels is not None
    assert data.test_images is not None
    assert (data.labels.tolist(), data.test_labels.tolist()) == ([0, 1, 0, 1], [0, 1])
    assert data.test_images.max() == 1  # dark, as others of its kind may be
    for train in (images % 2, images % 2 > 0, (images % 2).astype(np.float32)):
        np.savez(tmp_path / "mask.npz", x_train=train, x_test=flat, y_test=column[:2])
        data = load_data(str(tmp_path / "mask.npz"))
        assert data.test_images is not None
        assert (data.images.max(), data.test_images.max(), data.test_labels) == (255, 255, None)
        assert "y_test is not used" in data.notes[0]


@pytest.mark.parametrize(
    ("train", "test", "names", "expected"),
    [
        ([b"cat", b"dog", b"cat"], [b"dog"], ("cat", "dog"), [1]),
        ([1.0, 2.0, 2.0], np.array([2, 1]), ("1.0", "2.0"), [1, 0]),
        (["1", "10", "9"], np.array([9, 10]), ("1", "10", "9"), [2, 1]),
        (np.array([1, 10, 9]), ["9", "10"], ("1", "9", "10"), [1, 2]),
    ],
)
def test_labels_are_compared_by_what_they_mean(tmp_path, train, test, names, expected):
    images = np.zeros((3, 4, 5), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=train, x_test=images[: len(test)], y_test=test)
    found = load_data(str(tmp_path / "x.npz"))
    assert found.label_names == names
    assert found.test_labels is not None
    assert found.test_labels.tolist() == expected
    np.savez(tmp_path / "x.npz", x_train=images, y_train=train, x_test=images[:1], y_test=["other"])
    with pytest.raises(DataError, match="one of the training labels"):
        load_data(str(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("train", "test"),
    [(np.arange(3), []), (np.array(["2020-01-01"] * 3, "datetime64[D]"), [1, 2]), (np.array([(1, 2)] * 3, "i4,i4"), [1, 2])],
    ids=["none", "dates", "pairs"],
)
def test_labels_that_cannot_be_compared_are_refused(tmp_path, train, test):
    images = np.zeros((3, 4, 5), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=train, x_test=images[:2], y_test=np.array(test))
    with pytest.raises(DataError, match="y_test must hold"):
        load_data(str(tmp_path / "x.npz"))


def test_what_is_not_a_number_is_one_class(tmp_path):
    images = np.zeros((3, 4, 5), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=[1.0, np.nan, np.nan], x_test=images[:2], y_test=[np.nan, 1.0])
    found = load_data(str(tmp_path / "x.npz"))
    assert found.label_names == ("1.0", "nan")
    assert found.test_labels is not None
    assert found.test_labels.tolist() == [1, 0]
