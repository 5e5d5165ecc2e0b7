"""A folder for temporary files that there is no room for: said in one line, with the way out."""

import errno
import tempfile

import pytest

from catvae.export.scratch import scratch_folder
from catvae.runtime.errors import OutputError


def test_it_is_empty_and_removed():
    with scratch_folder() as folder:
        (folder / "a").write_text("")
        assert [path.name for path in folder.iterdir()] == ["a"]
    assert not folder.exists()


def test_where_there_is_none_another_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match=r"gone: .*name another in TMPDIR"), scratch_folder():
        pass


def test_where_none_is_writable_at_all(monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(OutputError, match="No usable temporary directory"), scratch_folder():
        pass


def test_a_full_disc_is_no_fault_of_ours():
    with pytest.raises(OutputError, match="No space left on device; name another in TMPDIR"), scratch_folder():
        raise OSError(errno.ENOSPC, "No space left on device")
