"""The atomic writer: whole files or none, ordinary modes, no surprises at the target."""

import errno
import os
import stat
import sys

import pytest

from catvae.runtime.errors import OutputError
from catvae.runtime.files import atomic_write, lock, pretty_json, sha256


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_mode_follows_the_umask(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        atomic_write(tmp_path / "sub" / "file.txt", "text")
    finally:
        os.umask(old)
    path = tmp_path / "sub" / "file.txt"
    assert path.read_text() == "text"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_links_pipes_and_folders_are_not_replaced(tmp_path):
    real = tmp_path / "real"
    real.write_text("kept")
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(OutputError, match="not a regular file"):
            atomic_write(tmp_path / name, b"x")
    assert real.read_text() == "kept"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        atomic_write(tmp_path / "file" / "below", b"x")


def test_sha256():
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_lock_keeps_others_away_and_its_want_is_no_error(tmp_path, monkeypatch):
    import fcntl

    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    try:
        assert lock(first)
        with pytest.raises(BlockingIOError):
            lock(second)
        os.close(first)
        assert lock(second)
    finally:
        os.close(second)

    def none_here(_handle, _how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    assert not lock(0)


def test_pretty_json_is_json_with_an_end_of_line():
    assert pretty_json({"a": [1, 2.5, "x"]}) == b'{\n  "a": [\n    1,\n    2.5,\n    "x"\n  ]\n}\n'


def test_a_page_replaces_none_of_the_users(run, tmp_path):
    """`report.html` is a common name."""
    for mine in ("mine", "<!doctype html>\n<p>how catvae-report is called</p>"):
        (tmp_path / "report.html").write_text(mine)
        result = run("catvae-report", "-q")
        assert (result.returncode, b"was not made by catvae-report" in result.stderr) == (2, True)
        assert (tmp_path / "report.html").read_text() == mine
    for _ in range(2):  # what it made itself, it may
        assert run("catvae-report", "-q", "-o", "page.html").returncode == 0
    (tmp_path / "page.html").rename(tmp_path / "report.html")
    (tmp_path / "run.json").write_text("{}")
    result = run("catvae-report", "-q")
    assert (result.returncode, b"the page of the run" in result.stderr) == (2, True)


def test_rows_replace_none_of_the_users_files(run, png, tmp_path):
    """A list of labels, above all, whose images are being sorted."""
    png("a.png")
    labels = tmp_path / "labels.csv"
    spaced, dense = '{"path": "a.png", "label": "three"}\n', '{"path":"a.png","label":"ok"}\n'
    for mine in ("a.png,three\n", spaced, dense, "see path,ok,cluster,name,\n"):
        labels.write_text(mine)
        result = run("catvae-infer", "a.png", "-o", "labels.csv")
        assert (result.returncode, b"was not written by catvae-infer" in result.stderr) == (2, True)
        assert labels.read_text() == mine
    (tmp_path / "empty.csv").touch()
    for name, format_ in (("rows.csv", "csv"), ("rows.jsonl", "jsonl"), ("rows.txt", "table"), ("empty.csv", "csv")):
        for _ in range(2):  # what it wrote itself, it may
            assert run("catvae-infer", "a.png", "absent.png", "-o", name, "--format", format_).returncode == 1
