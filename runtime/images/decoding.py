"""Decodes images ahead of the model, in order: slow ones on threads; quick ones in a second process, the helper.

Python's lock lets threads decode quick images only one at a time.
"""

import itertools
import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ImageError
from ..processors import default_threads
from .decoder_process import MANY, DecoderProcess, second_process
from .image_files import DecodedBlock, decode_all
from .opening import MAX_BYTES
from .preprocess import Preprocess
from .sources import STDIN

if TYPE_CHECKING:
    from concurrent.futures import Future

AHEAD = 3
"""Blocks that are decoded ahead of the one being answered, beside one for each decoding thread."""
HELD, HELD_BYTES = 16, 1 << 26
"""Blocks of quick images that are decoded ahead, and their size in bytes, at most."""
QUICK = 6e-4
"""Seconds an image may take to count as quick: decoding it, a thread holds Python's lock most of the time. On two processors a helper sorts
2.2 times as many images of 28 x 28 pixels as two threads do, 1.3 times as many of 128 x 128, and fewer of 512 x 512."""


class Block(NamedTuple):
    """Sources that are answered together."""

    paths: list[str]
    decoded: DecodedBlock


class Decoding:
    """Decodes a stream of images in blocks.

    Parameters
    ----------
    rules : Preprocess
    size : int
        Images per block.
    threads : int, optional
        Decoding threads; when left out `default_threads`, but for images that decode within `QUICK`.
    ahead : bool
        Decode more than is asked for; otherwise a block is answered before the next source is looked for.
    helper : DecoderProcess, optional
        One that the caller has started because it expects `MANY` sources; `close` ends it. When left out, one is started after `MANY` quick
        images.
    """

    def __init__(
        self, rules: Preprocess, size: int, threads: int | None = None, helper: DecoderProcess | None = None, *, ahead: bool = True
    ):
        self.rules, self.size, self.threads, self.helper, self.ahead = rules, size, threads, helper, ahead
        self.held = max(AHEAD, min(HELD, HELD_BYTES // (size * math.prod(rules.shape))))
        self._unwanted = False
        self._begun: list[list[str]] = []
        """Blocks of paths that `begin` took; the helper was asked for all but the first, which is decoded here to see how long it takes."""
        self._left: list[str] = []
        """One more block that `begin` took, which the helper had no room for."""

    def begin(self, sources: Iterator[str]) -> None:
        """Let the helper decode the first sources while the caller is busy; `blocks` must be given the same iterator afterwards."""
        if self.helper is None or self.threads is not None:
            return
        while len(self._begun) < self.held and (paths := self._take(sources)):
            if self._begun and not self._ask_helper(paths):
                self._left = paths
                return
            self._begun.append(paths)

    def blocks(self, sources: Iterator[str]) -> Iterator[Block]:
        """Blocks of decoded sources, in order; a few are decoded before they are wanted."""
        if not self.ahead:
            while paths := self._take(sources):
                yield self._decode_here(paths)
            return
        paths, *asked = self._begun or [self._take(sources)]
        sources = itertools.chain(self._left, sources)
        self._begun, self._left = [], []
        if not paths:
            return
        warm = self._decode_here(paths[:1])  # it loads Pillow's decoders too, which takes as long as a hundred tiny images
        began = time.perf_counter()
        rest = self._decode_here(paths[1:])
        quick = len(paths) > 1 and time.perf_counter() - began < QUICK * (len(paths) - 1)
        yield _joined(warm, rest)
        if len(paths) < self.size:
            return
        if quick and self.threads is None:
            yield from self._by_helper_and_here(deque(asked), sources)
        else:
            self.close()
            sources = itertools.chain(*asked, sources)
            yield from self._by_threads(sources, self.threads or default_threads())

    def close(self) -> None:
        """End the helper."""
        if self.helper:
            self.helper.close()

    def _by_threads(self, sources: Iterator[str], threads: int) -> Iterator[Block]:
        from concurrent.futures import ThreadPoolExecutor  # 10 ms of a cold start that a few images do not need

        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            waiting: deque[Future[Block]] = deque()
            try:
                while True:
                    while len(waiting) < AHEAD + threads and (paths := self._take(sources)):
                        waiting.append(pool.submit(self._decode_here, paths))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
            finally:
                self._unwanted = True  # a block of large images takes seconds, and an interrupted caller waits for threads to end
                pool.shutdown(wait=True, cancel_futures=True)

    def _by_helper_and_here(self, waiting: deque[Block | list[str]], sources: Iterator[str]) -> Iterator[Block]:
        """The helper decodes whenever it has room, this thread whenever the next block in order is not ready.

        `waiting` holds blocks in order: decoded, or as the paths that the helper was asked for.
        """
        taken, more = 0, True
        while more or waiting:
            self._collect(waiting)
            asking = self.helper is not None and self.helper.has_room()
            alive = self.helper is not None and self.helper.pid is not None
            ready = bool(waiting) and (isinstance(waiting[0], Block) or not alive)
            if more and len(waiting) < self.held and (asking or not ready):
                paths = self._take(sources)
                more = len(paths) == self.size
                if paths:
                    waiting.append(paths if asking and self._ask_helper(paths) else self._decode_here(paths))
                taken += len(paths)
                if self.helper is None and taken > MANY:
                    self.helper = second_process()
            else:
                yield self._resolve(waiting.popleft())

    def _collect(self, waiting: deque[Block | list[str]]) -> None:
        """Replace paths in `waiting` by the blocks that the helper has finished, which gives it room for more."""
        for i, block in enumerate(waiting):
            if not isinstance(block, Block):
                if self.helper is None or self.helper.pid is None or not self.helper.answered():
                    return  # of a process that is gone, blocks are decoded when their turn comes
                waiting[i] = self._resolve(block)

    def _take(self, sources: Iterator[str]) -> list[str]:
        return list(itertools.islice(sources, self.size))

    def _decode_here(self, paths: list[str]) -> Block:
        sources = [_stdin() if path == STDIN else path for path in paths]
        return Block(paths, decode_all(sources, self.rules, lambda: self._unwanted))

    def _ask_helper(self, paths: list[str]) -> bool:
        return self.helper is not None and STDIN not in paths and self.helper.ask(paths, self.rules)

    def _resolve(self, first: Block | list[str]) -> Block:
        if isinstance(first, Block):
            return first
        decoded = self.helper.answer() if self.helper else None
        return Block(first, decoded) if decoded else self._decode_here(first)


def _stdin() -> bytes | ImageError:
    """The image on standard input, or why there is none."""
    try:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:  # closed, or opened for writing
        return ImageError("unreadable", f"standard input cannot be read: {error.strerror or error}")


def _joined(a: Block, b: Block) -> Block:
    decoded = DecodedBlock(a.decoded.frames + b.decoded.frames, a.decoded.pixels + b.decoded.pixels)
    return Block(a.paths + b.paths, decoded)
