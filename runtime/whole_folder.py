"""Output folders that appear whole or not at all, and that take the place of nothing but what an earlier export wrote.

What belongs in them is the caller's: a bundle, a renamed one, a page, a model repository.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from .errors import OutputError, UsageError
from .files import atomic_write, make_folder, umask
from .ours import MANIFEST

LAST = (MANIFEST, "index.html")
"""Files whose presence marks a folder as complete; they are moved last."""


@contextlib.contextmanager
def whole_folder(output: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A hidden folder to be filled, which becomes `output` when the block ends well.

    Parameters
    ----------
    output : Path
        Absent, or an empty folder, which may be a mount or a link and stays the one it is.
    overwrite : bool
        It may hold something, which is removed once the new folder is there.

    Raises
    ------
    OutputError
        When it cannot be written; `output` is as it was.
    """
    make_folder(output.parent)
    # The working folder may be the one that is renamed: relative names would then lead elsewhere.
    output = output.resolve() if output.name in ("", "..") else output.parent.resolve() / output.name
    empty = output.is_dir() and not any(output.iterdir())
    try:
        staging = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=output)) if empty else _beside(output, ".tmp")
    except OSError as error:
        raise OutputError(f"cannot write {'into' if empty else 'beside'} {output}: {error.strerror or error}") from error
    try:
        staging.chmod(0o777 & ~umask())
        yield staging
        if empty:
            _move_up(staging, output)
        elif overwrite and output.is_dir():
            _take_its_place(staging, output)
        else:
            os.rename(staging, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_folder(output: Path, files: Mapping[str, bytes | str], *, overwrite: bool = False) -> None:
    """`whole_folder`, filled with `files`, named relative to it."""
    with whole_folder(output, overwrite=overwrite) as staging:
        for name, data in files.items():
            atomic_write(staging / name, data)


def _move_up(staging: Path, output: Path) -> None:
    """Move the content of `staging` into the folder around it; `LAST` comes last."""
    if [name for name in os.listdir(output) if name != staging.name]:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    moved = []
    try:
        for name in sorted(os.listdir(staging), key=lambda name: (name in LAST, name)):
            os.rename(staging / name, output / name)
            moved.append(name)
    except BaseException:  # a signal too
        for name in moved:
            os.rename(output / name, staging / name)
        raise


def _take_its_place(staging: Path, output: Path) -> None:
    old = _beside(output, ".old")
    try:
        os.rename(output, old / output.name)
        os.rename(staging, output)
    except BaseException:  # a signal too: between the two nothing has that name
        if not output.exists():
            os.rename(old / output.name, output)
            shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: something else has the name, and what had it before is kept there
            old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)  # the new one is in place, whatever becomes of the old


def _beside(output: Path, suffix: str) -> Path:
    """A new hidden folder; of a name that fills what a file system allows only the beginning is taken."""
    return Path(tempfile.mkdtemp(prefix=f".{output.name[:60]}.", suffix=suffix, dir=output.parent))


def refuse_others(output: Path, ours: Collection[str], mark: str, what: str, *, overwrite: bool) -> None:
    """Raise `UsageError` when `output` holds anything that a new one of ours may not take the place of.

    Parameters
    ----------
    output : Path
    ours : collection of str
        Every file that one may hold, relative to it.
    mark : str
        The file that marks one of ours.
    what : str
        What it is called: "page".
    overwrite : bool
        Whether one that is there may be replaced.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    known = output.is_dir() and not output.is_symlink() and (output / mark).is_file()
    if not (known and overwrite):
        raise UsageError(f"{output} is not empty: choose another folder{f', or replace the {what} with --overwrite' if known else ''}")
    refuse_strangers(output, ours)


def refuse_strangers(folder: Path, ours: Collection[str]) -> None:
    """Raise `UsageError` when `folder` holds anything, hidden or not, but the files `ours`, named relative to it."""
    folders = {str(parent) for name in ours for parent in Path(name).parents}
    for parent, inside, names in os.walk(folder):
        here = Path(parent).relative_to(folder)
        for name in (*inside, *names):
            if (found := (here / name).as_posix()) not in ours and found not in folders:
                raise UsageError(f"{folder} holds {found!r}, which --overwrite would remove: move it away, or choose another folder")
