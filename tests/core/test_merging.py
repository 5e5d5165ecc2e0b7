"""Merging by information: known structure, the loss formula, and what training does with it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catvae.core.merging import _merge_losses, _pair_terms, align, estimate_joints, merge_clusters, mutual_information
from catvae.core.training import Trainer


def random_joint(n: int, seed: int) -> np.ndarray:
    counts = np.random.default_rng(seed).random((n, n)) ** 3
    joint = counts + counts.T
    return joint / joint.sum()


def test_blocks_that_exchange_views_are_merged():
    truth = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    joint = np.where(truth[:, None] == truth[None], 0.3, 0.01) + np.eye(9)
    merged = merge_clusters(joint / joint.sum(), 3).group
    assert all(len(set(merged[truth == k])) == 1 for k in range(3))
    assert len(set(merged)) == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 1000))
def test_the_loss_is_the_information_that_disappears(n, seed):
    joint = random_joint(n, seed)
    losses, whole = _merge_losses(joint, _pair_terms(joint)), mutual_information(joint)
    assert np.isinf(np.diag(losses)).all()
    for i in range(n):
        for j in range(i):
            Q = joint.copy()
            Q[j] += Q[i]
            Q[:, j] += Q[:, i]
            Q = np.delete(np.delete(Q, i, 0), i, 1)
            assert losses[i, j] == pytest.approx(whole - mutual_information(Q), abs=1e-12)
            assert losses[i, j] >= -1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(1, 3), st.integers(0, 1000))
def test_each_merge_is_the_cheapest(n, clusters, seed):
    """The running sums give the same partition as computing every loss afresh."""
    joint = random_joint(n, seed)
    P, members = joint.copy(), [[i] for i in range(n)]
    while len(P) > clusters:
        i, j = sorted(divmod(int(_merge_losses(P, _pair_terms(P)).argmin()), len(P)))
        P[i] += P[j]
        P[:, i] += P[:, j]
        P = np.delete(np.delete(P, j, 0), j, 1)
        members[i] += members.pop(j)
    found = merge_clusters(joint, clusters)
    assert found.information == pytest.approx(mutual_information(P), abs=1e-9)
    assert all(len(set(found.group[rows])) == 1 for rows in members)


def test_information_of_known_joints():
    assert mutual_information(np.eye(4) / 4) == pytest.approx(np.log(4))
    assert mutual_information(np.full((4, 4), 1 / 16)) == pytest.approx(0)
    assert merge_clusters(np.eye(3) / 3, 3).group.tolist() == [0, 1, 2]


def test_alignment_keeps_the_numbers_of_clusters_that_survive():
    shared = np.array([[0, 0.3], [0.3, 0], [0, 0.2], [0.2, 0]])
    assert align(np.array([0, 1, 0, 1]), shared).tolist() == [1, 0, 1, 0]


def test_joints_are_distributions(blobs, quick):
    trainer = Trainer(blobs, quick(augment="none"))
    joints = estimate_joints(trainer.model, trainer.images, trainer.policy)
    assert joints.clusters.shape == (3, 3)
    assert joints.overclusters.shape == (6, 6)
    assert joints.shared.shape == (6, 3)
    for joint in joints:
        assert joint.sum() == pytest.approx(1)
        assert joint.min() >= 0


def test_a_merged_pair_of_clusters_is_taken_apart(blobs, quick):
    """A head that ignores one of three obvious kinds is replaced by the merge of over-clusters that tell them apart."""
    trainer = Trainer(blobs, quick(augment="none", epochs=200, learning_rate=3e-3, regroup=(0.5,)))
    half = trainer.steps // 2
    while trainer.position.step < half:
        trainer.step()
    clusters, _ = trainer.model.head_rows
    with torch.no_grad():
        trainer.model.head.weight[clusters.start] = trainer.model.head.weight[clusters.start + 1]
        trainer.model.head.bias[clusters.start] = trainer.model.head.bias[clusters.start + 1] - 50
    trainer.step()
    assert trainer.position.group
    assert trainer.position.follow_until > half
    for _ in range(50):
        trainer.step()
    from catvae.core.evaluation import assign
    from catvae.core.metrics import label_scores

    assert label_scores(assign(trainer.model, blobs.images).argmax(1), blobs.labels).acc == 1.0
