"""A file of rows that grows beside its final name: complete, it is renamed; interrupted, `--resume` goes on with it.

Until it is complete, rows are in ``NAME.part`` and what they were made with in ``NAME.part.json``.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from .errors import DataError, OutputError, UsageError
from .files import atomic_write, make_folder, refuse_special_target, umask

Row = dict[str, Any]
LONGEST_ROW = 64 * 2**20


def part_of(output: Path) -> Path:
    """Where the rows of `output` are until it is complete."""
    return output.with_name(output.name + ".part")


@contextlib.contextmanager
def growing_file(output: Path, made_with: dict[str, Any], *, resume: bool = False) -> Iterator[TextIO]:
    """A text stream that becomes `output` when the block ends well; after an exception what was written stays beside it.

    Parameters
    ----------
    output : Path
    made_with : dict
        Kept for `earlier_rows`, which refuses rows made with something else.
    resume : bool
        Append to what is there.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    make_folder(output.parent)
    refuse_special_target(output)
    part = part_of(output)
    refuse_special_target(part)
    note = part.with_name(part.name + ".json")
    try:
        fresh = not resume or not part.exists()
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666 & ~umask())
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            _lock(handle, part)
            if fresh:
                stream.truncate(0)
                atomic_write(note, json.dumps(made_with))
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, output)
        note.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {part}: {error.strerror or error}; what is there can be continued with --resume") from error


def _lock(handle: int, part: Path) -> None:
    """Keep a second call away from the rows of a first one that still runs, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows refuses by itself to rename a file that is open
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"another catvae-infer is writing {part}: wait for it, or choose another -o") from error


def earlier_rows(output: Path, made_with: dict[str, Any]) -> Iterator[Row]:
    """The complete JSON rows an interrupted call left for `output`, in order; a torn last line is cut off the file.

    Raises
    ------
    UsageError
        When they were made with another model or other options.
    DataError
        When the file holds something else than rows.
    """
    part = part_of(output)
    if not part.is_file():
        return
    try:
        before = json.loads(part.with_name(part.name + ".json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{part}.json does not say what the rows of {part} were made with: start again without --resume") from error
    for key, value in made_with.items():
        if not isinstance(before, dict) or before.get(key) != value:
            raise UsageError(f"the rows in {part} were made with another {key}: give the same one, or start again without --resume")
    with part.open("r+b") as file:
        yield from _whole_rows(file, part)
        file.truncate()


def complete_rows(output: Path) -> Iterator[Row]:
    """The rows of a file that was finished; raises `DataError` when it holds something else, or ends within a row."""
    try:
        with output.open("rb") as file:
            yield from _whole_rows(file, output)
            if file.read(1):
                raise DataError(f"{output} ends within a row: start again without --resume")
    except OSError as error:
        raise DataError(f"cannot read {output}: {error.strerror or error}") from error


def _whole_rows(file: BinaryIO, where: Path) -> Iterator[Row]:
    """Rows up to the end, or to a torn last line; there the file is left."""
    for number in itertools.count(1):
        start, line = file.tell(), file.readline(LONGEST_ROW)
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        try:
            row = json.loads(line)
            whole = isinstance(row["path"], str) and isinstance(row["ok"], bool)
            if not whole or (row["ok"] and not isinstance(row["cluster"], int)):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{where}, line {number}, is no row: start again without --resume") from error
        yield row


def skip_answered(earlier: Iterable[Row], sources: Iterator[str], part: Path) -> Iterator[Row]:
    """Pass earlier rows on while taking their sources off `sources`; raises `UsageError` when these are not the same ones."""
    for number, row in enumerate(earlier, 1):
        source = next(sources, None)
        if source != row["path"]:
            now = "they end before" if source is None else f"they now give {source!r}"
            raise UsageError(
                f"row {number} of {part} is of {row['path']!r}, but {now}: give the same sources in the same order, or start again"
                " without --resume"
            )
        yield row
