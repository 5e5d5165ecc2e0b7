"""Images copied into a folder per class: nothing is written over, nothing is copied twice, nothing leaves the folder."""

import filecmp
import json
import os
import zlib
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catvae.runtime.commands.copies import Copies, folder_names
from catvae.runtime.errors import OutputError, UsageError
from catvae.runtime.interruption import Interrupted


def test_each_image_lies_in_the_folder_of_its_class(run, png, tmp_path):
    noise = np.random.default_rng(0)
    for i in range(30):
        png(f"in/{i:02}.png", noise.integers(0, 256, (28, 28), dtype=np.uint8))
    (tmp_path / "in" / "torn.png").write_bytes(b"text")
    result = run("catvae-infer", "in", "--copy-to", "out")
    assert result.returncode == 1  # one image could not be read
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for row in rows:
        if row["ok"]:
            source = tmp_path / row["path"]
            copied = tmp_path / "out" / row["name"] / source.name
            assert copied.read_bytes() == source.read_bytes()
            assert copied.stat().st_mtime == pytest.approx(source.stat().st_mtime, abs=1e-3)
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == 30
    assert len(list((tmp_path / "in").iterdir())) == 31
    before = sorted(str(path) for path in (tmp_path / "out").rglob("*"))
    assert b"copies    30 images to out\n" in result.stderr
    again = run("catvae-infer", "in", "--copy-to", "out")
    assert (again.returncode, b"copies    0 images to out; 30 were there already\n" in again.stderr) == (1, True)
    assert sorted(str(path) for path in (tmp_path / "out").rglob("*")) == before


def test_what_the_model_does_not_explain_is_apart(run, png, tmp_path):
    png("noise.png", np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8))
    assert run("catvae-infer", "noise.png", "--score", "--copy-to", "out").returncode == 0
    assert (tmp_path / "out" / "unknown" / "noise.png").is_file()


def row(path: Path, cluster: int = 0) -> dict:
    return {"path": str(path), "ok": True, "cluster": cluster}


def test_folders_of_another_sorting_are_told(tmp_path):
    """After clusters were named, an image lies under its number too."""
    (tmp_path / "i.png").write_text("an image")
    for name in ("3", "b", ".hidden"):
        (tmp_path / "out" / name).mkdir(parents=True)
    copies = Copies(tmp_path / "out", ["a", "b"])
    copies.add(row(tmp_path / "i.png"))
    assert copies.summary.endswith("; other folders are there from before: 3")
    for number in range(10, 20):
        (tmp_path / "out" / str(number)).mkdir()
    assert copies.summary.endswith(": 10, 11, 12, 13, 14, ...")


def test_names_that_are_taken_get_a_sum(tmp_path):
    copies = Copies(tmp_path / "out", ["a", "b"])
    for folder, text in (("x", "first"), ("y", "second"), ("z", "third"), ("w", "first")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "i.png").write_text(text)
        copies.add(row(tmp_path / folder / "i.png"))
    found = {path.name: path.read_text() for path in (tmp_path / "out" / "a").iterdir()}
    assert found == {"i.png": "first", f"i-{crc32(b'second'):08x}.png": "second", f"i-{crc32(b'third'):08x}.png": "third"}
    again = Copies(tmp_path / "out", ["a", "b"])
    for folder in "wzyx":  # in any order
        again.add(row(tmp_path / folder / "i.png"))
    assert again.summary.startswith("copies    0 images")


def test_many_of_one_name_do_not_look_at_one_another(tmp_path, monkeypatch):
    copies, looked = Copies(tmp_path / "out", ["a"]), []
    for i in range(50):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "image.png").write_text(f"{i}")
        monkeypatch.setattr(filecmp, "cmp", lambda *_, **__: looked.append(1))
        copies.add(row(tmp_path / f"{i}" / "image.png"))
    assert len(list((tmp_path / "out" / "a").iterdir())) == 50
    assert len(looked) == 49


def test_sums_that_agree_get_a_number_and_names_stay_short(tmp_path, monkeypatch):
    monkeypatch.setattr(zlib, "crc32", lambda _: 7)
    copies, name = Copies(tmp_path / "out", ["a"]), "n" * 250 + ".png"
    for i in range(3):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / name).write_text(f"{i}")
        copies.add(row(tmp_path / f"{i}" / name))
    short = f"{'n' * 236}-00000007"
    assert {path.name for path in (tmp_path / "out" / "a").iterdir()} == {name, f"{short}.png", f"{short}-2.png"}


def test_a_name_is_cut_between_letters(tmp_path):
    """Half of one is no name to some file systems."""
    copies, name = Copies(tmp_path / "out", ["a"]), "\u00e9" * 123 + ".png"
    for i in range(2):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / name).write_text(f"{i}")
        copies.add(row(tmp_path / f"{i}" / name))
    found = {path.name for path in (tmp_path / "out" / "a").iterdir()}
    assert found == {name, f"{chr(0xE9) * 118}-{crc32(b'1'):08x}.png"}


