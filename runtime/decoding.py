"""Decoding ahead of the model, in order: threads for images that take their time, a second process for ones that do not."""

import itertools
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .decoder_process import MANY, DecoderProcess, second_process
from .images import MAX_BYTES, DecodedBlock, Preprocess, decode_all
from .processors import default_threads
from .sources import STDIN

if TYPE_CHECKING:
    from concurrent.futures import Future

AHEAD = 3
"""Blocks decoded or being decoded while one is answered, beside one for each decoder."""
HELD = 8
"""Blocks of quick images decoded or asked for while one is answered."""
QUICK = 6e-4
"""Seconds: an image decoded within this keeps the interpreter's lock most of the while. On two processors, against two threads, a second
process sorts 2.2 times as many images of 28 x 28 pixels, 1.3 times as many of 128 x 128, and fewer of 512 x 512."""


class Block(NamedTuple):
    """Sources that are answered together."""

    paths: list[str]
    decoded: DecodedBlock


class Decoding:
    """Who decodes, and how images are read.

    Parameters
    ----------
    rules : Preprocess
    size : int
        Images per block.
    threads : int, optional
        Decoding threads; when left out `default_threads`, but for images that decode within `QUICK`.
    helper : DecoderProcess, optional
        Started already, by who knows of `MANY` sources to come; `close` ends it. When left out, a long stream of quick images starts one.
    """

    def __init__(self, rules: Preprocess, size: int, threads: int | None = None, helper: DecoderProcess | None = None):
        self.rules, self.size, self.threads, self.helper = rules, size, threads, helper
        self._unwanted = False

    def blocks(self, sources: Iterator[str]) -> Iterator[Block]:
        """Blocks of decoded sources, in order; a few are decoded before they are wanted."""
        paths = self._next(sources)
        if not paths:
            return
        warm = self._here(paths[:1])  # it loads Pillow's decoders too, which takes as long as a hundred tiny images
        began = time.perf_counter()
        rest = self._here(paths[1:])
        quick = len(paths) > 1 and time.perf_counter() - began < QUICK * (len(paths) - 1)
        yield _joined(warm, rest)
        if len(paths) < self.size:
            return
        if quick and self.threads is None:
            yield from self._by_the_idle(sources)
        else:
            self.close()
            yield from self._by_threads(sources, self.threads or default_threads())

    def close(self) -> None:
        """End the second process."""
        if self.helper:
            self.helper.close()

    def _by_threads(self, sources: Iterator[str], threads: int) -> Iterator[Block]:
        from concurrent.futures import ThreadPoolExecutor  # 10 ms of a cold start that a few images do not need

        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            waiting: deque[Future[Block]] = deque()
            try:
                while True:
                    while len(waiting) < AHEAD + threads and (paths := self._next(sources)):
                        waiting.append(pool.submit(self._here, paths))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
            finally:
                self._unwanted = True  # a block of large images takes seconds, and an interrupted caller waits for threads to end
                pool.shutdown(wait=True, cancel_futures=True)

    def _by_the_idle(self, sources: Iterator[str]) -> Iterator[Block]:
        """The second process decodes all the while, this thread when it has no block to hand out."""
        waiting: deque[Block | list[str]] = deque()  # paths: the second process has been asked for them
        taken, more = 0, True
        while more or waiting:
            asking = self.helper is not None and self.helper.has_room()
            ready = bool(waiting) and self._is_there(waiting[0])
            if more and len(waiting) < HELD and (asking or not ready):
                paths = self._next(sources)
                more = len(paths) == self.size
                if paths:
                    waiting.append(paths if asking and self._asked(paths) else self._here(paths))
                taken += len(paths)
                if self.helper is None and taken > MANY:
                    self.helper = second_process()
            else:
                yield self._received(waiting)

    def _next(self, sources: Iterator[str]) -> list[str]:
        return list(itertools.islice(sources, self.size))

    def _here(self, paths: list[str]) -> Block:
        sources = [sys.stdin.buffer.read(MAX_BYTES + 1) if path == STDIN else path for path in paths]
        return Block(paths, decode_all(sources, self.rules, lambda: self._unwanted))

    def _asked(self, paths: list[str]) -> bool:
        return self.helper is not None and STDIN not in paths and self.helper.ask(paths, self.rules)

    def _is_there(self, first: Block | list[str]) -> bool:
        return isinstance(first, Block) or (self.helper is not None and self.helper.answered())

    def _received(self, waiting: "deque[Block | list[str]]") -> Block:
        """The first one that is waiting, taken out."""
        first = waiting.popleft()
        if isinstance(first, Block):
            return first
        decoded = self.helper.answer() if self.helper else None
        return Block(first, decoded) if decoded else self._here(first)


def _joined(a: Block, b: Block) -> Block:
    decoded = DecodedBlock(a.decoded.frames + b.decoded.frames, np.concatenate([a.decoded.pixels, b.decoded.pixels]))
    return Block(a.paths + b.paths, decoded)
