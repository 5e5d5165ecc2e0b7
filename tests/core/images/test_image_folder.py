"""Images of many sizes become one array: bars beside them may not show, for they would be what clusters form by."""

import numpy as np
import pytest
from PIL import Image

from catvae.core.images import image_folder
from catvae.core.images.data import load_data
from catvae.core.images.image_folder import read_folder
from catvae.runtime.errors import DataError
from catvae.runtime.images.image_files import read_image


def drawn(path, size, background, mark=(30, 160, 60), noise=3.0, seed=0):
    """A disc of `mark` in the middle of a background with a camera's noise."""
    rng = np.random.default_rng(seed)
    width, height = size
    x = np.full((height, width, 3), background, float) + rng.normal(0, noise, (height, width, 3))
    rows, columns = np.ogrid[:height, :width]
    x[(rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(size) / 4) ** 2] = mark
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(x, 0, 255).astype(np.uint8)).save(path)


SHAPES = [(60, 40), (40, 60), (50, 50), (90, 45)]


def folder_of(path, backgrounds, **changes):
    for i, size in enumerate(SHAPES):
        drawn(path / f"{i}.png", size, backgrounds[i % len(backgrounds)], seed=i, **changes)
    return load_data(str(path))


def test_images_on_backgrounds_of_many_kinds_are_stretched_and_show_no_bars(tmp_path):
    data = folder_of(tmp_path, [(200, 180, 170), (120, 140, 150), (90, 60, 40)])
    assert data.preprocess.fit == "stretch"
    assert data.images.shape == (4, 64, 64, 3)
    assert data.images.min() > 20  # a bar is black
    assert "4 sizes: each was stretched to 64 x 64 pixels" in data.notes[0]


@pytest.mark.parametrize(("level", "mark"), [(250, (20, 20, 20)), (128, (250, 250, 250)), (4, (200, 200, 200))])
def test_things_on_one_plain_background_keep_their_shape_and_the_frame_is_filled_with_it(tmp_path, level, mark):
    data = folder_of(tmp_path, [(level, level, level)], mark=mark, noise=2.0)
    assert data.preprocess.fit == "pad"
    assert abs(data.preprocess.background - level) <= 3
    assert f"on their common background (grey level {data.preprocess.background})" in data.notes[0]
    for image in data.images.astype(int):
        edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert np.abs(edges - level).max() <= 12
        inside = np.abs(image.sum(2) - 3 * level) > 100
        assert inside.any(0).sum() == pytest.approx(inside.any(1).sum(), abs=2)  # a disc stays one


def test_one_plain_colour_that_is_no_grey_is_stretched(tmp_path):
    assert folder_of(tmp_path, [(30, 80, 200)]).preprocess.fit == "stretch"


def test_things_may_touch_a_plain_border_here_and_there(tmp_path):
    drawn(tmp_path / "tall.png", (40, 60), (255, 255, 255), (0, 0, 0), noise=0)
    touching = np.full((50, 50, 3), 255, np.uint8)
    touching[:, 23:27] = 0
    Image.fromarray(touching).save(tmp_path / "touching.png")
    assert load_data(str(tmp_path)).preprocess.background == 255


def test_one_large_image_among_small_ones_is_told(tmp_path):
    for i in range(19):
        noise(i, 32, 32).save(tmp_path / f"{i}.png")
    noise(20, 64, 48).save(tmp_path / "stray.png")
    told = "19 of 20 images are 32 x 32: --image-size 32 leaves 4.0 times fewer pixels to compute"
    assert told in read_folder(tmp_path, None, print).notes
    assert told not in read_folder(tmp_path, 64, print).notes
    (tmp_path / "stray.png").unlink()
    assert read_folder(tmp_path, None, print).notes == ()


def test_squares_of_many_sizes_are_only_resized(tmp_path):
    for side in (20, 30, 90):
        drawn(tmp_path / f"{side}.png", (side, side), (90, 60, 40))
    data = load_data(str(tmp_path))
    few = "3 images are few: with less than 100, clusters may be chance"
    assert data.notes == ("images come in 3 sizes: each was resized to 64 x 64 pixels", few)


@pytest.mark.parametrize(("background", "fit"), [((90, 60, 40), "stretch"), ((230, 230, 230), "pad")])
def test_a_new_image_of_another_shape_gets_no_bars_that_training_never_saw(tmp_path, background, fit):
    """Square crops are trained on, frames of a camera come later: black bars beside them were sorted by, with certainty."""
    for i in range(4):
        drawn(tmp_path / "squares" / f"{i}.png", (40, 40), background, seed=i)
    data = load_data(str(tmp_path / "squares"))
    assert data.preprocess.fit == fit
    drawn(tmp_path / "wide.png", (64, 40), background)
    seen = read_image(tmp_path / "wide.png", data.preprocess)
    edges = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]]).astype(int)
    assert np.abs(edges - (background if data.preprocess.channels == 3 else background[:1])).max() <= 15


def test_new_images_are_read_as_the_ones_trained_on(tmp_path):
    data = folder_of(tmp_path, [(200, 180, 170), (90, 60, 40)])
    assert np.array_equal(read_image(tmp_path / "1.png", data.preprocess), data.images[1])


