"""How many groups and of which sizes: known structure, and what is no sign of it."""

import numpy as np
import pytest

from catvae.core.clusters import grouping
from catvae.core.clusters.agglomeration import information, uncertainty_coefficient
from catvae.core.clusters.grouping import (
    FILLS,
    KEEP_MORE,
    LEAST,
    WORTH,
    WORTH_APART,
    UnequalEvidence,
    choose_clusters,
    sizes_and_number,
    unequal_evidence,
    unequal_is_clearer,
)
from catvae.core.clusters.joints import Joints
from catvae.core.clusters.merging import merge, merge_apart, merge_clusters
from catvae.core.config import resolve


def joints_of(views: np.ndarray, pixels: np.ndarray | None = None) -> Joints:
    """Views, and neighbours who know as much unless `pixels` says otherwise."""
    empty = np.zeros((0, 0))
    views = views / views.sum()
    pixels = views if pixels is None else pixels / pixels.sum()
    return Joints(empty, views, empty, views, pixels, empty, empty, 1.0, 10**9)


def exchanging(truth: np.ndarray, within: float = 0.05, outside: float = 0.0004) -> np.ndarray:
    """Small clusters of equal size that meet those of their own class."""
    return np.where(truth[:, None] == truth[None], within, outside) + 0.5 * np.eye(len(truth))


RARE = np.repeat([0, 1, 2, 3, 4], [10, 10, 1, 1, 1])
ALIKE = np.repeat(np.arange(5), 4)


def test_rare_classes_are_not_joined_to_halve_frequent_ones():
    """Two classes ten times as frequent as three others: ten small clusters and one."""
    joints = joints_of(exchanging(RARE))
    group = merge(joints, 5, unequal=True)
    assert all(len(set(group[k == RARE])) == 1 for k in range(5))
    assert unequal_is_clearer(joints, 5)
    views = joints.overclusters
    assert merge_clusters(views, 5).information > information(views, group, 5)


def test_classes_all_alike_and_a_collapsed_network_show_no_rare_ones():
    assert not unequal_is_clearer(joints_of(exchanging(ALIKE)), 5)
    assert unequal_evidence(joints_of(exchanging(ALIKE)), 5).more == pytest.approx(0, abs=1e-9)
    collapsed = np.zeros((20, 20))
    collapsed[3, 3] = 1
    assert not unequal_is_clearer(joints_of(collapsed), 5)


def test_small_clusters_that_swap_through_a_view_are_no_rare_classes():
    """As those of mirrored things are: each is far from its mirror, by its rows, and none is a class."""
    truth = np.repeat([0, 1, 2, 3, 4], [6, 6, 6, 1, 1])
    views = exchanging(truth)
    assert unequal_is_clearer(joints_of(views), 5)
    views[[-1, -2]] = views[[-2, -1]]
    swapping = joints_of(views, exchanging(truth))
    assert unequal_evidence(swapping, 5).stays < 0.1
    assert not unequal_is_clearer(swapping, 5)


def test_a_class_that_fills_most_of_a_set_is_seen_by_its_pixels():
    """Views tell its many small clusters apart in two halves; neighbours by pixels know of no halves."""
    truth = np.repeat([0, 1, 2, 3, 4], [16, 2, 2, 2, 2])
    halves = np.where(truth == 0, np.arange(24) % 2, truth + 1)
    views = exchanging(halves, within=0.08)
    views += np.where(np.isin(truth, (1, 2))[:, None] & np.isin(truth, (1, 2))[None], 0.01, 0.0)
    joints = joints_of(views, exchanging(truth, within=0.08))
    group = merge_apart(joints, 5)
    assert len(set(group[truth == 0])) == 1
    assert all(len(set(group[truth == k])) == 1 for k in range(5))
    assert unequal_evidence(joints, 5).more > KEEP_MORE
    assert unequal_is_clearer(joints, 5)
    assert unequal_evidence(joints, 5).fills > FILLS


def test_groups_that_keep_more_are_no_mark_where_none_of_them_fills_the_set(monkeypatch):
    """Garments, which shade into each other, from two starts of eight."""
    seen = UnequalEvidence(more=0.11, fills=0.26, evenness=0.97, further=0.09, kept=0.82, gap=-0.18, stays=0.0)
    monkeypatch.setattr(grouping, "unequal_evidence", lambda *_: seen)
    assert not unequal_is_clearer(joints_of(exchanging(ALIKE)), 5)
    seen = seen._replace(fills=0.45)
    assert unequal_is_clearer(joints_of(exchanging(ALIKE)), 5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("unequal", [False, True])
def test_k_is_the_number_of_classes(count, unequal):
    assert (
        choose_clusters(joints_of(exchanging(np.repeat(np.arange(count), 4), within=0.5)), 8 if count > 1 else 4, unequal=unequal) == count
    )


def test_nothing_is_apart_where_views_go_anywhere():
    assert choose_clusters(joints_of(np.ones((12, 12))), 6) == 1


def test_more_classes_than_clusters_take_all_there_may_be():
    assert choose_clusters(joints_of(exchanging(ALIKE, within=0.5)), 3) == 3


def mixed(kept: float, groups: int) -> np.ndarray:
    """Joint distribution of groups that are alike, of whose entropy views keep a share, by leading into every other one alike."""
    found = [np.where(np.eye(groups), 1 - (groups - 1) * out, out) / groups for out in np.linspace(0, 1 / groups, 5000)]
    return min(found, key=lambda joint: abs(uncertainty_coefficient(joint) - kept))


@pytest.mark.parametrize(("unequal", "least"), [(False, LEAST), (True, WORTH_APART)])
def test_groups_are_worth_having_where_views_keep_enough_of_them(unequal, least):
    for beyond, expected in ((0.02, 5), (-0.02, 1)):
        views = np.kron(mixed(least + beyond, 5), np.ones((4, 4)))
        assert choose_clusters(joints_of(views), 8, unequal=unequal) == expected


@pytest.mark.parametrize(("unequal", "least"), [(False, WORTH), (True, WORTH_APART)])
def test_halves_of_what_is_kept_whole_are_groups_where_views_keep_enough_of_them(unequal, least):
    for beyond, expected in ((0.03, 10), (-0.03, 5)):
        views = np.kron(np.eye(5), np.kron(mixed(least + beyond, 2), np.ones((2, 2))))
        assert choose_clusters(joints_of(views + 1e-9), 12, unequal=unequal) == expected


@pytest.mark.parametrize(("if_unequal", "clearer_at", "expected"), [(3, 7, (True, 3)), (3, 3, (False, 7)), (1, 7, (False, 7))])
def test_sizes_are_judged_at_the_larger_of_both_k(monkeypatch, if_unequal, clearer_at, expected):
    """Where all in one is what the unequal kind comes to, it says nothing of rare kinds."""
    monkeypatch.setattr(grouping, "choose_clusters", lambda *_, unequal=False: if_unequal if unequal else 7)
    monkeypatch.setattr(grouping, "unequal_is_clearer", lambda _, clusters: clusters == clearer_at)
    assert sizes_and_number(joints_of(exchanging(ALIKE)), resolve({"clusters": "auto"})) == expected