def test_copies_are_not_made_where_they_would_be_sorted_too(run, png, tmp_path):
    png("in/a.png")
    for source, target in (("in", "in"), ("in", "in/sorted"), ("in/**/*.png", "in/sorted"), ("**", "sorted"), ("i*/**/a.png", "in")):
        result = run("catvae-infer", source, "--copy-to", target)
        assert (result.returncode, b"choose a folder outside" in result.stderr) == (2, True)
        assert not (tmp_path / "sorted").exists()  # what is refused leaves nothing behind
    result = run("catvae-infer", "-", "--copy-to", "out", stdin=b"")
    assert (result.returncode, b"standard input" in result.stderr) == (2, True)
    (tmp_path / "file").write_text("")
    result = run("catvae-infer", "in", "--copy-to", "file")
    assert (result.returncode, b"which is a file" in result.stderr) == (2, True)
    with pytest.raises(UsageError):
        Copies(tmp_path / "file", ["a"])


def test_two_calls_at_once_write_over_nothing(tmp_path, monkeypatch):
    """The name is free when both look, and one is a moment later."""
    copies, real = Copies(tmp_path / "out", ["a"]), os.path.lexists
    for folder, text in (("x", "first"), ("y", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "image.png").write_text(text)
    copies.add(row(tmp_path / "x" / "image.png"))
    answers = iter([False])
    monkeypatch.setattr(os.path, "lexists", lambda path: next(answers, real(path)))
    copies.add(row(tmp_path / "y" / "image.png"))
    assert (tmp_path / "out" / "a" / "image.png").read_text() == "first"
    assert (tmp_path / "out" / "a" / f"image-{crc32(b'second'):08x}.png").read_text() == "second"
    assert len(list((tmp_path / "out" / "a").iterdir())) == 2


def test_where_a_file_system_has_no_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    test_names_that_are_taken_get_a_sum(tmp_path)


def test_an_image_that_is_taken_away_before_it_is_copied_ends_nothing(tmp_path):
    copies = Copies(tmp_path / "out", ["a"])
    copies.add(row(tmp_path / "gone.png"))
    assert copies.summary.endswith("; 1 was gone before being copied")


def test_copies_are_not_copied(run, png, tmp_path):
    """A pattern finds those of the last call as well."""
    png("in/x/a.png")
    for _ in range(2):
        assert run("catvae-infer", "*/*/*.png", "--copy-to", "out").returncode == 0
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == 1


def test_images_below_the_folder_of_copies_that_are_no_copies_are_copied(run, png, tmp_path):
    png("photos/new/a.png")
    png("b.png", 200)
    assert run("catvae-infer", "photos/new", "--copy-to", "photos").returncode == 0
    assert sum(path.name == "a.png" for path in (tmp_path / "photos").rglob("*.png")) == 2
    assert b"copies    1 image to ." in run("catvae-infer", "b.png", "--copy-to", ".").stderr


def test_copies_that_are_sorted_once_more_stay_where_they_are(run, png):
    png("in/a.png")
    assert run("catvae-infer", "in", "--copy-to", "out").returncode == 0
    again = run("catvae-infer", "out/*/*.png", "--copy-to", "out")
    assert b"copies    0 images to out; 1 lies in a folder of copies and stayed there\n" in again.stderr


def test_what_an_earlier_call_answered_is_copied_too(run, png, tmp_path):
    names = [png(f"in/{i}.png", 50 * i).name for i in range(4)]
    assert run("catvae-infer", "in", "-o", "rows.jsonl").returncode == 0
    result = run("catvae-infer", "in", "-o", "rows.jsonl", "--resume", "--copy-to", "out")
    assert (result.returncode, b"copies    4 images to out" in result.stderr) == (0, True)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == names


def test_a_disk_that_is_full_leaves_no_half_copy(tmp_path, monkeypatch):
    (tmp_path / "i.png").write_text("pixels")
    copies = Copies(tmp_path / "out", ["a"])

    def full(source, target):
        Path(target).write_text("pix")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        copies.add(row(tmp_path / "i.png"))
    assert list((tmp_path / "out" / "a").iterdir()) == []


def test_a_number_that_tells_names_apart_is_taken_by_nobody():
    assert folder_names(["a (2)", "a", "A"]) == ["a (2)", "a", "A (2) (2)"]


@given(st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=8))
def test_folder_names_are_plain_and_tell_classes_apart(names):
    folders = folder_names(names)
    for folder in folders:
        assert Path(folder).name == folder
        assert folder not in ("", ".", "..", "unknown")
        assert len(folder.encode()) < 200
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            assert (folders[i].casefold() == folders[j].casefold()) == (first == second)


def test_a_copy_that_is_interrupted_leaves_no_empty_image(tmp_path, png, monkeypatch):
    """Where files cannot be linked, a name is taken before the image has it."""
    png("a.png")

    def no_links(*_arguments):
        raise PermissionError("no links here")

    def told(*_arguments):
        raise Interrupted(15)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "replace", told)
    copies = Copies(tmp_path / "out", ["one"])
    with pytest.raises(Interrupted):
        copies.add({"path": str(tmp_path / "a.png"), "ok": True, "cluster": 0, "name": "one"})
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
