"""The collapse guard: what it notices, and what is done about it."""

import re

import numpy as np
import pytest
import torch

from catvae.core.clusters.guard import watch
from catvae.core.clusters.joints import estimate_joints
from catvae.core.clusters.metrics import health, label_scores
from catvae.core.runs.evaluation import assign
from catvae.core.runs.verdict import Evidence, verdict
from catvae.core.training.trainer import Hooks, Trainer


def test_watch_names_what_collapsed():
    assert watch(np.array([0.3, 0.4, 0.3])) is None
    assert watch(np.array([0.95, 0.03, 0.02])) == ("one cluster", [0])
    assert watch(np.array([0.5, 0.4999, 0.0001])) == ("dead", [2])
    assert watch(np.array([1.0])) is None
    assert watch(np.array([0.18] * 5 + [0.02] * 5)) is None  # rare classes are no dead clusters
    assert watch(np.array([0.95, 0.05]), unequal=True) is None  # of a belt with a fault in twenty
    assert watch(np.array([0.995, 0.005]), unequal=True) == ("one cluster", [0])
    assert watch(np.array([0.95, 0.0499, 0.0001]), unequal=True) == ("dead", [2])


def train(trainer: Trainer, until: int) -> None:
    while trainer.position.step < until:
        trainer.step()


def test_a_collapse_into_one_class_is_undone(blobs, quick):
    """All images are pushed into one cluster, so firmly that no gradient is left; the guard draws the outputs anew and all is found."""
    settings = {"augment": "none", "epochs": 400, "learning_rate": 3e-3, "regroup": (0.5,)}
    for guard in (True, False):
        trainer = Trainer(blobs, quick(**settings, guard=guard))
        for rows in trainer.model.head_rows:
            with torch.no_grad():
                trainer.model.head.weight[rows] = 0
                trainer.model.head.bias[rows] = 0
                trainer.model.head.bias[rows.start] = 1000
        trainer.run()
        clusters = assign(trainer.model, blobs.images).argmax(1)
        if guard:
            assert "held nearly every image" in trainer.position.events[0].what
            assert label_scores(clusters, blobs.labels).acc == 1.0
        else:
            assert trainer.position.events == []
            assert len(set(clusters)) == 1


def test_a_collapse_after_k_was_chosen_is_undone_more_than_once(blobs, quick):
    """Drawn anew, clusters have no merge any more, as before K was chosen."""
    trainer = Trainer(blobs, quick(clusters="auto", max_clusters=3))
    after = trainer.steering.merge_steps[0] + 1000
    for acts in (1, 2):
        trainer.position.group, trainer.position.shares = [], [0.98, 0.01, 0.01]
        trainer.position.guard_from = 0
        trainer.steering._guard(after, trainer.trained, trainer.position)
        assert trainer.position.guard_acts == acts
    trainer.position.shares = [0.98, 0.01, 0.01]
    trainer.steering._guard(0, trainer.trained, trainer.position)
    assert trainer.position.guard_acts == 2


@pytest.mark.parametrize("merged", [True, False])
def test_a_dead_cluster_comes_back(blobs, quick, merged):
    regroup = (0.1,) if merged else ()
    trainer = Trainer(blobs, quick(augment="none", epochs=400, learning_rate=3e-3, regroup=regroup))
    train(trainer, 700)
    clusters, _ = trainer.model.head_rows
    with torch.no_grad():
        trainer.model.head.bias[clusters.start] = -1000
    trainer.run()
    assert re.search(r"cluster \d was empty: |clusters \d, \d.* were empty: ", trainer.position.events[-1].what)
    assert label_scores(assign(trainer.model, blobs.images).argmax(1), blobs.labels).acc == 1.0


def test_a_model_that_keeps_collapsing_is_left_to_the_verdict(blobs, quick):
    trainer = Trainer(blobs, quick(augment="none", epochs=500, regroup=()))

    def collapse(_loss) -> None:
        with torch.no_grad():
            trainer.model.head.bias[trainer.model.head_rows[0].start] = 1000

    trainer.run(Hooks(on_step=collapse))
    assert trainer.position.guard_acts == len(trainer.position.events) == 5
    state = health(assign(trainer.model, blobs.images))
    assert verdict(Evidence(state, estimate_joints(trainer.model, trainer.sample, trainer.policy))).status == "degenerate"


def test_k_auto_finds_three_kinds_and_prunes_the_rest(blobs, quick):
    trainer = Trainer(blobs, quick(augment="none", clusters="auto", max_clusters=8, epochs=200, learning_rate=3e-3, overclusters=2))
    assert trainer.model.spec.clusters == 8
    trainer.run()
    assert trainer.model.spec.clusters == trainer.position.clusters == 3
    assert trainer.model.prior.shape == (3, 12)
    assert "K = 3 chosen of at most 8" in trainer.position.events[0].what
    assert label_scores(assign(trainer.model, blobs.images).argmax(1), blobs.labels).acc == 1.0
