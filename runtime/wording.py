"""What people read: numbers in sentences, text that a terminal can show, lines on standard error."""

import os
import sys


def say(line: str, *, quiet: bool = False) -> None:
    """One line on standard error, which belongs to people; standard output belongs to results."""
    if quiet:
        return
    try:
        print(printable(line), file=sys.stderr, flush=True)
    except OSError:  # a full disc, or a reader that went away: what is said must not end what is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def counted(number: int, what: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def one_line(text: object) -> str:
    """Its words with single spaces between them."""
    return " ".join(str(text).split())


def printable(text: str) -> str:
    """`text` without anything that could move a terminal's cursor; bytes that are no UTF-8 shown escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in encodable(text))


def encodable(text: str) -> str:
    """`text` with what is no UTF-8 shown escaped: a file name's bytes, or half a letter, as names on Windows may hold."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()


def typed(path: object) -> str:
    """A path as it is typed in a shell: quoted where it holds spaces and the like."""
    import shlex  # only a few messages need it

    return shlex.quote(str(path))
