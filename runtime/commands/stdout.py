"""Standard output for rows alone: libraries that print, from Python or from C, print to standard error meanwhile."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from ..interruption import Interrupted


@contextlib.contextmanager
def rows_stream() -> Iterator[TextIO]:
    """A stream on the real standard output, while file descriptor 1 leads to standard error.

    onnxruntime prints its complaints about providers to standard output; one such line would break a reader of JSON Lines.
    """
    sys.stdout.flush()
    try:
        number = sys.stdout.fileno()
    except (OSError, io.UnsupportedOperation):  # not a real file, as under a test runner: there is no descriptor to guard
        yield sys.stdout
        return
    private = os.dup(number)
    stream = os.fdopen(private, "w", encoding=sys.stdout.encoding, errors="backslashreplace", newline="\n")
    os.dup2(2, number)
    try:
        try:
            yield stream
        except Interrupted as interruption:
            if not interruption.cut:
                stream.flush()
            raise
        stream.flush()
    except (BrokenPipeError, Interrupted, KeyboardInterrupt):
        os.dup2(os.open(os.devnull, os.O_WRONLY), private)  # closing the stream writes what is left: to a reader that is gone, or stalls
        raise
    finally:
        sys.stdout.flush()
        os.dup2(private, number)
        stream.close()
