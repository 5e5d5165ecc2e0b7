"""Every kind of source, and every way a source can be damaged: one clear line, exit code 3, before training starts."""

import dataclasses
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catvae.core.images.data import is_named, load_data
from catvae.core.images.idx import read_idx
from catvae.runtime.errors import DataError
from catvae.runtime.images.image_files import read_image


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 7, 6), dtype=np.uint8), np.arange(20) % 4
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images[:5]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:5]))
    return tmp_path, images, labels


def save(path, size=(6, 6), colour=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if colour else "L", size, colour or 120).save(path)


def test_digits(digits):
    assert digits.images.shape == (1797, 8, 8, 1)
    assert digits.images.max() == 255
    assert len(set(digits.labels)) == 10


def test_idx_folder_gzipped_or_not(idx_folder):
    folder, images, labels = idx_folder
    data = load_data(str(folder))
    assert np.array_equal(data.images[..., 0], images)
    assert np.array_equal(data.labels, labels)
    assert data.test_images.shape == (5, 7, 6, 1)
    assert data.label_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("images_packed", [False, True])
def test_one_of_images_and_labels_may_be_packed(idx_folder, images_packed):
    folder, images, labels = idx_folder
    for kind, data, packed in (("images-idx3", images, images_packed), ("labels-idx1", labels, not images_packed)):
        (folder / f"train-{kind}-ubyte.gz").unlink()
        name = f"train-{kind}-ubyte"
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(idx(data)) if packed else idx(data))
    assert np.array_equal(load_data(str(folder)).labels, labels)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-3], r"damaged: 837 bytes of data, expected 840"),
        (lambda b: b + b"x", "damaged: more bytes"),
        (lambda b: b[:10], "cut short inside its header"),
        (lambda b: b"", "begins with nothing"),
        (lambda b: b"PK" + b[2:], "not an IDX file"),
        (lambda b: b[:2] + b"\x0d" + b[3:], "type 0x0d, expected unsigned bytes"),
        (lambda b: b[:4] + b"\xff" * 12, "promises"),
        (lambda b: gzip.compress(b)[:-20], "cannot read"),
        (lambda b: b"\x1f\x8b" + b[2:], "cannot read"),
    ],
)
def test_damaged_idx_files(tmp_path, damage, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(idx(np.zeros((20, 7, 6)))))
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_labels_that_do_not_fit_their_images(idx_folder):
    folder, _, labels = idx_folder
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels[:7])))
    with pytest.raises(DataError, match=r"holds \(7,\) labels, expected 20"):
        load_data(str(folder))


def test_a_pattern_is_no_data():
    with pytest.raises(DataError, match="patterns are not expanded: give the folder"):
        load_data("images/*.png")


def test_folder_with_labels_from_sub_folders(tmp_path):
    for i in range(3):
        save(tmp_path / "cats" / f"{i}.png")
        save(tmp_path / "dogs" / "deep" / f"{i}.jpg")
    (tmp_path / "dogs" / "notes.txt").write_text("not an image, not listed")
    data = load_data(str(tmp_path))
    assert data.images.shape == (6, 6, 6, 1)
    assert data.label_names == ("cats", "dogs")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [Path(file).parts[0] for file in data.files] == [data.label_names[label] for label in data.labels]
    assert data.notes == ("all images are the same once read: there is nothing to sort",)
    without = load_data(str(tmp_path), labels=False)
    assert (without.labels, without.label_names) == (None, ())
    assert np.array_equal(without.images, data.images)


