"""Which files a call means: patterns and links, lists from other systems, shards."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catvae.runtime.errors import UsageError
from catvae.runtime.images.sources import expand, parse_shard, read_list, shard_of, walk_images


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """a.png, x/b.png, x/y/c.png, .hidden/d.png, and links of folders to themselves and to each other."""
    for name in ("a.png", "x/b.png", "x/y/c.png", ".hidden/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*.png", ["a.png", "x/b.png", "x/y/c.png"]),
        ("**/c.png", ["x/y/c.png"]),
        ("x/**", ["x/b.png", "x/y/c.png"]),
        ("x/**/*.png", ["x/b.png", "x/y/c.png"]),
        ("**/y/**/*.png", ["x/y/c.png"]),
        ("*/*.png", ["again/b.png", "x/b.png"]),  # a link that a pattern names is followed
        ("again/**/*.png", ["again/b.png", "again/y/c.png"]),
        ("nothing/**/*.png", ["nothing/**/*.png"]),
        ("x/?.png", ["x/b.png"]),
    ],
)
def test_patterns_do_not_go_round_in_circles(tree, pattern, found):
    assert list(expand([pattern])) == found
    absolute = [str(tree / name) for name in found]
    assert list(expand([str(tree / pattern)])) == absolute


def test_links_to_folders_are_passed_over_and_said_to_be(tree):
    said = []
    assert list(walk_images(".", said.append)) == ["./a.png", "./x/b.png", "./x/y/c.png"]
    assert said == ["left out ./again: a link to a folder", "left out ./x/loop: a link to a folder"]


def test_pictures_that_cannot_be_read_are_counted(tree):
    for name in ("x/1.HEIC", "x/2.heic", "3.avif", ".hidden.heic", "x/notes.txt"):
        (tree / name).write_bytes(b"")
    said = []
    assert len(list(walk_images(".", said.append))) == 3
    assert said[-2:] == [
        "left out 1 .avif file below .: convert to PNG or JPEG first",
        "left out 2 .heic files below .: convert to PNG or JPEG first",
    ]


@pytest.mark.parametrize("text", ["one.png\ntwo.png\n", "\ufeffone.png\r\ntwo.png\r\n", "one.png\n\n\ntwo.png"])
def test_lists_of_any_system(tmp_path, text):
    (tmp_path / "list").write_text(text, encoding="utf-8", newline="")
    assert list(read_list(str(tmp_path / "list"))) == ["one.png", "two.png"]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1)), st.integers(1, 9))
def test_every_path_falls_to_one_shard(paths, parts):
    shards = [list(shard_of(paths, part, parts)) for part in range(1, parts + 1)]
    assert sorted(path for shard in shards for path in shard) == sorted(paths)


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/x", "-1/2", "1/" + "9" * 5000, "²/3"])
def test_what_is_no_shard(text):
    with pytest.raises(UsageError, match="expected i/n"):
        parse_shard(text)


def test_a_list_that_somebody_writes_is_answered_row_by_row(png, tmp_path):
    """With --batch-size 1 a row is there before the next path is."""
    for i in range(3):
        png(f"{i}.png", 40 * i)
    command = [str(Path(sys.executable).parent / "catvae-infer"), "--files-from", "-", "--batch-size", "1", "-q"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, env=environment) as process:
        watchdog = threading.Timer(60, process.kill)  # else both would wait for the other
        watchdog.start()
        assert process.stdin is not None
        assert process.stdout is not None
        for i in range(3):
            process.stdin.write(f"{i}.png\n".encode())
            process.stdin.flush()
            assert f'"{i}.png"'.encode() in process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 0
        watchdog.cancel()


def test_every_usual_name_of_a_jpeg_is_an_image(png, tmp_path):
    for name in ("a.jfif", "b.JPE", "c.jpeg"):
        png("x.png").rename(tmp_path / name)
    assert [Path(path).name for path in walk_images(str(tmp_path))] == ["a.jfif", "b.JPE", "c.jpeg"]
