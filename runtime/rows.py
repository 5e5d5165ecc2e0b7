"""Rows on their way out: a table for people, JSON Lines and CSV for programs."""

import contextlib
import csv
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from .errors import OutputError, UsageError
from .files import make_folder, refuse_special_target, umask

Row = dict[str, Any]
Writer = Callable[[Row], None]


@contextlib.contextmanager
def open_writer(format_: str, output: Path | None, *, embed: bool = False) -> Iterator[Writer]:
    """A function that writes rows to standard output, or to a file that appears under its name once it is complete.

    Parameters
    ----------
    format_ : str
        ``table``, ``jsonl``, ``csv``, or ``auto``: a table on a terminal, else jsonl.
    output : Path, optional
    embed : bool
        Rows carry embeddings, which only jsonl can hold.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    if format_ == "auto":
        on_terminal = output is None and sys.stdout.isatty() and not embed
        format_ = {".csv": "csv"}.get(output.suffix, "jsonl") if output else "table" if on_terminal else "jsonl"
    if embed and format_ != "jsonl":
        raise UsageError(f"--embed needs --format jsonl: a {format_} has no room for a vector")
    if output is None:
        yield _formats(format_, sys.stdout)
        sys.stdout.flush()
        return
    make_folder(output.parent)
    refuse_special_target(output)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{output.name[:60]}.", suffix=".tmp", dir=output.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield _formats(format_, file)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~umask())
            os.fsync(file.fileno())
        os.replace(temporary, output)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _formats(format_: str, stream: TextIO) -> Writer:
    return {"table": _table, "csv": _csv, "jsonl": _jsonl}[format_](stream)


def _jsonl(stream: TextIO) -> Writer:
    def write(row: Row) -> None:
        # ASCII, so that any file name survives any terminal and pipe; floats as short as float32 allows.
        stream.write(json.dumps(_shortened(row), ensure_ascii=True) + "\n")

    return write


def _csv(stream: TextIO) -> Writer:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "ok", "cluster", "name", "confidence", "provider", "error"])

    def write(row: Row) -> None:
        path = row["path"].encode(errors="surrogateescape").decode(errors="backslashreplace")
        if row["ok"]:
            writer.writerow([path, "true", row["cluster"], row["name"], f"{row['confidence']:.6g}", row["provider"], ""])
        else:
            writer.writerow([path, "false", "", "", "", "", f"{row['error']['code']}: {row['error']['message']}"])

    return write


def _table(stream: TextIO) -> Writer:
    room = max(16, min(60, shutil.get_terminal_size((100, 24)).columns - 50))
    stream.write(f"{'image':<{room}}  {'cluster':>7}  {'name':<14}  {'confidence':>10}\n")

    def write(row: Row) -> None:
        path = printable(row["path"])
        path = path if len(path) <= room else "..." + path[3 - room :]
        if row["ok"]:
            stream.write(f"{path:<{room}}  {row['cluster']:>7}  {printable(row['name'])[:14]:<14}  {row['confidence']:>10.3f}\n")
        else:
            stream.write(f"{path:<{room}}  {'-':>7}  {row['error']['code']}: {printable(row['error']['message'])}\n")

    return write


def printable(text: str) -> str:
    """`text` without anything that could move a terminal's cursor; bytes that are no UTF-8 shown escaped."""
    clean = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in clean)


def _shortened(row: Row) -> Row:
    """Floats cut to what a float32 holds (9 significant digits), so that rows are short and read back exactly."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.9g}")
        return [short(item) for item in value] if isinstance(value, list) else value

    return {key: short(value) for key, value in row.items()}
