"""`training.json` of a bundle: what training said of itself, kept for reports; sorting and drawing need none of it."""

from typing import Literal

import msgspec

from ..errors import DataError


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    verdict: Literal["", "healthy", "degenerate"] = ""
    """Empty where nobody judged."""
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    curves: dict[str, list[tuple[float, float]]] = {}
    """Terms of the loss by name: (epoch, nats per image)."""
    tables: dict[str, dict[str, str]] = {}
    """Rows of name and value, by title: configuration, bound, the seeds it was chosen from."""


def parse_training(data: bytes, where: str) -> Training:
    """Decode `training.json`; raises `DataError` when it is something else."""
    try:
        return msgspec.json.decode(data, type=Training)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where} is not a record of a training: {error}") from error