def test_grey_photographs_are_read_as_the_ones_trained_on(tmp_path):
    """libjpeg shrinks large grey ones while it decodes, before a folder is known to be grey as after."""
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (520, 520), dtype=np.uint8)).save(tmp_path / f"{i}.jpg")
    data = load_data(str(tmp_path))
    assert data.preprocess.channels == 1
    assert [np.array_equal(read_image(tmp_path / f"{i}.jpg", data.preprocess), data.images[i]) for i in range(3)] == [True] * 3


def test_many_files_are_read_in_order_whoever_decodes_them(tmp_path):
    for i in range(300):
        Image.fromarray(np.full((5, 5), i % 251, np.uint8)).save(tmp_path / f"{i:03d}.png")
    (tmp_path / "007.png").write_bytes(b"no picture")
    warnings = []
    data = load_data(str(tmp_path), warn=warnings.append)
    assert data.images[:, 0, 0, 0].tolist() == [i % 251 for i in range(300) if i != 7]
    assert len(warnings) == 1


def test_mixed_sizes_are_fitted_and_said_so(tmp_path):
    for name, size in (("a.png", (30, 20)), ("b.png", (10, 10))):
        Image.new("L", size, 120).save(tmp_path / name)
    data = load_data(str(tmp_path))
    assert data.images.shape == (2, 30, 30, 1)
    assert data.labels is None
    assert "2 sizes: each was fitted into 30 x 30" in data.notes[0]
    assert (data.images == 120).all()
    assert load_data(str(tmp_path), image_size=12).images.shape == (2, 12, 12, 1)


def test_large_and_colour_images(tmp_path):
    Image.new("RGB", (300, 200), (200, 10, 10)).save(tmp_path / "a.png")
    data = load_data(str(tmp_path))
    assert data.images.shape == (1, 64, 64, 3)
    assert "300 x 200 were stretched to 64 x 64" in data.notes[0]


def test_a_damaged_file_among_those_looked_at_is_named_once_and_decides_nothing(tmp_path):
    folder_of(tmp_path, [(250, 250, 250)], mark=(0, 0, 0))
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    lines = []
    data = load_data(str(tmp_path), warn=lines.append)
    assert data.preprocess.fit == "pad"
    assert len(lines) == 1
    assert "torn.png" in lines[0]


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def drawing(level: int) -> Image.Image:
    """A disc of a grey level on nothing."""
    image = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
    for x in range(24):
        for y in range(24):
            if (x - 12) ** 2 + (y - 12) ** 2 < 60:
                image.putpixel((x, y), (level, level, level, 255))
    return image


@pytest.mark.parametrize(("level", "behind"), [(0, 255), (60, 255), (200, 0), (255, 0)])
def test_what_is_drawn_on_nothing_is_laid_on_what_it_is_seen_on(tmp_path, level, behind):
    """Black icons on a transparent ground are no black squares; new ones are laid on the same."""
    for i in range(6):
        drawing(level).rotate(15 * i, translate=(i, 0)).save(tmp_path / f"{i}.png")
    found = read_folder(tmp_path, None, print)
    assert found.preprocess.background == behind
    assert {int(found.images.min()), int(found.images.max())} == {level, behind}
    assert (read_image(tmp_path / "3.png", found.preprocess) == found.images[3]).all()


def test_a_pile_of_one_image_or_of_hardly_any_light_is_told_to_be(tmp_path):
    for name, level in (("same", 90), ("dark", 12)):
        (tmp_path / name).mkdir()
        for i in range(4):
            image = Image.new("L", (9, 9), level)
            if name == "dark":
                image.putpixel((i, 2), 3)
            image.save(tmp_path / name / f"{i}.png")
    assert any("all images are the same" in note for note in load_data(str(tmp_path / "same")).notes)
    assert any("no pixel is brighter than 12 of 255" in note for note in load_data(str(tmp_path / "dark")).notes)


def test_one_image_beside_the_sub_folders_is_said_to_drop_the_classes(tmp_path):
    for name in ("a/1.png", "b/2.png", "cover.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 50 + len(name)).save(tmp_path / name)
    found = read_folder(tmp_path, None, print)
    assert found.labels is None
    assert found.notes == ("1 of 3 images in no sub-folder: names of sub-folders are not used",)


def test_a_torn_file_has_no_say_in_the_size_of_the_others(tmp_path):
    for i in range(6):
        noise(i, 28, 28).save(tmp_path / f"{i}.png")
    noise(9, 300, 400).convert("RGB").save(tmp_path / "torn.jpg", quality=95)
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "torn.jpg").read_bytes()[:3000])
    said = []
    found = read_folder(tmp_path, None, said.append)
    assert found.images.shape == (6, 28, 28, 1)
    assert len(said) == 1
    assert found.notes == ("1 of 7 image files could not be read and were left out",)


def test_how_far_reading_has_come_is_said(tmp_path, monkeypatch):
    for i in range(3):
        noise(i, 8, 8).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(image_folder, "SAY_EVERY", 0.0)
    said = []
    read_folder(tmp_path, None, said.append)
    assert said == ["read 3 of 3 images"]


def test_more_images_than_memory_holds_are_refused_in_words(tmp_path, monkeypatch):
    noise(0, 8, 8).save(tmp_path / "a.png")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(image_folder.np, "empty", full)
    with pytest.raises(DataError, match="1 images of 8 x 8 do not fit into memory"):
        read_folder(tmp_path, None, print)
