"""Scores with known answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catvae.core.clusters.metrics import health, label_scores, match


def test_renamed_clusters_are_perfect():
    labels = np.array([0, 0, 1, 1, 2, 2])
    scores = label_scores(np.array([2, 2, 0, 0, 1, 1]), labels)
    assert scores == (1.0, pytest.approx(1), pytest.approx(1))
    assert match(np.array([2, 2, 0, 0, 1, 1]), labels, 3, 3).tolist() == [1, 2, 0]


def test_one_to_one_matching_does_not_merge():
    labels = np.array([0] * 6 + [1] * 4)
    clusters = np.array([0] * 3 + [1] * 3 + [2] * 4)
    assert label_scores(clusters, labels).acc == pytest.approx(0.7)
    assert match(clusters, labels, 3, 2).tolist().count(-1) == 1


def test_fewer_clusters_than_classes():
    assert label_scores(np.zeros(4, int), np.array([0, 1, 2, 2])).acc == pytest.approx(0.5)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 100))
def test_accuracy_ignores_the_names_of_clusters(labels, seed):
    rng = np.random.default_rng(seed)
    truth, clusters = np.array(labels), rng.integers(0, 4, len(labels))
    renamed = rng.permutation(4)[clusters]
    assert label_scores(clusters, truth).acc == pytest.approx(label_scores(renamed, truth).acc)
    assert label_scores(clusters, truth).acc >= np.bincount(truth).max() / len(truth) / 4


def test_health_of_known_assignments():
    sure = np.eye(4, dtype=np.float32).repeat(5, 0)
    state = health(sure)
    assert (state.perplexity, state.active, state.smallest_share) == (pytest.approx(4), 4, 0.25)
    assert state.information == pytest.approx(np.log(4))
    collapsed = health(np.tile(np.float32([1, 0, 0, 0]), (20, 1)))
    assert (collapsed.perplexity, collapsed.active, collapsed.information) == (pytest.approx(1), 1, pytest.approx(0))
    assert health(np.full((20, 4), 0.25, np.float32)).information == pytest.approx(0)