def test_unreadable_files_are_left_out_and_named(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("text")
    noise = np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    warned: list[str] = []
    data = load_data(str(tmp_path), warn=warned.append)
    assert len(data.images) == 1
    assert data.files == ("good.png",)
    assert "2 of 3 image files could not be read" in data.notes[0]
    assert any("bad.png" in line for line in warned)
    assert any("cut.png" in line for line in warned)


def test_nothing_to_read(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("file.txt", "classes.csv", "one.png", "many.zip", "train-images-idx3-ubyte.gz", "file.bin", "bad.npz"):
        (tmp_path / name).write_text("x")
    for source, message in {
        str(tmp_path / "empty"): "holds no images",
        str(tmp_path / "file.txt"): "not a data set",
        str(tmp_path / "classes.csv"): "not a data set.*--labels",
        str(tmp_path / "one.png"): "not a data set.*give the folder that the images are in",
        str(tmp_path / "many.zip"): "not a data set.*unpack it",
        str(tmp_path / "train-images-idx3-ubyte.gz"): "not a data set.*give the folder of the IDX files",
        str(tmp_path / "file.bin"): "expected a folder, an .npz or an .npy file$",
        str(tmp_path / "bad.npz"): "cannot read",
        "digit": "did you mean 'digits'",
        "/no/such/place": "no such file or folder",
    }.items():
        with pytest.raises(DataError, match=message):
            load_data(source)


def test_openml_without_a_network_says_what_to_do(monkeypatch):
    import sklearn.datasets

    def unreachable(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", unreachable)
    with pytest.raises(DataError, match="give a folder with its IDX files instead"):
        load_data("mnist")


def test_openml_rows_become_images(monkeypatch):
    import types

    import sklearn.datasets

    answer = types.SimpleNamespace(data=np.zeros((60003, 784)), target=np.array(["3"] * 60003))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *_a, **_k: answer)
    data = load_data("fashion-mnist")
    assert data.images.shape == (60000, 28, 28, 1)
    assert data.test_images.shape == (3, 28, 28, 1)
    assert data.label_names[3] == "dress"


def test_hidden_folders_and_runs_of_ours_are_no_data(tmp_path):
    for name in ("a/1.png", "b/2.png", ".thumbnails/3.png", "runs/mine/samples/4.png", "runs/made/preview.png"):
        save(tmp_path / name)
    for name in ("mine/run.json", "mine/config.json", "made/manifest.json", "made/classifier.onnx"):
        (tmp_path / "runs" / name).write_text("{}")
    warnings = []
    data = load_data(str(tmp_path), warn=warnings.append)
    assert (len(data.images), data.label_names) == (2, ("a", "b"))
    assert warnings == [f"left out {tmp_path}/runs/made: it is a bundle", f"left out {tmp_path}/runs/mine: it is a run folder"]


def test_an_empty_path_is_not_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "1.png")
    assert len(load_data(".").images) == 1
    with pytest.raises(DataError, match="is empty"):
        load_data("")


def test_the_working_folder_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "pile").mkdir()
    monkeypatch.chdir(tmp_path / "pile")
    (tmp_path / "pile" / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 4, 4))))
    assert load_data(".").name == "pile"


def test_names_of_folders_that_are_no_text_are_bounded(tmp_path):
    for name in ("a", "ä".encode("latin-1").decode(errors="surrogateescape") * 70):
        try:
            (tmp_path / name).mkdir()
        except OSError:
            pytest.skip("this file system has no such names")
        save(tmp_path / name / "1.png")
    assert max(map(len, load_data(str(tmp_path)).label_names)) <= 100


def test_new_images_of_another_shape_lie_on_the_background_of_the_arrays(tmp_path):
    paper = np.full((5, 8, 8), 250, np.uint8)
    paper[:, 3:5, 3:5] = 20
    np.save(tmp_path / "paper.npy", paper)
    data = load_data(str(tmp_path / "paper.npy"))
    assert data.preprocess.background == 250
    Image.fromarray(np.full((8, 16), 250, np.uint8)).save(tmp_path / "wide.png")
    assert (read_image(tmp_path / "wide.png", data.preprocess) == 250).all()


def test_links_to_folders_are_not_followed_and_said_to_be(tmp_path):
    save(tmp_path / "here" / "a" / "1.png")
    save(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "here" / "b").symlink_to(tmp_path / "elsewhere")
    warnings = []
    assert len(load_data(str(tmp_path / "here"), warn=warnings.append).images) == 1
    assert warnings == [f"left out {tmp_path}/here/b: a link to a folder"]


def test_pictures_whose_names_speak_of_idx_are_pictures(tmp_path):
    for i in range(2):
        save(tmp_path / f"images_idx_{i:04d}.png")
    assert load_data(str(tmp_path)).images.shape == (2, 6, 6, 1)


