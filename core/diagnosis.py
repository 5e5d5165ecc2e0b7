"""What a finished training shows of itself without labels: signs of health, and the verdict on them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import evaluation
from .borders import told_by_borders
from .devices import seeded
from .guard import Verdict, verdict
from .joints import estimate_joints
from .metrics import health
from .training import Trainer


class Diagnosis(NamedTuple):
    """Of one run."""

    health: dict[str, float]
    """Signs by name; see `evaluation.health_record`."""
    verdict: Verdict


def diagnose(trainer: Trainer, images: NDArray[np.uint8], assignment: NDArray[np.float32]) -> Diagnosis:
    """Look at clusters, views, drawings and borders of a trained network; the caller's random state is left as it was.

    Parameters
    ----------
    trainer : Trainer
        That is finished.
    images : ndarray, (N, H, W, C), uint8
        The pile.
    assignment : ndarray, (N, K)
        q(c|x) of them.
    """
    config, state = trainer.config, health(assignment)
    with seeded(config.seed, trainer.device):
        joints = estimate_joints(trainer.model, trainer.looked_at, trainer.policy)
    returned = evaluation.drawn_return(trainer.model, config.seed)
    by_borders = told_by_borders(images, assignment.argmax(1))
    found = verdict(
        state,
        joints if config.invariance_weight else None,
        unequal=trainer.position.unequal,
        chosen=config.choose_clusters,
        steps=trainer.position.step,
        returned=returned,
        by_borders=by_borders,
        by_outlines=config.colours == "ignore",
    )
    return Diagnosis(evaluation.health_record(state, joints, returned, by_borders), found)
