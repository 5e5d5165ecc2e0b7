"""The program that decodes for another process: how it is asked, how it answers, and the loop between.

It is run by `decoder_process`, which speaks to it through its standard input and output. Both sides are one version of one file: no message
outlives the two processes.
"""

import contextlib
import os
import struct
from typing import IO

import msgspec

from ..errors import ImageError
from .image_files import DecodedBlock, decode_all
from .preprocess import Preprocess

READY = b"+"
LENGTH = struct.Struct("<Q")


class Request(msgspec.Struct, array_like=True):
    """Sources as the file system writes them, which need not be text."""

    sources: list[bytes]
    rules: Preprocess


class Answer(msgspec.Struct, array_like=True):
    """A `DecodedBlock`; errors as code and message."""

    frames: list[int | tuple[str, bytes]]
    pixels: bytes


def question(sources: list[str], rules: Preprocess) -> bytes:
    """The request for these sources."""
    return msgspec.msgpack.encode(Request([os.fsencode(source) for source in sources], rules))


def write_message(stream: IO[bytes], data: bytes) -> None:
    """All of it, length first."""
    rest = memoryview(LENGTH.pack(len(data)) + data)
    while len(rest):
        rest = rest[stream.write(rest) :]


def read_answer(stream: IO[bytes]) -> DecodedBlock | None:
    """The result of `decode_all` for the oldest request; None where the program has died or answers nonsense."""
    try:
        answer = msgspec.msgpack.decode(_read_message(stream), type=Answer)
    except (OSError, EOFError, msgspec.DecodeError):
        return None
    frames = [frame if isinstance(frame, int) else ImageError(frame[0], os.fsdecode(frame[1])) for frame in answer.frames]
    return DecodedBlock(frames, answer.pixels)


def _read_message(stream: IO[bytes]) -> bytes:
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
            request = msgspec.msgpack.decode(_read_message(requests), type=Request)
        except EOFError:
            return
        frames, pixels = decode_all([os.fsdecode(source) for source in request.sources], request.rules)
        frames_or_errors = [frame if isinstance(frame, int) else (frame.code, os.fsencode(str(frame))) for frame in frames]
        write_message(answers, msgspec.msgpack.encode(Answer(frames_or_errors, pixels)))


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
