"""Rows of metrics.csv: means of the loss, its terms and the confidence over the steps of an epoch, kept in the position of a run."""

import math

import torch
from torch import Tensor

from ..vae.objective import BatchLoss, Terms
from .checkpoint import Position

RECORDED = ("total", *Terms._fields, "confidence")
"""Columns of a row, in nats but for the confidence."""


def summary(loss: BatchLoss) -> Tensor:
    """`RECORDED` of one batch, (9,); NaN for terms that were not computed."""
    return torch.stack([loss.total, *loss.terms, loss.assignment.amax(1).mean()]).detach()


def add_step(position: Position, values: list[float]) -> None:
    """Add a step's `summary` to the epoch under way."""
    row = position.open_row
    for name, value in zip(RECORDED, values, strict=True):
        if not math.isnan(value):  # NaN: not computed while clusters train alone
            row[name] = row.get(name, 0.0) + value
            row[f"{name} steps"] = row.get(f"{name} steps", 0.0) + 1


def close_epoch(position: Position, epoch: int) -> None:
    """Turn the sums of the epoch under way into its row; terms that were not computed are None."""
    sums = position.open_row
    means = {name: sums[name] / sums[f"{name} steps"] if name in sums else None for name in RECORDED}
    position.rows.append({"epoch": epoch, **means, "seconds": position.seconds})
    position.open_row = {}
