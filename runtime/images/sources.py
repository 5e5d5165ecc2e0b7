"""Which files are images, and from arguments, lists and folders to a stream of them, in the order given, folders sorted."""

import glob
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..errors import DataError, UsageError
from ..ours import left_by_us
from ..wording import counted

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Suffixes of the formats that `image_files` reads."""
NOT_READ = frozenset({".heic", ".heif", ".avif", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".svg", ".ppm", ".pgm", ".tga"})
"""Suffixes of pictures that it does not read."""
STDIN = "-"
LINE = 20
"""Bytes of a path in a list, at least, usually."""


def expand(arguments: Iterable[str], warn: Callable[[str], None] = lambda _line: None) -> Iterator[str]:
    """Yield file paths: files as they are, folders searched for images, patterns expanded, ``-`` passed on.

    What does not exist, or matches nothing, is yielded too, and becomes an error row in its place. `warn` receives a line for what is
    passed over inside a folder, see `walk_images`.
    """
    for argument in arguments:
        if argument == STDIN or os.path.isfile(argument):
            yield argument
        elif os.path.isdir(argument):
            yield from walk_images(argument, warn)
        elif glob.has_magic(argument):
            yield from sorted({path for path in _matches(argument) if not os.path.isdir(path)}) or [argument]
        else:
            yield argument


def _matches(pattern: str) -> Iterator[str]:
    """The paths that match a pattern; its ``**`` does not follow links to folders, which may lead back to where they are."""
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    rest = parts[at + 1 :] or ["*"]
    for top in glob.iglob(os.sep.join([*parts[:at], ""])) if at else [""]:
        for parent, folders, _ in os.walk(top or os.curdir):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = os.path.relpath(parent, top or os.curdir)
            here = top if inside == os.curdir else os.path.join(top, inside)
            yield from _matches(os.path.join(glob.escape(here), *rest))


def folders_searched(argument: str) -> list[str]:
    """The folders that `expand` looks through at any depth for an argument: itself, or those before the ``**`` of a pattern."""
    if os.path.isdir(argument):
        return [argument]
    parts = argument.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        return []
    before = os.sep.join(parts[: parts.index("**")])
    return glob.glob(before) if before else [os.sep if argument.startswith(os.sep) else os.curdir]


def at_least(many: int, arguments: Sequence[str], list_file: str | None) -> bool:
    """Whether so many sources are seen to come, at a glance: named, in a folder itself, or by the size of a list."""
    if len(arguments) >= many:
        return True
    try:
        if list_file not in (None, STDIN) and os.path.getsize(list_file) >= many * LINE:
            return True
        for argument in arguments:
            if os.path.isdir(argument):
                with os.scandir(argument) as entries:
                    if next(itertools.islice(entries, many - 1, None), None):
                        return True
    except OSError:
        pass  # whoever reads it says so
    return False


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8); raises `UsageError`."""
    part, _, parts = text.partition("/")
    numbers = part.isdecimal() and parts.isdecimal() and max(len(part), len(parts)) <= 9  # Python refuses to read thousands of digits
    if not (numbers and 1 <= int(part) <= int(parts)):
        raise UsageError(f"--shard is '{text}', expected i/n with 1 <= i <= n, such as 2/8")
    return int(part), int(parts)


def shard_of(paths: Iterable[str], part: int, parts: int) -> Iterator[str]:
    """The paths that fall to part 1..parts, by a hash of the path: the same whatever else is listed, and every path in just one part."""
    return (path for path in paths if zlib.crc32(os.fsencode(path)) % parts == part - 1)


def walk_images(folder: str, warn: Callable[[str], None] = lambda _line: None) -> Iterator[str]:
    """Image files below `folder`, depth first, each folder in sorted order; hidden files and folders are passed over.

    A folder that cannot be listed is yielded itself and becomes an error row. `warn` receives a line for each link to a folder, which is
    not followed, for each run and bundle, which are passed over, and for pictures of formats that are not read.
    """
    closed: list[str] = []
    unread: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder, onerror=lambda error: closed.append(error.filename)):
        yield from closed
        closed.clear()
        if what := left_by_us(names):
            warn(f"left out {parent}: it is {what}")
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(linked := os.path.join(parent, name)):
                warn(f"left out {linked}: a link to a folder")
        yield from (os.path.join(parent, name) for name in sorted(names) if is_image_name(name))
        unread.update(suffix for name in names if (suffix := os.path.splitext(name)[1].lower()) in NOT_READ and not name.startswith("."))
    yield from closed
    for suffix, count in sorted(unread.items()):
        warn(f"left out {counted(count, suffix + ' file')} below {folder}: convert to PNG or JPEG first")


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def read_list(path: str, before: Iterable[str] = ()) -> Iterator[str]:
    """Yield `before`, then the paths in a list file, a line each (``-`` reads standard input); nothing is read ahead.

    Raises
    ------
    DataError
        When the list cannot be read.
    """
    yield from before
    try:
        # Bytes that are no UTF-8 pass through as they do in every path Python hands out.
        with open(
            0 if path == STDIN else path, encoding="utf-8-sig", errors="surrogateescape", newline="\n", closefd=path != STDIN
        ) as lines:
            for line in lines:
                name = line.rstrip("\r\n")
                if name:
                    yield os.path.join(".", name) if name == STDIN else name  # in a list it is a file of that name
    except OSError as error:
        raise DataError(f"cannot read the list {path}: {error.strerror or error}") from error
