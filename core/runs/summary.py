"""A finished run in plain values: verdict, curves, tables. Reports of runs show them, bundles carry them along."""

import math
from collections.abc import Sequence

import msgspec

from catvae.runtime.bundles.training_record import Training
from catvae.runtime.sampling import evenly

from ..config import TrainConfig
from .record import RunRecord

CURVES = {
    "elbo": "evidence lower bound",
    "reconstruction": "reconstruction",
    "kl": "KL of the latents from the prior of their cluster",
    "neg_entropy": "negative entropy of the assignments",
    "information": "cross-entropy of generated images",
    "invariance": "information that clusters share with views",
    "auxiliary": "information that over-clusters share with views",
}
"""Columns of metrics.csv that are drawn, and what they are."""
BOUND = {
    "elbo": "evidence lower bound",
    "kl": "KL of the latents",
    "neg_entropy": "negative entropy of the assignments",
    "nll": "-log p(x) of binarised pixels, at most",
    "nll_error": "its standard error",
    "images": "images it was read from",
    "draws": "draws for each of them",
    "generation_ceiling": "draws nearest to their own mode",
}
"""Words for the numbers of a bound."""
POINTS = 200
"""The most points of a curve: more could not be seen."""


def training_of(record: RunRecord, config: TrainConfig, rows: Sequence[dict[str, float | None]]) -> Training:
    """The verdict, curves and tables of a finished run.

    Parameters
    ----------
    rows : sequence of dict
        Of `metrics.csv`.
    """
    verdict = record.verdict
    return Training(
        verdict=verdict.status if verdict else "",
        reasons=verdict.reasons if verdict else (),
        notes=(*(verdict.notes if verdict else ()), *(f"step {event.step:,}: {event.what}" for event in record.events)),
        curves=_curves(rows),
        tables={
            "Seeds": _seeds(record),
            "Bound": {BOUND.get(name, name): f"{value:.4f}".removesuffix(".0000") for name, value in record.bound.items()},
            "Configuration": {name: _shown(value) for name, value in msgspec.to_builtins(config).items()} | {"epochs": str(record.epochs)},
        },
    )


def _curves(rows: Sequence[dict[str, float | None]]) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for column, name in CURVES.items():
        read = [(row.get("epoch") or 0.0, row.get(column)) for row in rows]
        points = [(epoch, float(f"{value:.5g}")) for epoch, value in read if value is not None and math.isfinite(value)]
        if any(value for _, value in points):  # a term that is off is zero throughout
            found[name] = [points[i] for i in evenly(len(points), POINTS)]
    return found


def _seeds(record: RunRecord) -> dict[str, str]:
    return {
        f"seed {run.seed}{' (kept)' if run.kept else ''}": f"{run.verdict}, {run.view_information:.4f} nats shared with views,"
        f" agreement with the others {run.agreement:.3f}"
        for run in record.seeds
    }


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
