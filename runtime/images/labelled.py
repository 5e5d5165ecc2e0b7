"""A few images whose class is known: a folder with one sub-folder per class, or a CSV file of path and class."""

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError
from ..names import UNKNOWN_NAME, refusal
from .image_files import read_image
from .preprocess import Preprocess
from .sources import NOT_READ, SUFFIXES, is_image_name, walk_images

HEADERS = frozenset({"path", "file", "filename", "file_name", "image", "image_path"})
"""Names that the first cell of a CSV file's header may have."""
ANSWERS = ["path", "ok", "cluster", "name"]
"""Beginning of the header of rows that `catvae-infer` wrote. Their paths are relative to the folder it was called in."""
CLASSES = "class", "label", "category", "kind", "name"
"""Names that the column of classes may have where there are more than two; `catvae-infer` writes names."""


class LabelledImages(NamedTuple):
    """Decoded images and their classes."""

    images: NDArray[np.uint8]
    """(N, H, W, C)."""
    labels: NDArray[np.int64]
    """(N,), into `names`."""
    names: tuple[str, ...]
    paths: tuple[str, ...]


def read_labelled(source: str | os.PathLike[str], preprocess: Preprocess) -> LabelledImages:
    """Read labelled images for a model's preprocessing.

    Parameters
    ----------
    source : path
        A folder: every image below ``SOURCE/CLASS/`` belongs to CLASS. A CSV file: rows of path, class; paths are relative to the file. A
        header, ``path,class`` say, may come first; where there are more columns it must, and name one of `CLASSES`. Of rows of
        `catvae-infer` those without a name count for nothing, and paths are relative to the present folder, else to the file.
    preprocess : Preprocess

    Raises
    ------
    DataError
        When there is nothing to read, a row has no class or a path two, an image cannot be decoded, lies in no sub-folder or behind a
        link, or is of a kind that is not read, or a sub-folder has files and no images: a label given by hand is not dropped silently.
    """
    source = Path(source)
    pairs = _folder_pairs(source) if source.is_dir() else _csv_pairs(source)
    if not pairs:
        wanted = "one sub-folder per class with images in it" if source.is_dir() else "rows of path, class"
        raise DataError(f"{source} holds no labelled images: expected {wanted}")
    names = tuple(sorted({name for _, name in pairs}))
    for name in names:
        if why := refusal(name):
            raise DataError(f"{source}: {why}")
    images = []
    for path, _ in pairs:
        try:
            images.append(read_image(path, preprocess))
        except ImageError as error:
            where = ""
            if error.code == "missing" and not os.path.isabs(path):
                where = "; paths in a table begin at its own folder, in rows of catvae-infer at the present one"
            raise DataError(f"{source}: {path}: {error}{where}") from error
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[name] for _, name in pairs], dtype=np.int64)
    return LabelledImages(np.stack(images), labels, names, tuple(path for path, _ in pairs))


def _folder_pairs(folder: Path) -> list[tuple[str, str]]:
    def refuse(line: str) -> None:
        raise DataError(f"{folder}: {line}; every image must lie below the sub-folder of its class")

    pairs = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if is_image_name(entry.name) or entry.suffix.lower() in NOT_READ:
                refuse(f"{entry.name} lies in no sub-folder")
            continue
        if entry.is_symlink():
            refuse(f"{entry.name} is a link to a folder")
        files = [file for file in entry.rglob("*") if file.is_file() and not _hidden(file, entry)]
        unread = [file for file in files if file.suffix.lower() in NOT_READ]
        images = [] if unread else list(walk_images(str(entry), refuse))
        if unread or (files and not images):
            first = (unread or files)[0]
            refuse(f"{first.relative_to(folder)} is not of a kind that is read ({', '.join(sorted(SUFFIXES))})")
        pairs += [(path, entry.name) for path in images]
    return pairs


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _csv_pairs(file: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    classes: dict[str, str] = {}
    column, columns, first, answers = 1, 2, True, False
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                while len(cells) > columns and not cells[-1]:  # spreadsheets fill rows up
                    cells.pop()
                if first and cells[0].lower() in HEADERS and not (file.parent / cells[0]).is_file():
                    column, columns, first = _column_of_classes(cells, file), len(cells), False
                    answers = cells[: len(ANSWERS)] == ANSWERS
                    continue
                first = False
                if answers and len(cells) > column and (cells[1].lower() == "false" or cells[column] in ("", UNKNOWN_NAME)):
                    continue
                if not column < len(cells) <= columns or not cells[0] or not cells[column]:
                    raise DataError(f"{file}, line {number}: {_expected(cells, column, columns)}, found {','.join(row)!r}")
                path, name = str(file.parent / cells[0]), cells[column]
                if answers and os.path.exists(cells[0]):
                    path = cells[0]
                known = classes.setdefault(os.path.realpath(path), name)
                if known != name:
                    raise DataError(f"{file}, line {number}: {cells[0]} is {name!r} here and {known!r} above")
                pairs.append((path, name))
    except OSError as error:
        raise DataError(f"cannot read the labels {file}: {error.strerror or error}") from error
    except csv.Error as error:
        raise DataError(f"{file} is not a CSV file: {error}") from error
    return pairs


def _column_of_classes(header: list[str], file: Path) -> int:
    """Of a CSV file's header: by its name, where there are more than a path and a class."""
    if len(header) == 2:
        return 1
    named = [header.index(cell) for name in CLASSES for cell in header if cell.lower() == name]
    if not named:
        raise DataError(f"{file}, line 1: no column of {', '.join(header)!r} is called {', '.join(CLASSES[:-1])} or {CLASSES[-1]}")
    return named[0]


def _expected(cells: list[str], column: int, columns: int) -> str:
    if len(cells) == 1 and ";" in cells[0]:
        return "expected path,class with a comma between them"
    if columns == 2:
        return f"expected path,class{', or a first line that says which column is which' if len(cells) > 2 else ''}"
    return f"expected a path and, in column {column + 1} of {columns}, a class"
