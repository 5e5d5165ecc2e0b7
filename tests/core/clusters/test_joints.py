"""Joint distributions: sums, symmetry, and neighbours against a direct search."""

import dataclasses

import numpy as np
import pytest
import torch

from catvae.core.clusters.joints import PAIRS, SIMILARITY_ROWS, estimate_joints, nearest, neighbour_joint
from catvae.core.training.trainer import Trainer


def test_joints_are_distributions(blobs, quick):
    trainer = Trainer(blobs, quick(augment="none"))
    joints = estimate_joints(trainer.model, trainer.sample, trainer.policy)
    assert joints.clusters.shape == joints.cluster_neighbours.shape == joints.cluster_pixels.shape == (3, 3)
    assert joints.overclusters.shape == joints.neighbours.shape == joints.pixels.shape == (6, 6)
    assert joints.shared.shape == (6, 3)
    for joint in joints[:-2]:
        assert joint.sum() == pytest.approx(1)
        assert joint.min() >= 0
    for joint in (joints.clusters, joints.overclusters, joints.neighbours, joints.pixels):
        np.testing.assert_allclose(joint, joint.T)


def test_a_view_that_stays_where_its_image_is_counts_whole_however_uncertain_it_is(blobs, quick):
    trainer = Trainer(blobs, quick(augment="none"))
    joints = estimate_joints(trainer.model, trainer.sample, trainer.policy)
    assert joints.view_agreement > 0.9
    assert np.trace(joints.clusters) < 0.6


def test_no_overclusters_give_empty_joints(blobs, quick):
    trainer = Trainer(blobs, quick(augment="none", overclusters=0, regroup=[]))
    joints = estimate_joints(trainer.model, trainer.sample, trainer.policy)
    assert joints.overclusters.shape == joints.neighbours.shape == joints.pixels.shape == (0, 0)


def test_nearest_is_a_direct_search_across_blocks():
    features = torch.randn(SIMILARITY_ROWS + 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = features / features.norm(dim=1, keepdim=True)
    similarity = (unit @ unit.T).fill_diagonal_(-9)
    assert torch.equal(nearest(features, 3), similarity.topk(3, dim=1).indices)


def test_few_rows_have_few_neighbours():
    assert nearest(torch.eye(3), 5).shape == (3, 2)


def test_the_joint_counts_pairs_both_ways():
    assignment = torch.eye(2)[[0, 0, 1]].double()
    joint = neighbour_joint(assignment, torch.tensor([[1], [2], [0]]))
    np.testing.assert_allclose(joint, np.array([[2, 2], [2, 0]]) / 6)


def test_a_few_images_are_viewed_many_at_a_time(blobs, quick, monkeypatch):
    """Two images viewed 10,000 times each, one pass of the encoder per view, took minutes."""
    trainer = Trainer(dataclasses.replace(blobs, images=blobs.images[:3]), quick(augment="none"))
    sizes: list[int] = []
    encode = trainer.model.encode
    monkeypatch.setattr(trainer.model, "encode", lambda x: sizes.append(len(x)) or encode(x))
    joints = estimate_joints(trainer.model, trainer.sample, trainer.policy)
    assert sum(sizes) == pytest.approx(PAIRS, abs=3)
    assert len(sizes) <= 1 + PAIRS // 1000
    assert joints.clusters.sum() == pytest.approx(1)
