"""From image sources to rows, lazily and in order: read a batch, run the model, yield, so that memory does not grow with the input."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from .bundle import Bundle
from .errors import ImageError
from .images import read_image
from .sources import STDIN

Row = dict[str, Any]


def classify_stream(bundle: Bundle, sources: Iterable[str], *, batch_size: int, embed: bool = False, invert: bool = False) -> Iterator[Row]:
    """Yield one row per source, in order.

    Parameters
    ----------
    bundle : Bundle
    sources : iterable of str
        Paths, or ``-`` for an image on standard input; consumed `batch_size` at a time.
    batch_size : int
    embed : bool
        Add the posterior mean as ``embedding``.
    invert : bool
        Swap black and white, on top of what the bundle asks for.

    Yields
    ------
    dict
        ``{"path", "ok": True, "cluster", "name", "confidence", "assignment", "provider"}`` or
        ``{"path", "ok": False, "error": {"code", "message"}}``.
    """
    rules = bundle.preprocess
    if invert:
        rules = msgspec.structs.replace(rules, invert=not rules.invert)
    sources = iter(sources)
    while batch := list(itertools.islice(sources, batch_size)):
        images, errors = [], {}
        for i, source in enumerate(batch):
            try:
                images.append(read_image(sys.stdin.buffer.read() if source == STDIN else source, rules))
            except ImageError as error:
                errors[i] = error
        answers = iter(_answers(bundle, np.stack(images), batch_size, embed) if images else ())
        for i, source in enumerate(batch):
            if i in errors:
                yield {"path": source, "ok": False, "error": {"code": errors[i].code, "message": str(errors[i])}}
            else:
                yield {"path": source, "ok": True, **next(answers)}


def _answers(bundle: Bundle, images: np.ndarray, batch_size: int, embed: bool) -> Iterator[Row]:
    assignment = bundle.predict_proba(images, batch_size=batch_size)
    embedding = bundle.transform(images, batch_size=batch_size) if embed else None
    clusters, confidences = bundle.decide(assignment)
    for i, a in enumerate(assignment):
        cluster = int(clusters[i])
        row: Row = {
            "cluster": cluster,
            "name": bundle.names[cluster],
            "confidence": float(confidences[i]),
            "assignment": a.tolist(),
            "provider": bundle.provider,
        }
        if embedding is not None:
            row["embedding"] = embedding[i].tolist()
        yield row
