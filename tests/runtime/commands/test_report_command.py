"""`catvae-report`: what becomes of the images it is given, and what it refuses. The page itself is tried in `report`."""

import re

import numpy as np
import pytest
from PIL import Image


def test_the_command_sorts_sub_folders_into_a_table_and_names_what_it_left_out(run, png, bundle, tmp_path):
    for cluster in (2, 5):
        for i, image in enumerate(bundle.sample(cluster, 4, seed=3)):
            png(f"images/class {cluster}/{i}.png", np.round(image[..., 0] * 255).astype(np.uint8))
    (tmp_path / "images/class 2/torn.png").write_bytes(b"nothing")
    result = run("catvae-report", bundle.path, "images")
    assert result.returncode == 0, result.stderr
    assert "1 of 9 images could not be read; images/class 2/torn.png" in result.stderr.decode()
    page = (tmp_path / "report.html").read_text()
    assert "Known classes" in page
    assert '<th scope="row">class 5</th>' in page
    assert "<b>8</b><span>images examined</span>" in page


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        (["a/0.png", "a/1.png", "2.png"], ["images"]),  # one that lies in no sub-folder
        (["a/0.png", "b/1.png"], ["images/a", "images/b"]),  # folders of their own, not sub-folders
        (["a/0.png", "b/1.png"], ["images/a/0.png", "images/b/1.png"]),
        (["a/0.png", "a/x/1.png"], ["images"]),  # a single class
    ],
)
def test_only_sub_folders_are_classes(run, png, bundle, tmp_path, names, arguments):
    for name in names:
        png(f"images/{name}")
    assert run("catvae-report", bundle.path, *arguments).returncode == 0
    assert "Known classes" not in (tmp_path / "report.html").read_text()


def test_the_page_of_a_run_is_copied(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "report.html").write_bytes(b"<p>of a run")
    result = run("catvae-report", "run", "-o", "copy.html")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "copy.html").read_bytes() == b"<p>of a run"


def test_images_are_called_by_where_they_lie_below_all_of_them(run, bundle, tmp_path):
    """Not by where that is: the page may be sent to somebody."""
    for day, cluster in enumerate((2, 5)):
        folder = tmp_path / "secret" / f"day {day}"
        folder.mkdir(parents=True)
        for i, image in enumerate(bundle.sample(cluster, 4, seed=3)):
            Image.fromarray(np.round(image[..., 0] * 255).astype(np.uint8)).save(folder / f"größe & {i}.png")
    assert run("catvae-report", bundle.path, tmp_path / "secret" / "day 0", "secret/day 1").returncode == 0
    page = (tmp_path / "report.html").read_text()
    called = set(re.findall(r"<li>(day \d/größe &amp; \d\.png)</li>", page))
    assert {name[:5] for name in called} == {"day 0", "day 1"}
    assert len(set(re.findall(r"<li>([^<]*\.png)</li>", page)) - called) == 0
    assert "secret" not in page


def test_without_images_the_bundle_shows_its_own(run, tmp_path):
    assert run("catvae-report", "-o", "page.html").returncode == 0
    assert "its own drawings" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 3, "no such folder"),
        (("{bundle}", "no*.png"), 3, "no such file"),
        (("{bundle}", "torn.png"), 3, "none of 1 images could be read"),
        (("-o", "."), 2, "is a folder"),
        (("{bundle}", "-o", "torn.png"), 2, "the name of an image, which the page would replace"),
        (("{bundle}", ""), 2, "an image's path is empty"),
        (("run",), 3, "catvae-train --resume run"),
        (("run", "torn.png"), 2, "catvae-export --onnx run"),
    ],
)
def test_one_line_and_an_exit_code(run, bundle, tmp_path, arguments, code, message):
    (tmp_path / "torn.png").write_bytes(b"nothing")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    result = run("catvae-report", *(part.format(bundle=bundle.path) for part in arguments))
    assert result.returncode == code
    assert message in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1
