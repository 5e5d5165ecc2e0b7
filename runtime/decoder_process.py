"""A second process that decodes: of threads, the interpreter's lock lets one at a time decode tiny images, which is mostly Python's work.

It is a program of its own, asked over its standard input and answering over its standard output: it ends when we do, whatever ends us.
Nothing depends on it. Where it cannot be started, is not ready, or dies, images are decoded here, to the same pixels.
"""

import contextlib
import os
import select
import struct
import subprocess
import sys
from collections import deque
from typing import IO

import msgspec
import numpy as np

from .errors import ImageError
from .images import DecodedBlock, Preprocess, decode_all

READY = b"+"
LENGTH = struct.Struct("<Q")
ASKED_AHEAD = 3
"""Requests it may have, so that it need not wait for us."""
SMALLEST_PIPE = 4096
"""What a user who holds many pipes is given for one; elsewhere none is smaller."""


class Request(msgspec.Struct, array_like=True):
    """Sources as the file system writes them, which need not be text."""

    sources: list[bytes]
    rules: Preprocess


class Answer(msgspec.Struct, array_like=True):
    """A `DecodedBlock`; errors as code and message."""

    frames: list[int | tuple[str, bytes]]
    shape: tuple[int, int, int, int]
    pixels: bytes


class DecoderProcess:
    """The process, which gets ready while the caller goes on. Answers come in the order of the requests."""

    def __init__(self) -> None:
        self._process = None
        self._ready = False
        self._asked: deque[int] = deque()
        """Bytes of the requests that are not answered yet."""
        if not hasattr(select, "poll") or not sys.executable or getattr(sys, "frozen", False):
            return  # Windows cannot wait for pipes; a program that embeds Python has no interpreter to start
        command = [sys.executable, "-P", "-m", __name__]
        pipe = subprocess.PIPE
        try:  # a session of its own: Ctrl-C is for the caller to handle
            self._process = subprocess.Popen(command, 0, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True)
        except OSError:
            return
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
        if self._process and not self._ready and self.answered():
            self._ready = self._stdout.read(1) == READY
            if not self._ready:
                self.close()
        return self._process is not None and self._ready and len(self._asked) < ASKED_AHEAD

    def ask(self, sources: list[str], rules: Preprocess) -> bool:
        """Ask for the sources to be decoded, where it `has_room`; False where it cannot take this much, or is gone."""
        request = msgspec.msgpack.encode(Request([os.fsencode(source) for source in sources], rules))
        if self._asked and sum(self._asked) + len(request) > self._room:
            return False
        try:
            _write(self._stdin, request)
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
        if self._process is None:
            return None
        try:
            answer = msgspec.msgpack.decode(_read(self._stdout), type=Answer)
        except (OSError, EOFError, msgspec.DecodeError):
            self.close()
            return None
        self._asked.popleft()
        frames = [frame if isinstance(frame, int) else ImageError(frame[0], os.fsdecode(frame[1])) for frame in answer.frames]
        return DecodedBlock(frames, np.frombuffer(answer.pixels, np.uint8).reshape(answer.shape))

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


def _pipe_size(handle: int) -> int:
    try:
        import fcntl

        return fcntl.fcntl(handle, fcntl.F_GETPIPE_SZ)
    except (ImportError, AttributeError, OSError):  # a question that only Linux answers
        return SMALLEST_PIPE


def _write(stream: IO[bytes], data: bytes) -> None:
    rest = memoryview(LENGTH.pack(len(data)) + data)
    while len(rest):
        rest = rest[stream.write(rest) :]


def _read(stream: IO[bytes]) -> bytes:
    (length,) = LENGTH.unpack(_read_exactly(stream, LENGTH.size))
    return _read_exactly(stream, length)


def _read_exactly(stream: IO[bytes], length: int) -> bytes:
    pieces = []
    while length:
        piece = stream.read(length)
        if not piece:
            raise EOFError
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there is nobody left to ask."""
    answers.write(READY)
    while True:
        try:
            request = msgspec.msgpack.decode(_read(requests), type=Request)
        except EOFError:
            return
        frames, pixels = decode_all([os.fsdecode(source) for source in request.sources], request.rules)
        told = [frame if isinstance(frame, int) else (frame.code, os.fsencode(str(frame))) for frame in frames]
        _write(answers, msgspec.msgpack.encode(Answer(told, pixels.shape, pixels.tobytes())))


def main() -> None:
    """Serve, with the two pipes out of the reach of what decoders print or read."""
    requests, answers = (os.fdopen(os.dup(number), mode, 0) for number, mode in ((0, "rb"), (1, "wb")))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
        serve(requests, answers)


if __name__ == "__main__":
    main()
