"""Merging by information: known structure, the loss formula, and what training does with it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catvae.core.clusters.agglomeration import (
    REMEMBERED,
    cut,
    grouped,
    information,
    least_view_agreement,
    merge_losses,
    merge_path,
    mutual_information,
    plogp,
    refine,
    remembered,
    standard_error,
)
from catvae.core.clusters.joints import Joints
from catvae.core.clusters.merging import STAYS, align, merge, merge_by_neighbours, merge_clusters, neighbour_information
from catvae.core.clusters.separation import most_apart, separations
from catvae.core.training.trainer import Trainer


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


def joined(joint: np.ndarray, i: int, j: int) -> np.ndarray:
    Q = joint.copy()
    Q[j] += Q[i]
    Q[:, j] += Q[:, i]
    return np.delete(np.delete(Q, i, 0), i, 1)


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(0, 1000))
def test_the_loss_is_the_information_that_disappears(n, seed):
    joint = random_joint(n, seed)
    losses, whole, share = merge_losses(joint), mutual_information(joint), joint.sum(1)
    apart = separations(joint)
    assert np.isinf(np.diag(losses)).all()
    for i in range(n):
        for j in range(i):
            lost = whole - mutual_information(joined(joint, i, j))
            assert losses[i, j] == pytest.approx(lost, abs=1e-12)
            assert lost >= -1e-12
            part = share[[i, j]] / (share[i] + share[j])
            assert apart[i, j] == pytest.approx(lost / (-(share[i] + share[j]) * (part * np.log(part)).sum()), abs=1e-9)


@settings(max_examples=30)
@given(st.integers(3, 12), st.integers(1, 3), st.integers(0, 1000))
def test_no_single_move_improves_the_most_informative_groups(n, clusters, seed):
    joint = random_joint(n, seed)
    merge = refine(joint, np.arange(n) % clusters, clusters)
    assert merge.information == pytest.approx(mutual_information(grouped(joint, merge.group, clusters)), abs=1e-12)
    assert set(merge.group) == set(range(clusters))
    for j in range(n):
        for k in range(clusters):
            moved = merge.group.copy()
            moved[j] = k
            if len(set(moved)) == clusters:
                assert mutual_information(grouped(joint, moved, clusters)) <= merge.information + 1e-9


@given(st.integers(2, 12), st.integers(0, 1000))
def test_a_path_can_be_cut_anywhere(n, seed):
    path = merge_path(random_joint(n, seed), separations)
    finer = cut(path, n)
    assert sorted(finer) == list(range(n))
    for clusters in range(n - 1, 0, -1):
        coarser = cut(path, clusters)
        assert set(coarser) == set(range(clusters))
        assert all(len(set(coarser[finer == k])) == 1 for k in set(finer))
        finer = coarser


def test_crumbs_do_not_become_groups():
    truth = np.repeat([0, 1, 2], 4)
    joint = np.where(truth[:, None] == truth[None], 0.05, 0.001) + 0.2 * np.eye(12)
    joint[3] *= 1e-4
    joint[:, 3] *= 1e-4
    merged = most_apart(joint / joint.sum(), 3)
    others = np.delete(np.arange(12), 3)
    assert len({(truth[i], merged[i]) for i in others}) == 3


def test_as_many_groups_as_small_clusters_is_no_merge(monkeypatch):
    """A greedy path of a thousand would take minutes."""
    monkeypatch.setattr("catvae.core.clusters.separation.merge_path", None)
    assert most_apart(np.eye(1000) / 1000, 1000).tolist() == list(range(1000))


def test_information_of_known_joints():
    assert mutual_information(np.eye(4) / 4) == pytest.approx(np.log(4))
    assert mutual_information(np.full((4, 4), 1 / 16)) == pytest.approx(0)
    assert merge_clusters(np.eye(3) / 3, 3).group.tolist() == [0, 1, 2]


def test_alignment_keeps_the_numbers_of_clusters_that_survive():
    shared = np.array([[0, 0.3], [0.3, 0], [0, 0.2], [0.2, 0]])
    assert align(np.array([0, 1, 0, 1]), shared).tolist() == [1, 0, 1, 0]


def joints_from(views: np.ndarray, neighbours: np.ndarray, pixels: np.ndarray, images: int = 10**12) -> Joints:
    empty = np.zeros((0, 0))
    return Joints(empty, views / views.sum(), empty, neighbours / neighbours.sum(), pixels / pixels.sum(), empty, empty, 1.0, images)


def blocks(*groups: list[int], size: int = 6, within: float = 0.2) -> np.ndarray:
    """Small clusters that meet inside their group, hardly outside."""
    joint = np.full((size, size), 0.001) + np.eye(size)
    for group in groups:
        joint[np.ix_(group, group)] += within
    return joint


def test_views_decide_where_neighbours_say_something_else():
    views, others = blocks([0, 1], [2, 3], [4, 5]), blocks([0, 2], [1, 3], [4, 5])
    joints = joints_from(views, others, others)
    group = merge(joints, 3)
    assert group[0] == group[1] != group[2] == group[3] != group[4] == group[5]
    group = merge_by_neighbours(joints, 3)
    assert group[0] == group[2] != group[1] == group[3] != group[4] == group[5]


@given(st.integers(2, 4), st.integers(0, 1000))
def test_a_merge_says_of_views_what_can_be_said_but_for_a_tie(clusters, seed):
    views, hidden, pixels = (random_joint(8, seed + shift) for shift in range(3))
    joints = joints_from(views, hidden, pixels)
    group = merge(joints, clusters)
    assert set(group) == set(range(clusters))
    most = merge_clusters(joints.overclusters, clusters)
    stay = [least_view_agreement(grouped(joints.overclusters, found, clusters)) >= STAYS for found in (group, most.group)]
    assert stay[0] or information(joints.overclusters, group, clusters) >= most.information - 1e-5
    assert stay != [False, True]


def test_groups_that_views_lead_into_each_other_are_one_where_others_will_do():
    """Small clusters 0 and 1 hold images, 2 and 3 the views of these; 4 and 5 exchange some."""
    views = np.full((6, 6), 0.001)
    for image, view, often in ((0, 2, 1.0), (1, 3, 1.0), (0, 3, 1.0), (1, 2, 1.0), (4, 4, 1.0), (5, 5, 1.0), (4, 5, 0.2)):
        views[image, view] = views[view, image] = often
    neighbours = blocks([0, 1, 2, 3], [4], [5])
    joints = joints_from(views, neighbours, neighbours)
    leads = merge_clusters(joints.overclusters, 3)
    assert least_view_agreement(grouped(joints.overclusters, leads.group, 3)) < 0.1
    group = merge(joints, 3)
    assert group[0] == group[1] == group[2] == group[3]
    assert information(joints.overclusters, group, 3) < leads.information


def test_neighbour_information_counts_neighbours_of_both_kinds():
    group, equal = np.array([0, 0, 1, 1, 2, 2]), blocks([0, 1], [2, 3], [4, 5])
    denied = joints_from(equal, equal, blocks([0, 2], [1, 3], [4, 5]))
    both = neighbour_information(joints_from(equal, equal, equal), group, 3)
    assert both == pytest.approx(mutual_information(grouped(equal / equal.sum(), group, 3)))
    assert neighbour_information(denied, group, 3) < both


def test_pixels_decide_between_merges_that_tie():
    """Small cluster 2 shares as much with either pair, under views and in the hidden layer: pixels break the tie."""
    either = blocks([0, 1], [3, 4], size=5)
    either[2, [0, 1, 3, 4]] = either[[0, 1, 3, 4], 2] = 0.05
    for friends, others in (([0, 1], [3, 4]), ([3, 4], [0, 1])):
        pixels = either.copy()
        pixels[np.ix_([2], friends)] = pixels[np.ix_(friends, [2])] = 0.3
        group = merge(joints_from(either, either, pixels), 2)
        assert group[2] == group[friends[0]] != group[others[0]]


def test_pixels_decide_where_too_few_images_tell_merges_apart():
    """Small cluster 2 shares a little more of its views with one pair, and much more of its neighbours with the other."""
    views, pixels = blocks([0, 1], [3, 4], size=5), blocks([0, 1], [2, 3, 4], size=5)
    views[2, [0, 1]] = views[[0, 1], 2] = 0.055
    views[2, [3, 4]] = views[[3, 4], 2] = 0.05
    for images, friends in ((10**9, [0, 1]), (1000, [3, 4])):
        group = merge(joints_from(views, views, pixels, images), 2)
        assert group[2] == group[friends[0]] == group[friends[1]]


def test_the_standard_error_is_what_samples_spread_by():
    joint, images = random_joint(6, 3), 2000
    one, other = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 1])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        sample = rng.multinomial(images, joint.ravel()).reshape(6, 6) / images
        sample = (sample + sample.T) / 2
        found.append(information(sample, one, 3) - information(sample, other, 3))
    assert standard_error(joint, one, other, 3, images) == pytest.approx(np.std(found), rel=0.1)
    assert standard_error(joint, one, one, 3, images) == 0


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
    for _ in range(50):
        trainer.step()
    assert trainer.position.clusters == 3
    from catvae.core.clusters.metrics import label_scores
    from catvae.core.runs.evaluation import assign

    assert label_scores(assign(trainer.model, blobs.images).argmax(1), blobs.labels).acc == 1.0


@settings(max_examples=20)
@given(st.integers(3, 12), st.integers(0, 10_000))
def test_sums_kept_up_to_date_along_a_path_are_those_made_anew(n, seed):
    joint = random_joint(n, seed)
    kept, anew = merge_path(joint, merge_losses), merge_path(joint, lambda P, _: merge_losses(P))
    assert kept == anew


@settings(max_examples=20)
@given(st.integers(3, 14), st.integers(2, 4), st.integers(0, 10_000))
def test_no_move_of_one_small_cluster_improves_what_refining_ends_on(n, clusters, seed):
    clusters, joint = min(clusters, n - 1), random_joint(n, seed)
    merge = refine(joint, np.arange(n) % clusters, clusters)
    sizes = np.bincount(merge.group, minlength=clusters)
    assert sizes.min() > 0
    for j in np.flatnonzero(sizes[merge.group] > 1):
        for k in range(clusters):
            moved = np.where(np.arange(n) == j, k, merge.group)
            assert mutual_information(grouped(joint, moved, clusters)) <= merge.information + 1e-9


def test_what_was_asked_lately_is_remembered_by_its_numbers():
    asked = []

    @remembered
    def counted(joint, clusters):
        asked.append(clusters)
        return plogp(joint) * clusters

    joint = random_joint(4, 0)
    first = counted(joint, 2)
    assert counted(joint.copy(), 2) is first  # the numbers count, not whose they are
    assert counted(joint[::-1, ::-1], 2) is not first
    joint[0, 0] += 1
    np.testing.assert_array_equal(counted(joint, 2), 2 * plogp(joint))
    for clusters in range(3, 3 + REMEMBERED):
        counted(joint, clusters)
    counted(joint, 2)
    assert asked == [2, 2, 2, *range(3, 3 + REMEMBERED), 2]


def test_without_views_nothing_is_merged(blobs, quick):
    trainer = Trainer(blobs, quick(invariance_weight=0.0))
    trainer.run()
    assert trainer.position.group == []
