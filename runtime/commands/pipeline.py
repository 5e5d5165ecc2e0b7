"""From image sources to rows, lazily and in order: files are decoded ahead (`decoding`) while the model runs on what is ready.

Sources are taken in blocks, of which few are decoded and not yet answered, so memory does not grow with the input, and a slow reader of the
rows stops the decoding. Every image is decided on its own: rows do not depend on the block or batch it came in.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bundles.answers import UNKNOWN
from ..bundles.bundle import Bundle
from ..bundles.session import OutOfMemory
from ..errors import ImageError
from ..images.decoder_process import DecoderProcess
from ..images.decoding import Block, Decoding
from .rows import Row

DIGITS = 7
"""Decimals of assignments, embeddings and scores in a row: what float32 holds of numbers below 1."""

NO_MEMORY = "not enough memory for a single image on this device"
NOT_FINITE = "the model answered with numbers that are not finite: its weights are damaged, export it again"


class Options(NamedTuple):
    """What rows contain, and how they are made."""

    batch_size: int = 64
    embed: bool = False
    """Add the posterior mean as ``embedding``."""
    score: bool = False
    """Add the evidence lower bound as ``score``; an image like none of training gets cluster -1."""
    invert: bool = False
    """Swap black and white, on top of what the bundle asks for."""
    decoders: int | None = None
    """Decoding threads; when left out, whatever suits the images: see `decoding`."""
    ahead: bool = True
    """Read sources ahead of their answers; not from a list that grows while somebody waits for each row."""


def classify_stream(bundle: Bundle, sources: Iterable[str], options: Options, decoding: Decoding | None = None) -> Iterator[list[Row]]:
    """Yield the rows of one block of sources after the other: one row per source, in order.

    Parameters
    ----------
    bundle : Bundle
    sources : iterable of str
        Paths, or ``-`` for an image on standard input; consumed a block at a time.
    options : Options
    decoding : Decoding, optional
        Of `prepared`, where the same sources, the iterator itself, have begun to be decoded; it is closed at the end.

    Yields
    ------
    list of dict
        ``{"path", "ok": True, "cluster", "name", "confidence", "assignment", "provider"}``, with ``score``, ``embedding``, ``reason`` and
        ``frames`` where there are any, or ``{"path", "ok": False, "error": {"code", "message"}}``.
    """
    with contextlib.closing(decoding or prepared(bundle, options)) as decoding:
        for block in decoding.blocks(iter(sources)):
            yield _answered(bundle, block, options)


def prepared(bundle: Bundle, options: Options, helper: DecoderProcess | None = None) -> Decoding:
    """The decoding that suits a bundle; `helper` was started by who knows of many sources to come, else a long stream starts its own."""
    rules = bundle.preprocess.swapped(options.invert)
    return Decoding(rules, options.batch_size, options.decoders, helper, ahead=options.ahead)


def _answered(bundle: Bundle, block: Block, options: Options) -> list[Row]:
    all_frames, pixels = block.decoded
    images = bundle.preprocess.as_images(pixels)
    answers = _answers(bundle, images, options)
    rows = []
    for path, frames in zip(block.paths, all_frames, strict=True):
        row: Row = {"path": path}
        if isinstance(frames, ImageError):
            row |= {"ok": False, "error": {"code": frames.code, "message": str(frames)}}
        else:
            row |= next(answers)
            if frames > 1:
                row["frames"] = frames
        rows.append(row)
    return rows


def _answers(bundle: Bundle, images: NDArray[np.uint8], options: Options) -> Iterator[Row]:
    """The rows of images; error rows where even one image does not fit into memory."""
    if not len(images):
        return iter(())
    try:
        return iter([*_answer_rows(bundle, images, options)])
    except (OutOfMemory, MemoryError):
        if len(images) > 1:
            return itertools.chain.from_iterable(_answers(bundle, images[i : i + 1], options) for i in range(len(images)))
        return iter([{"ok": False, "error": {"code": "out_of_memory", "message": NO_MEMORY}}])


def _answer_rows(bundle: Bundle, images: NDArray[np.uint8], options: Options) -> Iterator[Row]:
    answers = bundle.examine(images, embed=options.embed, score=options.score, batch_size=options.batch_size)
    names, provider = {cluster: bundle.name_of(cluster) for cluster in range(UNKNOWN, len(bundle.names))}, bundle.provider
    columns = {"cluster": answers.clusters.tolist(), "name": [names[cluster] for cluster in answers.clusters.tolist()]}
    numbers = {"confidence": answers.confidence, "assignment": answers.assignment, "score": answers.score, "embedding": answers.embedding}
    columns |= {name: _rounded(values) for name, values in numbers.items() if values is not None}
    for finite, reason, *values in zip(answers.finite.tolist(), answers.reasons, *columns.values(), strict=True):
        if finite:
            why = {"reason": reason} if reason else {}
            yield {"ok": True, **dict(zip(columns, values, strict=True)), **why, "provider": provider}
        else:
            yield {"ok": False, "error": {"code": "non_finite_output", "message": NOT_FINITE}}


def _rounded(values: np.ndarray) -> list[Any]:
    """As Python numbers with `DIGITS` decimals: short rows, and the same on every platform that computes the same float32."""
    return np.round(values.astype(np.float64), DIGITS).tolist()
