"""The report of a run: its curves, verdict and labels beside what `catvae.runtime.report` shows of any model."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from catvae.runtime.report.facts import EXAMINED, Examined, Facts, confusion, evenly, pictured
from catvae.runtime.report.page import render

from .config import TrainConfig
from .data import ImageData
from .evaluation import encode_mean
from .held_back import split
from .model import CatVAE
from .run_folder import RunRecord

CURVES = {
    "elbo": "evidence lower bound",
    "reconstruction": "reconstruction",
    "kl": "KL of the latents from the prior of their cluster",
    "information": "cross-entropy of generated images",
    "invariance": "information that clusters share with views",
    "auxiliary": "information that over-clusters share with views",
}
"""Columns of metrics.csv that are drawn, and what they are."""


class Trained(NamedTuple):
    """A trained network as a `Drawer`."""

    model: CatVAE
    names: list[str]

    @property
    def means(self) -> NDArray[np.float32]:
        return self.model.prior.cpu().numpy()

    @torch.no_grad()
    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        self.model.eval()
        z = torch.from_numpy(np.ascontiguousarray(latents)).to(self.model.prior.device)
        return self.model.decode(z).sigmoid().permute(0, 2, 3, 1).cpu().numpy()


def run_report(
    model: CatVAE,
    data: ImageData,
    assignment: NDArray[np.float32],
    record: RunRecord,
    config: TrainConfig,
    rows: Sequence[dict[str, float | None]],
) -> bytes:
    """The page of a finished run.

    Parameters
    ----------
    assignment : ndarray, (N, K)
        Of the training images.
    record : RunRecord
        With clusters, scores, health and verdict.
    rows : sequence of dict
        Of `metrics.csv`.
    """
    chosen = evenly(len(data.images), EXAMINED)
    images, a = data.images[chosen], assignment[chosen]
    clusters = a.argmax(1)
    examined = Examined(images, clusters, a.max(1), a, encode_mean(model, images))
    names, verdict = [cluster.name for cluster in record.clusters], record.verdict
    known = confusion(assignment.argmax(1), data.labels, data.label_names, len(names)) if data.labels is not None else None
    return render(
        Facts(
            title=f"{data.name}: {len(names)} clusters",
            about=_about(len(data.images), config),
            verdict=verdict.status if verdict else "",
            reasons=verdict.reasons if verdict else (),
            notes=(*(verdict.notes if verdict else ()), *(f"step {event.step:,}: {event.what}" for event in record.events)),
            tiles=_tiles(record),
            curves=_curves(rows),
            confusion=known,
            tables=_tables(record, config),
            **pictured(examined, Trained(model, names), [cluster.share for cluster in record.clusters]),  # pyright: ignore[reportArgumentType]
        )
    )


def _about(images: int, config: TrainConfig) -> str:
    rows = split(images)
    held = f" ({len(rows.held_back):,} more were held back)" if len(rows.held_back) else ""
    labels = f"a few labels with weight {config.label_weight:g}" if config.label_weight else "no labels"
    return f"Learnt from {len(rows.trained):,} images{held} and {labels}, recipe {config.recipe}, seed {config.seed}."


def _tiles(record: RunRecord) -> dict[str, str]:
    minutes, seconds = divmod(round(record.seconds), 60)
    return {
        "clusters": str(len(record.clusters)),
        "mean confidence": f"{record.health['mean_confidence']:.3f}",
        "same cluster in a view": f"{record.health['view_agreement']:.1%}",
        "evidence lower bound, nats": f"{record.bound['elbo']:.1f}",
        **{f"ACC, {part} images": f"{score['acc']:.3f}" for part, score in record.scores.items()},
        "training time": f"{minutes}:{seconds:02d} min",
    }


def _curves(rows: Sequence[dict[str, float | None]]) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for column, name in CURVES.items():
        points = [(float(row["epoch"] or 0), value) for row in rows if (value := row.get(column)) is not None]
        if any(value for _, value in points):  # a term that is off is zero throughout
            found[name] = points
    return found


def _tables(record: RunRecord, config: TrainConfig) -> dict[str, dict[str, str]]:
    seeds = {
        f"seed {run.seed}{' (kept)' if run.kept else ''}": f"{run.verdict}, {run.neighbour_information:.4f} nats shared with neighbours,"
        f" agreement with the others {run.agreement:.3f}"
        for run in record.seeds
    }
    return {
        "Seeds": seeds,
        "Clusters": {name: f"{value:.4g}" for name, value in record.health.items()},
        "Bound": {name: f"{value:.4f}" for name, value in record.bound.items()},
        "Scores against labels": {
            f"{part} {name}": f"{value:.4f}" for part, score in record.scores.items() for name, value in score.items()
        },
        "Configuration": {name: _shown(value) for name, value in msgspec.to_builtins(config).items()},
        "Where it comes from": {
            "data": record.origin.data,
            "data hash": record.data.hash,
            "images": f"{record.data.count:,} of {' x '.join(map(str, record.data.preprocess.shape))}",
            "views": record.data.policy,
            "trained on": f"{record.device} in {record.precision}",
            **record.versions,
        },
    }


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
