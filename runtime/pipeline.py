"""From image sources to rows, lazily and in order: files are decoded ahead by a few threads while the model runs on what is ready.

Sources are taken in blocks. At most `AHEAD` blocks are decoded and not yet answered, so memory does not grow with the input, and a slow
reader of the rows stops the decoding. Every image is decided on its own: rows do not depend on the block or batch it came in.
"""

import itertools
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bundle import UNKNOWN, Bundle
from .errors import ImageError
from .images import Preprocess, decode_image
from .processors import default_threads
from .sources import STDIN

if TYPE_CHECKING:
    from concurrent.futures import Future

Row = dict[str, Any]
AHEAD = 3
"""Blocks decoded or being decoded while one is answered."""
QUICK = 2e-4
"""Seconds: an image decoded within this keeps the interpreter's lock nearly all the while, and a second thread would only take turns."""
DIGITS = 7
"""Decimals of assignments, embeddings and scores in a row: what float32 holds of numbers below 1."""

NOT_FINITE = "the model answered with numbers that are not finite: its weights are damaged, export it again"


class Options(NamedTuple):
    """What rows are to say, and how."""

    batch_size: int = 64
    embed: bool = False
    """Add the posterior mean as ``embedding``."""
    score: bool = False
    """Add the evidence lower bound as ``score``; an image below its cluster's threshold gets cluster -1."""
    invert: bool = False
    """Swap black and white, on top of what the bundle asks for."""
    decoders: int | None = None
    """Decoding threads; when left out one for images that decode within `QUICK`, else `default_threads`."""


class Block(NamedTuple):
    """Sources that are answered together."""

    paths: list[str]
    frames: list[int | ImageError]
    """Of each source: frames in its file, or why it cannot be read."""
    pixels: NDArray[np.uint8]
    """(N, H, W, C), of the sources that can be read."""


def classify_stream(bundle: Bundle, sources: Iterable[str], options: Options) -> Iterator[list[Row]]:
    """Yield the rows of one block of sources after the other: one row per source, in order.

    Parameters
    ----------
    bundle : Bundle
    sources : iterable of str
        Paths, or ``-`` for an image on standard input; consumed a block at a time.
    options : Options

    Yields
    ------
    list of dict
        ``{"path", "ok": True, "cluster", "name", "confidence", "assignment", "provider"}``, with ``score``, ``embedding`` and ``frames``
        where there are any, or ``{"path", "ok": False, "error": {"code", "message"}}``.
    """
    rules = bundle.preprocess.swapped(options.invert)
    for block in _decoded_blocks(iter(sources), rules, options):
        yield _answered(bundle, block, options)


def _decoded_blocks(sources: Iterator[str], rules: Preprocess, options: Options) -> Iterator[Block]:
    """Blocks of decoded sources, in order, at most `AHEAD` of them ahead of the one that is handed out."""
    paths = list(itertools.islice(sources, options.batch_size))
    if not paths:
        return
    began = time.perf_counter()
    first = _decode_block(paths, rules)
    each = (time.perf_counter() - began) / len(paths)
    yield first
    if len(paths) < options.batch_size:
        return
    from concurrent.futures import ThreadPoolExecutor  # 10 ms of a cold start that a few images do not need

    decoders = options.decoders or (1 if each < QUICK else default_threads())
    with ThreadPoolExecutor(decoders, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Block]] = deque()
        try:
            while True:
                while len(waiting) < AHEAD + decoders and (paths := list(itertools.islice(sources, options.batch_size))):
                    waiting.append(pool.submit(_decode_block, paths, rules))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_block(paths: list[str], rules: Preprocess) -> Block:
    pixels = np.empty((len(paths), *rules.shape), np.uint8)
    frames: list[int | ImageError] = []
    filled = 0
    for path in paths:
        try:
            found = decode_image(sys.stdin.buffer.read() if path == STDIN else path, rules)
        except ImageError as error:
            frames.append(error)
        else:
            pixels[filled] = found.pixels
            frames.append(found.frames)
            filled += 1
    return Block(paths, frames, pixels[:filled])


def _answered(bundle: Bundle, block: Block, options: Options) -> list[Row]:
    answers = iter(_answer_rows(bundle, block.pixels, options) if len(block.pixels) else ())
    rows = []
    for path, frames in zip(block.paths, block.frames, strict=True):
        row: Row = {"path": path}
        if isinstance(frames, ImageError):
            row |= {"ok": False, "error": {"code": frames.code, "message": str(frames)}}
        else:
            row |= next(answers)
            if frames > 1:
                row["frames"] = frames
        rows.append(row)
    return rows


def _answer_rows(bundle: Bundle, images: NDArray[np.uint8], options: Options) -> Iterator[Row]:
    answers = bundle.examine(images, embed=options.embed, score=options.score, batch_size=options.batch_size)
    names, provider = {UNKNOWN: "unknown", **dict(enumerate(bundle.names))}, bundle.provider
    columns = {"cluster": answers.clusters.tolist(), "name": [names[cluster] for cluster in answers.clusters.tolist()]}
    numbers = {"confidence": answers.confidence, "assignment": answers.assignment, "score": answers.score, "embedding": answers.embedding}
    columns |= {name: _rounded(values) for name, values in numbers.items() if values is not None}
    for finite, *values in zip(answers.finite.tolist(), *columns.values(), strict=True):
        if finite:
            yield {"ok": True, **dict(zip(columns, values, strict=True)), "provider": provider}
        else:
            yield {"ok": False, "error": {"code": "non_finite_output", "message": NOT_FINITE}}


def _rounded(values: np.ndarray) -> list[Any]:
    """As Python numbers with `DIGITS` decimals: short rows, and the same on every platform that computes the same float32."""
    return np.round(values.astype(np.float64), DIGITS).tolist()
