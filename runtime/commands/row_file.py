"""A file of rows that grows beside its final name: complete, it is renamed; interrupted, `--resume` goes on with it.

Until it is complete, rows are in ``NAME.part`` and what they were made with in ``NAME.part.json``.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ..errors import DataError, OutputError, UsageError
from ..files import atomic_write, lock, make_folder, refuse_special_target, umask
from ..names import UNKNOWN_NAME
from .rows import Row

LONGEST_ROW = 64 * 2**20


def part_of(output: Path) -> Path:
    """Where the rows of `output` are until it is complete."""
    return output.with_name(output.name + ".part")


def is_complete(output: Path) -> bool:
    """Whether `output` was finished with rows in it, and no other is under way."""
    return output.exists() and not part_of(output).exists() and output.stat().st_size > 0


class GrowingFile:
    """A row file while it is locked and written."""

    def __init__(self, part: Path, stream: TextIO, made_with: dict[str, Any]):
        self._part, self.stream, self._made_with = part, stream, made_with

    def earlier(self) -> Iterator[Row]:
        """The complete rows an interrupted call left, in order; a torn last line is then cut off. To be read to its end before writing.

        Raises
        ------
        UsageError
            When they were made with another model or other options.
        DataError
            When the file holds something else than rows.
        """
        if not os.fstat(self.stream.fileno()).st_size:
            return
        note = note_of(self._part)
        try:
            before = json.loads(note.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"{note} does not say what the rows of {self._part} were made with: start again without --resume") from error
        for key, value in self._made_with.items():
            if not isinstance(before, dict) or before.get(key) != value:
                name = f"choice of --{key}" if isinstance(value, bool) else key
                raise UsageError(
                    f"the rows in {self._part} were made with another {name}: give the same one, or start again without --resume"
                )
        with self._part.open("rb") as file:
            yield from _whole_rows(file, self._part)
            self.stream.truncate(file.tell())


def note_of(part: Path) -> Path:
    """Where it is written what the rows in `part` were made with."""
    return part.with_name(part.name + ".json")


@contextlib.contextmanager
def growing_file(output: Path, made_with: dict[str, Any], *, resume: bool = False, resumable: bool = True) -> Iterator[GrowingFile]:
    """A file that becomes `output` when the block ends well; after an exception the rows written so far stay beside it.

    Where nothing was written, an `output` from before stays as it is.

    Parameters
    ----------
    output : Path
    made_with : dict
        Kept for a later `GrowingFile.earlier`, which refuses rows made with something else.
    resume : bool
        Keep what is there, and append to it.
    resumable : bool
        Whether rows of this format can be gone on with.

    Raises
    ------
    OutputError
        When the file cannot be written, or another process writes it.
    """
    make_folder(output.parent)
    refuse_special_target(output)
    part = part_of(output)
    refuse_special_target(part)
    try:
        handle, locked = _open_locked(part)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            if not resume:
                if os.fstat(handle).st_size and not note_of(part).is_file():
                    raise OutputError(f"{part} is there and was not written by catvae-infer: move it away, or choose another -o")
                stream.truncate(0)
            if not os.fstat(handle).st_size:
                atomic_write(note_of(part), json.dumps(made_with))
            try:
                yield GrowingFile(part, stream, made_with)
            except BaseException:
                if locked:  # else another call may be about to write there
                    _remove_empty(part, stream)
                raise
            stream.flush()
            if not os.fstat(handle).st_size and output.exists():
                _remove_empty(part, stream)
                return
            os.fsync(handle)
            if locked:  # under the lock: a second call that came in between would begin the file anew, or lose its note to us
                note_of(part).unlink(missing_ok=True)
                os.replace(part, output)
        if not locked:
            note_of(part).unlink(missing_ok=True)
            os.replace(part, output)
    except OSError as error:
        rest = "; what is there can be continued with --resume" if resumable and part.is_file() and part.stat().st_size else ""
        raise OutputError(f"cannot write {part}: {error.strerror or error}{rest}") from error


def _remove_empty(part: Path, stream: TextIO) -> None:
    """Leave nothing behind where not a row was written, or a finished file beside it would count as unfinished."""
    with contextlib.suppress(OSError):
        stream.flush()
        if not os.fstat(stream.fileno()).st_size:
            part.unlink()
            note_of(part).unlink()


def _open_locked(part: Path) -> tuple[int, bool]:
    """A descriptor that appends to `part`, and whether it keeps other calls away; they may have renamed the file just before."""
    while True:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666 & ~umask())
        try:
            locked = lock(handle)
            if not locked or (part.exists() and os.path.samestat(part.stat(), os.fstat(handle))):
                return handle, locked
        except BlockingIOError as error:
            os.close(handle)
            raise OutputError(f"another catvae-infer is writing {part}: wait for it, or choose another -o") from error
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def complete_rows(output: Path) -> Generator[Row, None, None]:
    """The rows of a file that was finished; raises `DataError` when it holds something else, or ends within a row."""
    try:
        with output.open("rb") as file:
            yield from _whole_rows(file, output)
            if file.read(1):
                raise DataError(f"{output} ends within a row: start again without --resume")
    except OSError as error:
        raise DataError(f"cannot read {output}: {error.strerror or error}") from error


def complete_rows_of(output: Path, sources: Iterator[str], names: list[str], fields: dict[str, tuple[str, bool]]) -> Iterator[Row]:
    """The rows of a finished file, which must be of these sources, all of them, and made as they would be now: raises `UsageError`.

    Parameters
    ----------
    output : Path
    sources : iterator of str
    names, fields
        As for `made_otherwise`.
    """
    count = 0
    for row in skip_answered(complete_rows(output), sources, output):
        if other := made_otherwise(row, names, fields):
            raise UsageError(
                f"{output} is complete, but its rows were made with another {other}: choose another -o, or start again without --resume"
            )
        count += 1
        yield row
    more = next(sources, None)
    if more is not None:
        raise UsageError(
            f"{output} is complete with {count:,} rows, but the sources go on with {more!r}: choose another -o, or start again"
            " without --resume"
        )


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
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{where}, line {number}, is no row: start again without --resume") from error
        yield row


def made_otherwise(row: Row, names: list[str], fields: dict[str, tuple[str, bool]]) -> str | None:
    """The option, or ``bundle``, by which a finished row differs from what would be written now; None where it shows no difference.

    Parameters
    ----------
    row : Row
    names : list of str
        Of the clusters of the bundle, in their order.
    fields : dict
        For options that add a field: its name, and whether rows have it now.
    """
    if not row["ok"]:
        return None
    for option, (field, wanted) in fields.items():
        if (field in row) != wanted:
            return option
    cluster = row["cluster"]
    name = UNKNOWN_NAME if cluster < 0 else names[cluster] if cluster < len(names) else None
    assignment = row.get("assignment")
    same = name is not None and name == row.get("name") and isinstance(assignment, list) and len(assignment) == len(names)
    return None if same else "bundle"


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
