"""What is seen of a finished run without labels: signs of health, and the verdict on them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..clusters.borders import predicted_by_borders
from ..clusters.joints import estimate_joints
from ..clusters.metrics import health
from ..machine.devices import seeded
from ..training.trainer import Trainer
from . import evaluation
from .verdict import Evidence, Verdict, verdict


class Diagnosis(NamedTuple):
    """What `diagnose` finds."""

    health: dict[str, float]
    """Signs by name; see `evaluation.health_record`."""
    verdict: Verdict


def diagnose(trainer: Trainer, images: NDArray[np.uint8], assignment: NDArray[np.float32]) -> Diagnosis:
    """Look at clusters, views, drawings and borders; the caller's random state is left as it was.

    Parameters
    ----------
    trainer : Trainer
        A finished one.
    images : ndarray, (N, H, W, C), uint8
        All images of the run.
    assignment : ndarray, (N, K)
        q(c|x) of these images.
    """
    config, state = trainer.config, health(assignment)
    with seeded(config.seed, trainer.device):
        joints = estimate_joints(trainer.model, trainer.sample, trainer.policy)
    returned = evaluation.drawn_return(trainer.model, config.seed)
    by_borders = predicted_by_borders(images, assignment.argmax(1))
    seen = Evidence(
        state,
        joints if config.invariance_weight else None,
        unequal=trainer.position.unequal,
        chosen=config.chooses_clusters,
        steps=trainer.position.step,
        returned=returned,
        by_borders=by_borders,
        may_ignore_colours=bool(config.invariance_weight) and trainer.policy.moves and config.colours != "ignore",
        merges=config.merges,
    )
    return Diagnosis(evaluation.health_record(state, joints, returned, by_borders), verdict(seen))
