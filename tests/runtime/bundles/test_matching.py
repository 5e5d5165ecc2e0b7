"""Matching clusters with classes: against every permutation."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catvae.runtime.bundles.matching import match_counts, most_frequent


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000), st.booleans())
def test_no_other_matching_agrees_more(clusters, classes, seed, whole):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (clusters, classes)) if whole else rng.random((clusters, classes))
    matched = match_counts(counts)
    taken = matched[matched >= 0]
    assert len(set(taken)) == len(taken) == min(clusters, classes)
    found = sum(counts[i, c] for i, c in enumerate(matched) if c >= 0)
    wide = counts if clusters <= classes else counts.T
    best = max(sum(wide[i, c] for i, c in enumerate(p)) for p in itertools.permutations(range(wide.shape[1]), wide.shape[0]))
    assert np.isclose(found, best)


def test_most_frequent_allows_sharing_and_names_no_tie():
    assert most_frequent([[5, 1], [3, 0], [0, 0], [2, 2], [0, 4]]).tolist() == [0, 0, -1, -1, 1]
