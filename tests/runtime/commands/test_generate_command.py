"""`catvae-generate`: what it draws, and that the same seed draws it again."""

import numpy as np
import pytest
from PIL import Image


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_grid_of_every_cluster(run, tmp_path):
    result = run("catvae-generate", "-o", "a.png", "--seed", 4)
    assert result.returncode == 0, result.stderr
    run("catvae-generate", "-o", "b.png", "--seed", 4)
    run("catvae-generate", "-o", "c.png", "--seed", 5)
    a, b, c = (pixels(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert np.array_equal(a, b)
    assert a.shape == c.shape
    assert not np.array_equal(a, c)
    assert a.std() > 40  # a picture, not a flat field


def test_one_cluster_interpolation_and_walk(run, tmp_path):
    for name, arguments in {
        "one": ("-c", "3", "-n", 4),
        "line": ("--interpolate", "0", "1", "-n", 5),
        "walk": ("--walk", "2", "-n", 6),
    }.items():
        result = run("catvae-generate", "-o", f"{name}.png", *arguments)
        assert result.returncode == 0, result.stderr
        assert pixels(tmp_path / f"{name}.png").shape[0] < 120  # a single row


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-c", "eleven"), 2, "there is no cluster 'eleven'"),
        (("-c", "1", "--walk", "2"), 2, "different pictures"),
        (("-o", "/dev/null"), 5, "not a regular file"),
        (("-o", "new.jpg"), 2, "written as PNG"),
        (("-b", "nowhere"), 3, "no such folder"),
        (("-n", "0"), 2, "-n"),
        (("",), 2, "an image's path is empty"),
    ],
)
def test_one_line_and_an_exit_code(run, arguments, code, message):
    result = run("catvae-generate", *arguments)
    assert result.returncode == code
    assert message in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1


def rows_of(path, cell: int = 56, gap: int = 4) -> int:
    """How many rows a sheet of 28 x 28 images has."""
    return (pixels(path).shape[0] - 5 * gap) // (cell + gap)


def test_a_ring_and_all_walks_have_a_row_for_each_cluster(run, tmp_path):
    for name, arguments in {"ring": ("--ring",), "walks": ("--walk", "all"), "three": ("--ring", "-c", 0, "-c", 4, "-c", 2)}.items():
        result = run("catvae-generate", "-o", f"{name}.png", "-n", 3, *arguments)
        assert result.returncode == 0, result.stderr
    assert [rows_of(tmp_path / f"{name}.png") for name in ("ring", "walks", "three")] == [10, 10, 3]


def test_given_images_reconstructed_joined_and_moved(run, png, bundle, tmp_path):
    for i, image in enumerate(bundle.sample(3, 2, seed=1)):
        png(f"in/{i}.png", np.round(image[..., 0] * 255).astype(np.uint8))
    for how, rows in {"--reconstruct": 2, "--between": 1, "--transfer": 2}.items():
        result = run("catvae-generate", "in", how, "-o", f"{how}.png")
        assert result.returncode == 0, result.stderr
        assert rows_of(tmp_path / f"{how}.png") == rows
    moved = pixels(tmp_path / "--transfer.png")
    swapped = run("catvae-generate", "in", "--transfer", "--invert", "-o", "swapped.png")
    assert swapped.returncode == 0
    assert not np.array_equal(moved, pixels(tmp_path / "swapped.png"))


def test_options_that_change_nothing_are_refused(run, png):
    png("in/a.png")
    for arguments, option in ((("in", "--transfer", "-n", 4), b"-n"), (("--ring", "--seed", 3), b"--seed"), (("--invert",), b"--invert")):
        result = run("catvae-generate", *arguments)
        assert (result.returncode, option + b" changes nothing" in result.stderr) == (2, True), result.stderr


def test_style_moved_to_an_images_own_cluster_is_its_reconstruction(bundle):
    from catvae.runtime.bundles.pictures import class_transfer, reconstructions

    images = np.round(bundle.sample(6, 3, seed=2) * 255).astype(np.uint8)
    own = bundle.predict(images)
    moved, rebuilt = class_transfer(bundle, images), reconstructions(bundle, images, 3)
    certain = bundle.predict_proba(images).max(1) > 0.9999
    assert certain.any()
    for i in np.flatnonzero(certain):
        np.testing.assert_allclose(moved.rows[i][1 + own[i]], rebuilt.rows[1][i], atol=0.01)
    # what is drawn in another cluster is read there
    elsewhere = np.concatenate([row[1:] for row in moved.rows])
    read = bundle.predict(np.round(elsewhere * 255).astype(np.uint8))
    assert (read == np.tile(np.arange(10), 3)).mean() > 0.8


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--reconstruct",), 2, "--reconstruct needs images"),
        (("a.png",), 2, "say how"),
        (("a.png", "--ring"), 2, "say how"),
        (("--ring", "-c", "#3"), 2, "--ring goes from cluster to cluster"),
        (("a.png", "--between"), 2, "--between needs 2 images, got 1"),
        (("a.png", "--between", "--transfer"), 2, "different pictures"),
        (("torn.png", "--transfer"), 3, "torn.png"),
        (("none*", "--transfer"), 3, "no such file, and as a pattern it matches none"),
    ],
)
def test_given_images_and_how_to_draw_them_belong_together(run, png, tmp_path, arguments, code, message):
    png("a.png")
    (tmp_path / "torn.png").write_bytes(b"nothing")
    result = run("catvae-generate", *arguments)
    assert result.returncode == code
    assert message in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1


def test_an_image_of_the_users_is_not_replaced_by_a_picture(run, png, tmp_path):
    """`-o *.png` names one."""
    for name in ("a.png", "b.png"):
        png(name)
    before = png("a.png").read_bytes()
    result = run("catvae-generate", "--reconstruct", "-o", "a.png", "b.png")
    assert (result.returncode, b"was not drawn by catvae-generate" in result.stderr) == (2, True)
    assert png("a.png").read_bytes() == before
    script = tmp_path / "draw"
    script.write_text("#!/bin/sh\nexec catvae-generate -n 3\n")
    assert run("catvae-generate", "-o", "draw").returncode == 2
    assert script.read_text().startswith("#!/bin/sh")
    for _ in range(2):  # what it drew itself, it may
        assert run("catvae-generate", "-n", "1", "-o", "new.png").returncode == 0
