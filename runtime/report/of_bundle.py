"""The facts of a report on a bundle, and on images it is shown."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..bundles.answers import UNKNOWN, Answers
from ..bundles.bundle import Bundle
from ..bundles.drift import Tally
from ..bundles.manifest import Manifest
from ..bundles.training_record import Training
from ..errors import DataError
from ..images.grid import to_uint8
from .facts import Examined, Facts, Images, confusion, health_table, pictured, scores_table

DRAWN = 20
"""Images drawn per cluster where none are shown."""


def facts_of_bundle(
    bundle: Bundle, images: Images, labels: NDArray[np.int64] | None = None, classes: Sequence[str] = (), called: Sequence[str] = ()
) -> Facts:
    """A report on a bundle and on what it makes of images; without any, of what it draws itself.

    Parameters
    ----------
    bundle : Bundle
    images : ndarray, (N, H, W, C), uint8
    labels : ndarray, (N,), optional
        Known classes of the images, into `classes`; only compared with the clusters.
    called : sequence of str, (N,), optional
        What finds each image again, as its file.
    """
    manifest, training = bundle.manifest, bundle.training()
    drawn = not len(images)
    if drawn:
        images = np.concatenate([to_uint8(bundle.sample(c, DRAWN, 1)) for c in range(len(manifest.clusters))])
    answers = _answered(bundle, images)
    finite = np.flatnonzero(answers.finite)
    images, answers = images[finite], answers.only(answers.finite)
    labels = None if labels is None else labels[finite]
    clusters, _ = bundle.decide(answers.assignment)
    known = np.ones(len(images), bool) if drawn else answers.clusters != UNKNOWN
    known = known if known.any() else ~known
    examined = _examined(images, clusters, answers, known, [called[row] for row in finite.tolist()] if called else [])
    tally = Tally(manifest)
    tally.clusters.update(answers.clusters.tolist())
    source = manifest.provenance
    return Facts(
        title=f"{source.data}: {len(manifest.clusters)} clusters",
        about=f"A bundle learnt from {source.learnt_from}"
        + ("; the verdict is that of its training." if training.verdict else ".")
        + (" No images were shown to it: these are its own drawings." if drawn else ""),
        strange=() if drawn else tally.warnings(),
        verdict=training.verdict,
        reasons=training.reasons,
        notes=training.notes,
        tiles=_tiles(manifest, answers, drawn),
        curves=training.curves,
        confusion=confusion(clusters[known], labels[known], classes, len(manifest.clusters)) if labels is not None else None,
        tables=_tables(manifest, training),
        **pictured(examined, bundle, [cluster.share for cluster in manifest.clusters]),  # pyright: ignore[reportArgumentType]
    )


def _examined(images: Images, clusters: NDArray[np.int64], answers: Answers, known: NDArray[np.bool_], called: Sequence[str]) -> Examined:
    """What cards and maps show: unknown images belong to no cluster, unless all are unknown."""
    found = answers.only(known)
    assert found.embedding is not None
    called = [name for name, shown in zip(called, known, strict=False) if shown]
    return Examined(images[known], clusters[known], found.confidence, found.assignment, found.embedding, len(images), called)


def _answered(bundle: Bundle, images: Images) -> Answers:
    """The answers, some of which are finite."""
    answers = bundle.examine(images, embed=True, score=bundle.manifest.scoring is not None)
    if not answers.finite.any():
        raise DataError(f"{bundle.path} answers none of the images with finite numbers: no page can be made of them")
    return answers


def _tiles(manifest: Manifest, answers: Answers, drawn: bool) -> dict[str, str]:
    tiles = {
        "clusters": str(len(manifest.clusters)),
        "images examined": f"{len(answers.clusters):,}",
        "mean confidence": f"{answers.confidence.mean():.3f}",
    }
    if manifest.scoring is not None and not drawn:
        tiles["unknown to the model"] = f"{(answers.clusters == UNKNOWN).mean():.1%}"
    return tiles | {f"ACC, {part} images": f"{scores['acc']:.3f}" for part, scores in manifest.metrics.items()}


def _tables(manifest: Manifest, training: Training) -> dict[str, Mapping[str, str]]:
    source = manifest.provenance
    return {
        "Model": {
            "model": manifest.model_id,
            "precision": manifest.precision,
            "prior": f"K = {len(manifest.clusters)} modes, delta = {manifest.delta} dimensions each, lambda = {manifest.lam:g}",
            "images": manifest.preprocess.size,
            **{g.name: f"{g.size:,} bytes, sha256 {g.sha256[:16]}" for g in manifest.graphs.values()},
            "largest difference from PyTorch": f"{max(manifest.parity.max_difference.values()):.1e}",
        },
        "Clusters after training": health_table(manifest.health),
        "Scores against labels": scores_table(manifest.metrics),
        **training.tables,
        "Where it comes from": {
            "recipe": source.recipe,
            "seed": str(source.seed),
            "epochs": str(source.epochs),
            "data": source.data,
            "data hash": source.data_hash,
            **source.versions,
        },
    }
