"""The report of a run: its curves, verdict and labels beside what `catvae.runtime.report` shows of any model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from catvae.runtime.bundles.training_record import Training
from catvae.runtime.report.facts import EXAMINED, Examined, Facts, confusion, health_table, pictured, scores_table
from catvae.runtime.report.page import render
from catvae.runtime.sampling import scattered
from catvae.runtime.wording import counted

from ..config import TrainConfig
from ..images.data import ImageData
from ..images.held_back import split
from ..vae.model import CatVAE
from .evaluation import encode_mean
from .record import RunRecord
from .summary import training_of


class NetworkDrawer(NamedTuple):
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
        return self.model.images(z).cpu().numpy()


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
    chosen = scattered(len(data.images), EXAMINED)
    images, a = data.images[chosen], assignment[chosen]
    clusters = a.argmax(1)
    called = [data.files[row] if data.files else f"number {row}" for row in chosen]
    examined = Examined(images, clusters, a.max(1), a, encode_mean(model, images), called=called)
    names, training = [cluster.name for cluster in record.clusters], training_of(record, config, rows)
    known = confusion(assignment.argmax(1), data.labels, data.label_names, len(names)) if data.labels is not None else None
    return render(
        Facts(
            title=f"{data.name}: {counted(len(names), 'cluster')}",
            about=_about(len(data.images), config),
            verdict=training.verdict,
            reasons=training.reasons,
            notes=training.notes,
            tiles=_tiles(record),
            curves=training.curves,
            confusion=known,
            tables=_tables(record, training),
            **pictured(examined, NetworkDrawer(model, names), [cluster.share for cluster in record.clusters]),  # pyright: ignore[reportArgumentType]
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
        "drawings sorted into their own cluster": f"{record.health['drawn_return']:.1%}",
        "evidence lower bound, nats": f"{record.bound['elbo']:.1f}",
        **{f"ACC, {part} images": f"{score['acc']:.3f}" for part, score in record.scores.items()},
        "training time": f"{minutes}:{seconds:02d} min",
    }


def _tables(record: RunRecord, training: Training) -> dict[str, dict[str, str]]:
    return {
        "Clusters": health_table(record.health),
        "Scores against labels": scores_table(record.scores),
        **training.tables,
        "Where it comes from": {
            "data": record.data.name,
            "data hash": record.data.hash,
            "images": f"{record.data.count:,} of {record.data.preprocess.size}",
            "views": record.data.policy,
            "trained on": f"{record.device} in {record.precision}",
            **record.versions,
        },
    }
