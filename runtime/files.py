"""Writing files so that a reader, a crash or a full disk never meets half of one.

Every file goes to a temporary name beside its target, is flushed to the disk, gets the mode the umask asks for, and is renamed.
"""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from .errors import OutputError, UsageError

MOST_OF_A_BEGINNING = 1 << 16
"""Bytes of a file that are looked at to see who made it: the longest path, every letter of it escaped, in a first row."""


def umask() -> int:
    """The process's mode mask: what a file made the ordinary way would lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, creating its folder; the old file stays whole until the new one is complete.

    Raises
    ------
    OutputError
        If the folder cannot be written, the disk is full, or the target is not a regular file (a rename would replace a device node
        or break a symlink).
    """
    target = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    temporary = None
    import tempfile  # 6 ms, and most that starts this module never writes

    try:
        make_folder(target.parent)
        refuse_special_target(target)
        handle, temporary = tempfile.mkstemp(prefix=_hidden(target.name), suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            if hasattr(os, "fchmod"):  # Windows has no such modes
                os.fchmod(file.fileno(), 0o666 & ~umask())
            os.fsync(file.fileno())
        os.replace(temporary, target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def half_written(file: Path, names: Collection[str]) -> bool:
    """Whether `file` is what a process left that was killed while it wrote one of `names`."""
    return file.suffix == ".tmp" and any(file.name.startswith(_hidden(name)) for name in names)


def _hidden(name: str) -> str:
    """How temporary names of a file begin; short, since names have a longest."""
    return f".{name[:60]}."


def refuse_to_replace(output: Path, beginning: re.Pattern[bytes], what: str) -> None:
    """Raise `UsageError` where a file stands that does not begin as `beginning` says, so that no earlier call made it: it is the user's.
    An empty one is nobody's."""
    try:
        if not output.is_file() or output.is_symlink():  # writing has words for it
            return
        with output.open("rb") as file:
            start = file.read(MOST_OF_A_BEGINNING)
    except OSError:
        return
    if start and not beginning.match(start):
        raise UsageError(f"-o is '{output}', which is there and was not {what}: choose another name, or remove it")


def refuse_special_target(target: Path) -> None:
    """Raise `OutputError` when `target` exists and is not a regular file."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {target}: it exists and is not a regular file; choose another name")


def real_path(path: str | os.PathLike[str]) -> Path:
    """Absolute, links followed as far as they lead: `Path.resolve` raises RuntimeError on a loop of them before Python 3.13."""
    return Path(os.path.realpath(path))


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Create `folder` and its parents; raises `OutputError` when that is not possible."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {path}: {error.strerror or error}") from error
    return path


def require_writable(folder: Path) -> None:
    """Raise `OutputError` where `folder` cannot be created, or written into: before long work, of which nothing could be kept.

    The only sure way is to try: access rights say nothing of a file system that is read-only.
    """
    import tempfile

    place = real_path(folder)
    place = next((there for there in (place, *place.parents) if there.exists()), place)
    try:
        with tempfile.TemporaryDirectory(prefix=".catvae-", dir=place):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {place}: {error.strerror or error}") from error


def lock(handle: int) -> bool:
    """Keep other processes that ask for it away from an open file or folder until it is closed; False where there are no such locks.

    Raises
    ------
    BlockingIOError
        When another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows, which refuses by itself to rename a file that is open
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems have none
        return False
    return True


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems refuse to sync a folder; the file itself is safe
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(*parts: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of bytes and one-dimensional views, one after the other; nothing is copied."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def pretty_json(value: Any) -> bytes:
    """`value`, plain or a struct, as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
