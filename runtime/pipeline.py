"""From image sources to rows, lazily and in order: files are decoded ahead by a few threads while the model runs on what is ready.

Sources are taken in blocks. At most `AHEAD` blocks are decoded and not yet answered, so memory does not grow with the input, and a slow
reader of the rows stops the decoding. Every image is decided on its own: rows do not depend on the block or batch it came in.
"""

import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from .bundle import UNKNOWN, Bundle
from .errors import ImageError
from .images import Decoded, Preprocess, decode_image
from .processors import default_threads
from .sources import STDIN

Row = dict[str, Any]
AHEAD = 3
"""Blocks decoded or being decoded while one is answered."""
DIGITS = 7
"""Decimals of assignments, embeddings and scores in a row: what float32 holds of numbers below 1."""


class Options(NamedTuple):
    """What rows are to say, and how."""

    batch_size: int = 32
    embed: bool = False
    """Add the posterior mean as ``embedding``."""
    score: bool = False
    """Add the evidence lower bound as ``score``; an image below its cluster's threshold gets cluster -1."""
    invert: bool = False
    """Swap black and white, on top of what the bundle asks for."""
    decoders: int | None = None
    """Decoding threads; `default_threads` when left out."""


Block = list[tuple[str, Decoded | ImageError]]


def classify_stream(bundle: Bundle, sources: Iterable[str], options: Options) -> Iterator[Row]:
    """Yield one row per source, in order.

    Parameters
    ----------
    bundle : Bundle
    sources : iterable of str
        Paths, or ``-`` for an image on standard input; consumed a block at a time.
    options : Options

    Yields
    ------
    dict
        ``{"path", "ok": True, "cluster", "name", "confidence", "assignment", "provider"}``, with ``score``, ``embedding`` and ``frames``
        where there are any, or ``{"path", "ok": False, "error": {"code", "message"}}``.
    """
    rules = bundle.preprocess.swapped(options.invert)
    for block in _decoded_blocks(iter(sources), rules, options):
        yield from _answered(bundle, block, options)


def _decoded_blocks(sources: Iterator[str], rules: Preprocess, options: Options) -> Iterator[Block]:
    """Blocks of decoded sources, in order, at most `AHEAD` of them ahead of the one that is handed out."""
    first = list(itertools.islice(sources, 1))
    if not first:
        return
    second = list(itertools.islice(sources, 1))
    if not second:  # a single image: no threads to start
        yield [(first[0], _decode(first[0], rules))]
        return
    sources = itertools.chain(first, second, sources)
    decoders = options.decoders or default_threads()
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
    return [(path, _decode(path, rules)) for path in paths]


def _decode(path: str, rules: Preprocess) -> Decoded | ImageError:
    try:
        return decode_image(sys.stdin.buffer.read() if path == STDIN else path, rules)
    except ImageError as error:
        return error


def _answered(bundle: Bundle, block: Block, options: Options) -> Iterator[Row]:
    decoded = [found for _, found in block if isinstance(found, Decoded)]
    answers = iter(_answer_rows(bundle, decoded, options) if decoded else ())
    for path, found in block:
        if isinstance(found, ImageError):
            yield {"path": path, "ok": False, "error": {"code": found.code, "message": str(found)}}
        else:
            yield {"path": path, **next(answers)}


def _answer_rows(bundle: Bundle, decoded: list[Decoded], options: Options) -> Iterator[Row]:
    images = np.stack([found.pixels for found in decoded])
    answers = bundle.examine(images, embed=options.embed, score=options.score, batch_size=options.batch_size)
    names, provider = bundle.names, bundle.provider
    confidences = _rounded(answers.confidence)
    assignments = _rounded(answers.assignment)
    embeddings = _rounded(answers.embedding) if answers.embedding is not None else None
    scores = _rounded(answers.score) if answers.score is not None else None
    for i, cluster in enumerate(answers.clusters.tolist()):
        if not answers.finite[i]:
            message = "the model answered with numbers that are not finite: its weights are damaged, export it again"
            yield {"ok": False, "error": {"code": "non_finite_output", "message": message}}
            continue
        name = "unknown" if cluster == UNKNOWN else names[cluster]
        row: Row = {"ok": True, "cluster": cluster, "name": name, "confidence": confidences[i], "assignment": assignments[i]}
        if scores is not None:
            row["score"] = scores[i]
        if embeddings is not None:
            row["embedding"] = embeddings[i]
        if decoded[i].frames > 1:
            row["frames"] = decoded[i].frames
        yield {**row, "provider": provider}


def _rounded(values: np.ndarray) -> list[Any]:
    """As Python numbers with `DIGITS` decimals: short rows, and the same on every platform that computes the same float32."""
    return np.round(values.astype(np.float64), DIGITS).tolist()
