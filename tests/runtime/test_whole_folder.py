"""Folders that appear whole: beside an absent one, inside an empty one, in the place of another."""

import os
from pathlib import Path

import pytest

from catvae.runtime.errors import OutputError
from catvae.runtime.whole_folder import whole_folder, write_folder

FILES: dict[str, bytes | str] = {"manifest.json": "{}", "a.txt": "a", "below/b.txt": "b"}


def found(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_absent_folder_appears_with_its_parents(tmp_path):
    write_folder(tmp_path / "x" / "y", FILES)
    assert found(tmp_path) == {f"x/y/{name}": text for name, text in FILES.items()}


def test_an_empty_folder_stays_the_one_it_is(tmp_path):
    """It may be a mount or a link: nothing is written beside it, and nothing takes its place."""
    real = tmp_path / "elsewhere" / "real"
    real.mkdir(parents=True)
    real.chmod(0o2770)
    before = real.stat()
    (tmp_path / "link").symlink_to(real)
    write_folder(tmp_path / "link", FILES)
    assert found(real) == FILES
    assert (real.stat().st_ino, real.stat().st_mode) == (before.st_ino, before.st_mode)
    assert [path.name for path in real.parent.iterdir()] == ["real"]
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_the_folder_around_an_empty_one_need_not_be_writable(tmp_path):
    (tmp_path / "out").mkdir()
    tmp_path.chmod(0o555)
    try:
        write_folder(tmp_path / "out", FILES)
        assert found(tmp_path / "out") == FILES
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("there", [False, True])
def test_after_a_failure_all_is_as_it_was(tmp_path, there):
    if there:
        (tmp_path / "out").mkdir()

    def fail(folder):
        with whole_folder(folder) as staging:
            (staging / "a.txt").write_text("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * there
    assert not found(tmp_path)


def test_what_somebody_put_there_meanwhile_is_kept(tmp_path):
    (tmp_path / "out").mkdir()

    def collide(folder):
        with whole_folder(folder) as staging:
            (staging / "a.txt").write_text("ours")
            (folder / "a.txt").write_text("theirs")

    with pytest.raises(OutputError, match="not empty"):
        collide(tmp_path / "out")
    assert found(tmp_path / "out") == {"a.txt": "theirs"}


def test_stopped_between_two_files_none_is_left(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    real, calls = os.rename, []

    def rename(source, target):
        calls.append(os.path.basename(target))
        if calls[-1] == "manifest.json" and len(calls) < 4:
            raise KeyboardInterrupt
        real(source, target)

    def fill(folder):
        with whole_folder(folder) as staging:
            for name in ("manifest.json", "a.txt", "z.txt"):
                (staging / name).write_text(name)
            monkeypatch.setattr(os, "rename", rename)

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "out")
    assert calls[:3] == ["a.txt", "z.txt", "manifest.json"]  # what tells a bundle comes last
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", [".", "../page", "inside/.."])
def test_the_working_folder_can_be_replaced(tmp_path, monkeypatch, name):
    (tmp_path / "page" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "page")
    write_folder(Path(name), FILES, overwrite=True)
    assert found(tmp_path / "page") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
