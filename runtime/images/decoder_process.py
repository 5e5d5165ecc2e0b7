"""A second process that decodes: of threads, the interpreter's lock lets one at a time decode tiny images, which is mostly Python's work.

It is a program of its own (`decoder_program`), asked over its standard input and answering over its standard output: it ends when we do,
whatever ends us. Nothing depends on it. Where it cannot be started, does not get ready, or dies, images are decoded here, to the same
pixels.

The program does without numpy, and this module imports Pillow with the first question alone: started first of all, it decodes before the
model is ready.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections import deque
from typing import IO, TYPE_CHECKING

from ..processors import NO_BLAS_THREADS, default_threads

if TYPE_CHECKING:
    import subprocess

    from .image_files import DecodedBlock
    from .preprocess import Preprocess

MANY = 2000
"""Images that are worth a second process, which takes a processor some time to start."""
PROGRAM = f"{__package__}.decoder_program"
ASKED_AHEAD = 3
"""Requests it may have, so that it need not wait for us."""
SMALLEST_PIPE = 4096
"""What a user who holds many pipes is given for one; elsewhere none is smaller."""
ANSWERS, REQUESTS = 1 << 20, 1 << 18
"""Bytes of the pipes, where the system lets us choose: what is decoded while we are busy, some 1,300 images of 28 x 28, waits in one."""
START = 5.0
"""Seconds that are waited for it to get ready once there is nothing else to do."""


def second_process() -> DecoderProcess | None:
    """One that decodes beside us; None where there is no processor for it."""
    return DecoderProcess() if default_threads() > 1 else None


class DecoderProcess:
    """The process, which gets ready while the caller goes on. Answers come in the order of the requests."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._asked: deque[int] = deque()
        """Bytes of the requests that are not answered yet."""
        if not hasattr(select, "poll") or not sys.executable or getattr(sys, "frozen", False):
            return  # Windows cannot wait for pipes; a program that embeds Python has no interpreter to start
        import subprocess  # 4 ms of a cold start that a few images do not need

        command, pipe, quiet = [sys.executable, "-P", "-m", PROGRAM], subprocess.PIPE, subprocess.DEVNULL
        try:  # a session of its own: Ctrl-C is for the caller to handle
            self._process = subprocess.Popen(command, 0, None, pipe, pipe, quiet, start_new_session=True, env=NO_BLAS_THREADS | os.environ)
        except OSError:
            return
        _enlarge(self._stdin.fileno(), REQUESTS)
        _enlarge(self._stdout.fileno(), ANSWERS)
        self._room = _pipe_size(self._stdin.fileno()) // 4
        """Bytes of requests that may be on their way: we must never wait to be heard while it waits to be read."""
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)

    @property
    def pid(self) -> int | None:
        """Number of the process; None where it is gone."""
        return self._process.pid if self._process else None

    def has_room(self) -> bool:
        """Whether it is ready and would like to be asked."""
        self._get_ready(0)
        return self._process is not None and self._ready and len(self._asked) < ASKED_AHEAD

    def _get_ready(self, seconds: float) -> None:
        """Look for its first sign of life."""
        if self._process and not self._ready and self._poll.poll(1000 * seconds):
            from .decoder_program import READY

            self._ready = self._stdout.read(1) == READY
            if not self._ready:
                self.close()

    def ask(self, sources: list[str], rules: Preprocess) -> bool:
        """Ask for the sources to be decoded, ready or not; False where it cannot take this much, or is gone."""
        from .decoder_program import question, write_message

        if self._process is None:
            return False
        try:
            request = question(sources, rules)
        except UnicodeError:  # a name that this system cannot write
            return False
        # Beyond the room, a first request is read at once, by one that is ready.
        if (self._asked or not self._ready) and sum(self._asked) + len(request) > self._room:
            return False
        try:
            write_message(self._stdin, request)
        except OSError:
            self.close()
            return False
        self._asked.append(len(request))
        return True

    def answered(self) -> bool:
        """Whether `answer` would not wait long."""
        self._get_ready(0)
        return self._process is None or (self._ready and bool(self._poll.poll(0)))

    def answer(self) -> DecodedBlock | None:
        """The result of `decode_all` for the oldest request; None when the process has died."""
        self._get_ready(START)
        if not self._ready:
            self.close()
        if self._process is None:
            return None
        from .decoder_program import read_answer

        found = read_answer(self._stdout)
        if found is None:
            self.close()
            return None
        self._asked.popleft()
        return found

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._stdin.close()
            self._stdout.close()
            self._process = None

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout


def _enlarge(handle: int, size: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # a setting that only Linux has, and grants to who holds few pipes
        import fcntl

        fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, size)


def _pipe_size(handle: int) -> int:
    try:
        import fcntl

        return fcntl.fcntl(handle, fcntl.F_GETPIPE_SZ)
    except (ImportError, AttributeError, OSError):  # a question that only Linux answers
        return SMALLEST_PIPE