def test_a_class_whose_name_is_no_text_can_be_written_down(tmp_path):
    for name in (b"\xff\xfe", b"plain"):
        save(tmp_path / os.fsdecode(name) / "1.png")
    assert load_data(str(tmp_path)).label_names == ("\\xff\\xfe", "plain")
    (tmp_path / "two\nlines").mkdir()
    save(tmp_path / "two\nlines" / "1.png")
    assert load_data(str(tmp_path)).label_names == ("\\xff\\xfe", "plain", "two\\nlines")
    images = np.zeros((4, 4, 4), np.uint8)
    labels = ["", "a\tb", "x" * 500, "x" * 501]
    np.savez(tmp_path / "a.npz", images=images, labels=labels, x_test=images, y_test=labels)
    data = load_data(str(tmp_path / "a.npz"))
    assert data.label_names == ("(none)", "a\\tb", "x" * 100 + " (2)", "x" * 100 + " (3)")
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [0, 1, 2, 3]


def test_the_part_of_an_idx_file_is_told_by_any_word_of_its_name(tmp_path):
    for part, count in (("train", 5), ("test", 3)):
        (tmp_path / f"emnist-letters-{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((count, 4, 4), np.uint8)))
    data = load_data(str(tmp_path))
    assert len(data.images) == 5
    assert data.test_images is not None
    assert len(data.test_images) == 3
    (tmp_path / "emnist-digits-train-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 4, 4), np.uint8)))
    with pytest.raises(DataError, match="two sets of train images"):
        load_data(str(tmp_path))


def test_the_hash_is_of_the_pixels_in_order(digits):
    assert dataclasses.replace(digits, images=digits.images[:, ::-1]).hash != digits.hash
    assert dataclasses.replace(digits, images=np.asfortranarray(digits.images)).hash == digits.hash


def test_labels_beside_idx_files_in_colour(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    (tmp_path / "train-images-idx4-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(6, dtype=np.uint8)))
    data = load_data(str(tmp_path))
    assert np.array_equal(data.images, images)
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_sub_folders_called_unknown_or_alone(tmp_path):
    save(tmp_path / "unknown" / "1.png")
    alone = load_data(str(tmp_path))
    assert (alone.labels, alone.label_names) == (None, ())
    assert any("all images lie in one sub-folder" in note for note in alone.notes)
    save(tmp_path / "cat" / "1.png")
    assert load_data(str(tmp_path)).label_names == ("cat", "unknown (1)")


def test_a_run_in_a_folder_called_like_a_data_set_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert not is_named("digits")
    for name in ("run.json", "seeds.json"):
        (tmp_path / "digits" / name).write_text("{}")
        assert is_named("digits")
        (tmp_path / "digits" / name).rename(tmp_path / name)
        assert not is_named("digits")
    (tmp_path / "run.json").rename(tmp_path / "digits" / "run.json")
    assert load_data("digits").name == "digits"
    assert load_data("digits", named=True).images.shape == (1797, 8, 8, 1)


def test_a_path_is_as_good_as_its_text(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 5), np.uint8))
    assert load_data(tmp_path / "x.npy").images.shape == (3, 4, 5, 1)
    with pytest.raises(DataError, match="no data at"):
        load_data(tmp_path / "missing")


def test_a_pile_of_grey_and_coloured_images_is_told(tmp_path):
    """They would be sorted by that."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 6, 6, 3), dtype=np.uint8)
    images[::2] = images[::2, ..., :1]
    np.save(tmp_path / "mixed.npy", images)
    (note,) = load_data(tmp_path / "mixed.npy").notes
    assert note.startswith("60 of 120 images are grey, the others in colour")
    images[4:] = rng.integers(0, 256, (116, 6, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "coloured.npy", images)
    assert load_data(tmp_path / "coloured.npy").notes == ()


def test_a_small_pile_is_told(tmp_path):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).integers(0, 256, (99, 6, 6), dtype=np.uint8))
    (note,) = load_data(tmp_path / "few.npy").notes
    assert note.startswith("99 images are few")
