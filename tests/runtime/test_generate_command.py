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
        (("-b", "nowhere"), 3, "no such folder"),
        (("-n", "0"), 2, "-n"),
    ],
)
def test_one_line_and_an_exit_code(run, arguments, code, message):
    result = run("catvae-generate", *arguments)
    assert result.returncode == code
    assert message in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1
