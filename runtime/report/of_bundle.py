"""The facts of a report on a bundle, and on images it is shown."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..bundles.bundle import Bundle
from ..bundles.drift import Tally
from ..errors import DataError
from ..images.grid import to_uint8
from .facts import Examined, Facts, Images, confusion, health_table, pictured, scores_table

DRAWN = 20
"""Images drawn per cluster where none are shown."""


def facts_of_bundle(bundle: Bundle, images: Images, labels: NDArray[np.int64] | None = None, classes: Sequence[str] = ()) -> Facts:
    """A report on a bundle and on what it makes of images; without any, of what it draws itself.

    Parameters
    ----------
    bundle : Bundle
    images : ndarray, (N, H, W, C), uint8
    labels : ndarray, (N,), optional
        Known classes of the images, into `classes`; only compared with the clusters.
    """
    m, p, training = bundle.manifest, bundle.manifest.provenance, bundle.training()
    drawn = not len(images)
    if drawn:
        images = np.concatenate([to_uint8(bundle.sample(c, DRAWN, 1)) for c in range(len(m.clusters))])
    answers = bundle.examine(images, embed=True, score=m.scoring is not None)
    if not answers.finite.all():
        images, answers, labels = images[answers.finite], answers.only(answers.finite), labels if labels is None else labels[answers.finite]
        if not len(images):
            raise DataError(f"{bundle.path} answers none of the images with finite numbers: no page can be made of them")
    assert answers.embedding is not None
    clusters, _ = bundle.decide(answers.assignment)
    tally = Tally(m)
    tally.clusters.update(answers.clusters.tolist())
    examined = Examined(images, clusters, answers.confidence, answers.assignment, answers.embedding)
    tiles = {"clusters": str(len(m.clusters)), "images examined": f"{len(images):,}", "mean confidence": f"{answers.confidence.mean():.3f}"}
    if m.scoring is not None and not drawn:
        tiles["unknown to the model"] = f"{(answers.clusters < 0).mean():.1%}"
    tiles |= {f"ACC, {part} images": f"{scores['acc']:.3f}" for part, scores in m.metrics.items()}
    return Facts(
        title=f"{p.data}: {len(m.clusters)} clusters",
        about=f"A bundle learnt from {p.learnt_from}"
        + ("; the verdict is that of its training." if training.verdict else ".")
        + (" No images were shown to it: these are its own drawings." if drawn else ""),
        strange=() if drawn else tally.warnings(),
        verdict=training.verdict,
        reasons=training.reasons,
        notes=training.notes,
        tiles=tiles,
        curves=training.curves,
        confusion=confusion(clusters, labels, classes, len(m.clusters)) if labels is not None else None,
        tables={
            "Model": {
                "model": m.model_id,
                "precision": m.precision,
                "prior": f"K = {len(m.clusters)} modes, delta = {m.delta} dimensions each, lambda = {m.lam:g}",
                "images": m.preprocess.size,
                **{g.name: f"{g.size:,} bytes, sha256 {g.sha256[:16]}" for g in m.graphs.values()},
                "largest difference from PyTorch": f"{max(m.parity.max_difference.values()):.1e}",
            },
            "Clusters after training": health_table(m.health),
            "Scores against labels": scores_table(m.metrics),
            **training.tables,
            "Where it comes from": {
                "recipe": p.recipe,
                "seed": str(p.seed),
                "epochs": str(p.epochs),
                "data": p.data,
                "data hash": p.data_hash,
                **p.versions,
            },
        },
        **pictured(examined, bundle, [cluster.share for cluster in m.clusters]),  # pyright: ignore[reportArgumentType]
    )
