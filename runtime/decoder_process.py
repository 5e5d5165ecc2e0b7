"""A second process that decodes: of threads, the interpreter's lock lets one at a time decode tiny images, which is mostly Python's work.

It is a program of its own (`decoder_program`), asked over its standard input and answering over its standard output: it ends when we do,
whatever ends us. Nothing depends on it. Where it cannot be started, is not ready, or dies, images are decoded here, to the same pixels.

Pillow is imported here with the first question, numpy never is there: who starts it first of all has it decoding before the model is ready.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections import deque
from typing import IO, TYPE_CHECKING

from .processors import NO_BLAS_THREADS, default_threads

if TYPE_CHECKING:
    import subprocess

    from .images import DecodedBlock, Preprocess

MANY = 2000
"""Images that are worth a second process: its start costs a tenth of a second of a processor."""
PROGRAM = f"{__package__}.decoder_program"
ASKED_AHEAD = 3
"""Requests it may have, so that it need not wait for us."""
SMALLEST_PIPE = 4096
"""What a user who holds many pipes is given for one; elsewhere none is smaller."""
PIPE = 1 << 20
"""Bytes of a pipe, where the system lets us choose: what is decoded while we are busy, some 1,300 images of 28 x 28, waits in it."""


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
        _enlarge(self._stdin.fileno(), self._stdout.fileno())
        self._room = _pipe_size(self._stdin.fileno()) // 4
        """Bytes of requests that may be on their way: we must never wait to be heard while it waits to be read."""
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)

    @property
    def pid(self) -> int | None:
        """Of the process; None where it is gone."""
        return self._process.pid if self._process else None

    def has_room(self) -> bool:
        """Whether it is ready and would like to be asked."""
        if not self._ready and self.answered():
            self._get_ready()
        return self._process is not None and self._ready and len(self._asked) < ASKED_AHEAD

    def _get_ready(self) -> None:
        """Wait for its first sign of life."""
        from .decoder_program import READY

        if self._process and not self._ready:
            self._ready = self._stdout.read(1) == READY
            if not self._ready:
                self.close()

    def ask(self, sources: list[str], rules: Preprocess) -> bool:
        """Ask for the sources to be decoded, ready or not; False where it cannot take this much, or is gone."""
        from .decoder_program import question, write_message

        if self._process is None:
            return False

        request = question(sources, rules)
        if self._asked and sum(self._asked) + len(request) > self._room:
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
        return self._process is None or bool(self._poll.poll(0))

    def answer(self) -> DecodedBlock | None:
        """What `decode_all` gives for the oldest request; None when the process has died."""
        self._get_ready()
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


def _enlarge(*handles: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # a setting that only Linux has, and grants to who holds few pipes
        import fcntl

        for handle in handles:
            fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, PIPE)


def _pipe_size(handle: int) -> int:
    try:
        import fcntl

        return fcntl.fcntl(handle, fcntl.F_GETPIPE_SZ)
    except (ImportError, AttributeError, OSError):  # a question that only Linux answers
        return SMALLEST_PIPE
