"""Rows on their way out: a table for people, JSON Lines and CSV for programs."""

import contextlib
import csv
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from ..errors import UsageError
from ..images.sources import STDIN
from ..wording import encodable, printable

Row = dict[str, Any]
Writer = Callable[[list[Row]], None]

BEGINNING = re.compile(rb'\{"path":"(\\.|[^"\\])*","ok":(true|false),|path,ok,cluster,name,|image +cluster  name +confidence')
"""Beginning of a file of rows, as jsonl, csv or table."""
DELETE = b"\x7f"
NOT_WRITTEN = frozenset({".xlsx", ".xls", ".ods", ".parquet", ".feather"})
"""Suffixes of tables that are no text: a program that goes by them could not read what is written."""
FORMULA = ("=", "+", "-", "@")
"""Beginnings that a spreadsheet takes for a formula: in a CSV such a path is written with ./ before it."""
_quick = msgspec.json.Encoder()


def resolve_format(format_: str, output: Path | None, *, embed: bool = False) -> str:
    """The format that is meant by ``auto``: a table on a terminal, by the suffix of a file, else jsonl.

    Raises
    ------
    UsageError
        When rows carry embeddings and the format has no room for them, or the file's name promises what is not written.
    """
    if output and output.suffix.lower() in NOT_WRITTEN:
        raise UsageError(f"-o {output}: rows are text; name a file .csv, which spreadsheets open, or .jsonl")
    if format_ == "auto":
        on_terminal = output is None and sys.stdout.isatty() and not embed
        format_ = {".csv": "csv"}.get(output.suffix.lower(), "jsonl") if output else "table" if on_terminal else "jsonl"
    if embed and format_ != "jsonl":
        raise UsageError(f"--embed needs --format jsonl: a {format_} has no room for a vector")
    return format_


def row_writer(format_: str, stream: TextIO, *, score: bool = False) -> Writer:
    """A function that writes a block of rows to `stream` as ``table``, ``csv`` or ``jsonl``."""
    return {"table": _table, "csv": _csv, "jsonl": _jsonl}[format_](stream, score)


def _jsonl(stream: TextIO, score: bool) -> Writer:
    def write(rows: list[Row]) -> None:
        stream.write(_quick_lines(rows) or "".join(map(_json_line, rows)))  # one call: a thread that writes may lose its turn

    return write


def _json_line(row: Row) -> str:
    """In ASCII, so that any file name survives any terminal and pipe."""
    return _quick_lines([row]) or json.dumps(row, separators=(",", ":")) + "\n"


def _quick_lines(rows: list[Row]) -> str:
    """Rows as lines of JSON in ASCII; empty where some text is not plain, which the quick encoder leaves as it is, or fails on."""
    with contextlib.suppress(UnicodeEncodeError):
        lines = _quick.encode_lines(rows)
        if lines.isascii() and DELETE not in lines:
            return lines.decode("ascii")
    return ""


def _csv(stream: TextIO, score: bool) -> Writer:
    writer = csv.writer(stream, lineterminator="\n")
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    columns = ["cluster", "name", "confidence", *(["score", "reason"] if score else []), "provider"]
    writer.writerow(["path", "ok", *columns, "error"])

    def fields(row: Row) -> list[Any]:
        path = encodable(row["path"])
        if path.startswith(FORMULA) and path != STDIN:
            path = os.path.join(".", path)
        if row["ok"]:
            answer = {"reason": "", **row}  # of an unknown image alone there is one
            return [path, "true", *(answer[column] for column in columns), ""]
        return [path, "false", *[""] * len(columns), f"{row['error']['code']}: {row['error']['message']}"]

    def write(rows: list[Row]) -> None:
        for line in map(fields, rows):
            # Python before 3.13 leaves a name with a carriage return unquoted, which readers take for two lines.
            (quoted if "\r" in line[0] else writer).writerow(line)

    return write


def _table(stream: TextIO, score: bool) -> Writer:
    import shutil  # it loads every compressor there is, 3 ms of a cold start

    room = max(16, min(60, shutil.get_terminal_size((100, 24)).columns - 50 - 12 * score))
    stream.write(f"{'image':<{room}}  {'cluster':>7}  {'name':<14}  {'confidence':>10}{'  score, nats' if score else ''}\n")

    def line(row: Row) -> str:
        path = printable(row["path"])
        path = path if len(path) <= room else "..." + path[3 - room :]
        if row["ok"]:
            last = f"  {row['score']:>11.1f}" if score else ""
            return f"{path:<{room}}  {row['cluster']:>7}  {printable(row['name'])[:14]:<14}  {row['confidence']:>10.3f}{last}\n"
        return f"{path:<{room}}  {'-':>7}  {row['error']['code']}: {printable(row['error']['message'])}\n"

    def write(rows: list[Row]) -> None:
        stream.write("".join(map(line, rows)))

    return write
