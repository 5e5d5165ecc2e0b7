"""Decoding ahead of the model, in order: threads for images that take their time, a second process for ones that do not."""

import itertools
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .decoder_process import MANY, DecoderProcess, second_process
from .images import MAX_BYTES, DecodedBlock, Preprocess, decode_all
from .processors import default_threads
from .sources import STDIN

if TYPE_CHECKING:
    from concurrent.futures import Future

AHEAD = 3
"""Blocks decoded or being decoded while one is answered, beside one for each decoder."""
HELD = 16
"""Blocks of quick images decoded or asked for while one is answered, or while the caller gets ready."""
QUICK = 6e-4
"""Seconds: an image decoded within this keeps the interpreter's lock most of the while. On two processors, against two threads, a second
process sorts 2.2 times as many images of 28 x 28 pixels, 1.3 times as many of 128 x 128, and fewer of 512 x 512."""


class Block(NamedTuple):
    """Sources that are answered together."""

    paths: list[str]
    decoded: DecodedBlock


class Wanted(NamedTuple):
    """Sources whose images are not here yet."""

    paths: list[str]
    asked: bool
    """The second process was."""


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
        self._begun: deque[Wanted] = deque()

    def begin(self, sources: Iterator[str]) -> None:
        """Have the second process decode the first of the sources that `blocks` is given later, while the caller is busy."""
        if self.helper is None or self.threads is not None:
            return
        asked = False  # the first block is decoded here: the time that takes tells who decodes
        while len(self._begun) < HELD and (paths := self._next(sources)):
            asked = bool(self._begun) and self._asked(paths)
            self._begun.append(Wanted(paths, asked))
            if len(self._begun) > 1 and not asked:
                return

    def blocks(self, sources: Iterator[str]) -> Iterator[Block]:
        """Blocks of decoded sources, in order; a few are decoded before they are wanted."""
        paths = self._begun.popleft().paths if self._begun else self._next(sources)
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
            sources = itertools.chain(*(wanted.paths for wanted in self._begun), sources)
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
        waiting: deque[Block | Wanted] = deque(self._begun)
        taken, more = 0, True
        while more or waiting:
            asking = self.helper is not None and self.helper.has_room()
            self._take_in(waiting)
            ready = bool(waiting) and self._is_there(waiting[0])
            if more and len(waiting) < HELD and (asking or not ready):
                paths = self._next(sources)
                more = len(paths) == self.size
                if paths:
                    waiting.append(Wanted(paths, True) if asking and self._asked(paths) else self._here(paths))
                taken += len(paths)
                if self.helper is None and taken > MANY:
                    self.helper = second_process()
            else:
                yield self._received(waiting.popleft())

    def _take_in(self, waiting: deque[Block | Wanted]) -> None:
        """What has been answered: the second process is asked for more as soon as it is done, not when its blocks are wanted."""
        for i, block in enumerate(waiting):
            if isinstance(block, Wanted) and block.asked:
                if self.helper is None or self.helper.pid is None or not self.helper.answered():
                    return
                waiting[i] = self._received(block)

    def _next(self, sources: Iterator[str]) -> list[str]:
        return list(itertools.islice(sources, self.size))

    def _here(self, paths: list[str]) -> Block:
        sources = [sys.stdin.buffer.read(MAX_BYTES + 1) if path == STDIN else path for path in paths]
        return Block(paths, decode_all(sources, self.rules, lambda: self._unwanted))

    def _asked(self, paths: list[str]) -> bool:
        return self.helper is not None and STDIN not in paths and self.helper.ask(paths, self.rules)

    def _is_there(self, first: Block | Wanted) -> bool:
        return isinstance(first, Block) or (first.asked and self.helper is not None and self.helper.answered())

    def _received(self, first: Block | Wanted) -> Block:
        if isinstance(first, Block):
            return first
        decoded = self.helper.answer() if self.helper and first.asked else None
        return Block(first.paths, decoded) if decoded else self._here(first.paths)


def _joined(a: Block, b: Block) -> Block:
    decoded = DecodedBlock(a.decoded.frames + b.decoded.frames, a.decoded.pixels + b.decoded.pixels)
    return Block(a.paths + b.paths, decoded)
