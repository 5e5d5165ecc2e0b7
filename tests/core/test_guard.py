"""The collapse guard: what it notices, what it does about it, what it says in the end."""

import re

import numpy as np
import pytest
import torch

from catvae.core.evaluation import assign
from catvae.core.guard import merged_clusters, split_clusters, verdict, watch
from catvae.core.joints import Joints, estimate_joints
from catvae.core.metrics import health, label_scores
from catvae.core.training import Trainer


def joint_of(classes: list[int], between: float = 0.0004, within: float = 0.05, own: float = 0.05) -> np.ndarray:
    """Small clusters that exchange views within their class, hardly outside."""
    of = np.array(classes)
    joint = np.where(of[:, None] == of[None], within, between) + own * np.eye(len(of))
    return joint / joint.sum()


def joints_of(classes: list[int], homes: list[int]) -> Joints:
    """Those small clusters, living in clusters `homes`."""
    over, home = joint_of(classes), np.eye(max(homes) + 1)[homes]
    clusters = home.T @ over @ home
    return Joints(clusters, over, over.sum(1)[:, None] * home, over, over, clusters, clusters, float(np.trace(clusters)), 10**9)


def test_watch_names_what_collapsed():
    assert watch(np.array([0.3, 0.4, 0.3])) is None
    assert watch(np.array([0.95, 0.03, 0.02])) == ("one class", [0])
    assert watch(np.array([0.5, 0.4999, 0.0001])) == ("dead", [2])
    assert watch(np.array([1.0])) is None
    assert watch(np.array([0.18] * 5 + [0.02] * 5)) is None  # rare classes are no dead clusters
    assert watch(np.array([0.95, 0.05]), unequal=True) is None  # of a belt with a fault in twenty
    assert watch(np.array([0.995, 0.005]), unequal=True) == ("one class", [0])
    assert watch(np.array([0.95, 0.0499, 0.0001]), unequal=True) == ("dead", [2])


def test_merged_and_split_clusters_are_found():
    sound = joints_of([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    assert merged_clusters(sound) == []
    assert split_clusters(sound.clusters) == []
    wrong = joints_of([0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2, 2, 2])
    assert merged_clusters(wrong) == [2]
    assert split_clusters(wrong.clusters) == [(0, 1)]


def test_verdicts():
    sure = health(np.eye(4, dtype=np.float32).repeat(25, 0))
    assert verdict(sure).status == "healthy"
    one = verdict(health(np.eye(4, dtype=np.float32)[[0] * 97 + [1, 2, 3]]))
    assert (one.status, one.reasons[0][:36]) == ("degenerate", "cluster 0 holds 97% of the images: a")
    dead = verdict(health(np.eye(4, dtype=np.float32)[[0, 1, 2] * 30]))
    assert dead.status == "degenerate"
    assert "cluster 3 is nearly empty: fewer clusters (-k 3)" in dead.reasons[0]
    unsure = verdict(health(np.full((40, 4), 0.25, np.float32) + np.eye(4, dtype=np.float32).repeat(10, 0) * 0.01))
    assert "uncertain" in unsure.reasons[-1]
    notes = verdict(sure, joints_of([0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2, 2, 2])).notes
    assert any("cluster 2 holds two groups" in note for note in notes)
    assert any("clusters 0 and 1 exchange views" in note for note in notes)


def test_clusters_that_do_not_outlive_a_view_are_not_called_healthy():
    sure = health(np.eye(4, dtype=np.float32).repeat(25, 0))
    loose = joint_of([0, 1, 2, 3], between=1.0, within=1.0, own=1.2)
    found = verdict(sure, Joints(loose, loose, np.eye(4) / 4, loose, loose, loose, loose, float(np.trace(loose)), 10**9))
    assert found.status == "degenerate"
    assert found.reasons[0].startswith("only 42% of the images keep their cluster")
    assert found.notes == ()


def test_drawings_that_are_sorted_elsewhere_are_said():
    sure = health(np.eye(4, dtype=np.float32).repeat(25, 0))
    found = verdict(sure, returned=0.62)
    assert (found.status, found.notes[0][:59]) == ("healthy", "only 62% of the images drawn from a cluster are sorted into")
    assert verdict(sure, returned=0.9).notes == ()
    assert verdict(health(np.eye(4, dtype=np.float32)[[0, 1, 2] * 30]), returned=0.1).notes == ()


def test_many_pairs_that_may_be_one_are_said_in_one_line():
    mixed = joint_of([0] * 4, within=1.0, own=4.0)
    joints = Joints(mixed, mixed, np.eye(4) / 4, mixed, mixed, mixed, mixed, 0.9, 10**9)
    notes = verdict(health(np.eye(4, dtype=np.float32).repeat(25, 0)), joints).notes
    assert "6 pairs of clusters exchange views, 0 and 1 among them: try fewer clusters (-k)" in notes
    assert not any("they may be one" in note for note in notes)


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

    trainer.run(on_step=collapse)
    assert trainer.position.guard_acts == len(trainer.position.events) == 5
    state = health(assign(trainer.model, blobs.images))
    assert verdict(state, estimate_joints(trainer.model, trainer.looked_at, trainer.policy)).status == "degenerate"


def test_k_auto_finds_three_kinds_and_prunes_the_rest(blobs, quick):
    trainer = Trainer(blobs, quick(augment="none", clusters="auto", max_clusters=8, epochs=200, learning_rate=3e-3, overclusters=2))
    assert trainer.model.spec.clusters == 8
    trainer.run()
    assert trainer.model.spec.clusters == trainer.position.clusters == 3
    assert trainer.model.prior.shape == (3, 12)
    assert "K = 3 chosen of at most 8" in trainer.position.events[0].what
    assert label_scores(assign(trainer.model, blobs.images).argmax(1), blobs.labels).acc == 1.0


def test_one_cluster_for_everything_is_said():
    assert "-k 1 asked for no more" in verdict(health(np.ones((9, 1), np.float32))).notes[0]
    (note,) = verdict(health(np.ones((9, 1), np.float32)), chosen=True).notes
    assert "nothing was separated" in note


def test_bad_clusters_of_a_short_run_are_blamed_on_that_first():
    collapsed = health(np.eye(4, dtype=np.float32)[[0] * 99 + [1]])
    assert verdict(collapsed, steps=60).reasons[0] == "trained for 60 steps only, where a thousand are usual: leave out --epochs"
    assert "60 steps" not in "".join(verdict(collapsed, steps=1000).reasons)
    assert verdict(health(np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 9]), steps=60).status == "healthy"
