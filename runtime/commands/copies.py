"""Images copied into a folder per class, for people who want piles rather than rows.

Nothing is moved, and no file is written over: to a name that is taken a sum of the content is added, a copy that is there already is left
alone, so that an interrupted call can be repeated, and several may copy into one folder.
"""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError, UsageError
from ..files import make_folder, real_path, umask
from ..images.sources import STDIN, folders_searched
from ..wording import counted

if TYPE_CHECKING:
    from .rows import Row

UNKNOWN_FOLDER = "unknown"
LONGEST = 240
"""Bytes of a name before its sum is added: file systems allow 255."""
NAMED = 5
"""Folders of another sorting that are named."""
UNSAFE = dict.fromkeys(map(ord, '\\/:*?"<>|'), "_") | dict.fromkeys(range(32), "_")
"""What some file system has no room for in a name."""


class Copies:
    """Copies images to ``FOLDER/CLASS/``.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        Per cluster; clusters that share a name share a folder.

    Raises
    ------
    UsageError
        When `folder` is a file.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--copy-to is {folder}, which is a file: expected a folder")
        self.folder, self._folders = folder, folder_names(names)
        self._made = self._there = self._lost = self._own = 0
        self._here = real_path(folder)
        self._of_copies = {self._here / name for name in (UNKNOWN_FOLDER, *self._folders)}

    def require_apart(self, sources: Sequence[str]) -> None:
        """Raise `UsageError` when copies would be found among the images, or an image is on standard input."""
        for source in sources:
            if source == STDIN:
                raise UsageError("--copy-to copies files, and the image on standard input (-) has none")
            if any(self._here.is_relative_to(real_path(searched)) for searched in folders_searched(source)):
                raise UsageError(f"--copy-to {self.folder} lies in {source}: copies would be sorted too; choose a folder outside")

    def add(self, row: Row) -> None:
        """Copy the image of a row, if it was read and is still there; a copy is not copied. Raises `OutputError`."""
        source = Path(row["path"])
        if not row["ok"]:
            return
        if real_path(source.parent) in self._of_copies:
            self._own += 1
            return
        target = self.folder / (self._folders[row["cluster"]] if row["cluster"] >= 0 else UNKNOWN_FOLDER)
        make_folder(target)
        try:
            made = _copy(source, target)
        except FileNotFoundError as error:
            if source.exists():
                raise OutputError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
            self._lost += 1  # taken away after it was read: its row says what it was
            return
        except OSError as error:
            raise OutputError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
        self._made, self._there = self._made + made, self._there + (not made)

    @property
    def summary(self) -> str:
        """A line that says what was copied, and what needed no copy."""
        there = f"; {self._there:,} {'was' if self._there == 1 else 'were'} there already" if self._there else ""
        lost = f"; {self._lost:,} {'was' if self._lost == 1 else 'were'} gone before being copied" if self._lost else ""
        own = f"; {self._own:,} {'lies' if self._own == 1 else 'lie'} in a folder of copies and stayed there" if self._own else ""
        others = self._others()
        names = f"{', '.join(others[:NAMED])}{', ...' if len(others) > NAMED else ''}"
        before = f"; other folders are there from before: {names}" if others else ""
        return f"copies    {counted(self._made, 'image')} to {self.folder}{there}{lost}{own}{before}"

    def _others(self) -> list[str]:
        """Folders that no class has now: an image that was copied there, before clusters were named say, is in two."""
        try:
            there = [entry.name for entry in self.folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        except OSError:
            return []
        return sorted(name for name in there if self._here / name not in self._of_copies)


def folder_names(names: Sequence[str]) -> list[str]:
    """A folder name for each cluster: different for different names on every file system, the same for the same."""
    found: dict[str, str] = {}
    taken = {UNKNOWN_FOLDER}
    for cluster, name in enumerate(names):
        if name in found:
            continue
        plain = name.translate(UNSAFE).strip(" .") or f"cluster {cluster}"
        plain = plain.encode()[:100].decode(errors="ignore")
        while plain.casefold() in taken:
            plain = f"{plain} ({cluster})"
        taken.add(plain.casefold())
        found[name] = plain
    return [found[name] for name in names]


def _copy(source: Path, target: Path) -> bool:
    """Copy under its own name or, where another file has it, one with a sum of its content; False where the same file is there already."""
    temporary = None
    try:
        for place in _places(source, target):
            if os.path.lexists(place):
                if place.is_file() and filecmp.cmp(source, place, shallow=False):
                    return False
            else:
                temporary = temporary or _unnamed_copy(source, target)
                if _named(temporary, place):
                    return True
        raise AssertionError("names never end")
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _places(source: Path, target: Path) -> Iterator[Path]:
    """Names for a copy, likeliest first. Ten thousand `image.jpg` each look at two: counted names would look at every one before."""
    yield target / source.name
    checksum = zlib.crc32(source.read_bytes())
    room = max(0, LONGEST - len(os.fsencode(source.suffix)))
    stem = source.stem
    while len(os.fsencode(stem)) > room:  # by letters: half of one is no name to some file systems
        stem = stem[:-1]
    yield target / f"{stem}-{checksum:08x}{source.suffix}"
    for number in itertools.count(2):  # another file of the same sum
        yield target / f"{stem}-{checksum:08x}-{number}{source.suffix}"


def _unnamed_copy(source: Path, target: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=target)
    os.close(handle)
    try:
        shutil.copyfile(source, name)
        shutil.copystat(source, name)
        os.chmod(name, 0o666 & ~umask())
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def _named(file: Path, place: Path) -> bool:
    """Give `file` the name `place`; False where another process has taken it meanwhile."""
    try:
        os.link(file, place)
    except FileExistsError:
        return False
    except OSError:  # no links on this file system: an empty file takes the name first
        try:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        try:
            os.replace(file, place)
        except BaseException:  # a signal too: an empty image would stay
            with contextlib.suppress(OSError):
                if not os.path.getsize(place):
                    os.unlink(place)
            raise
    return True
