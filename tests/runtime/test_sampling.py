"""Some of many: distinct, within range, and of every kind where kinds come in turn."""

import numpy as np
import pytest

from catvae.runtime.sampling import evenly, scattered


def test_evenly_chosen_rows_are_distinct_and_reach_both_ends():
    assert evenly(3, 10).tolist() == [0, 1, 2]
    assert evenly(0, 10).tolist() == []
    rows = evenly(1_000_003, 5000)
    assert (rows[0], rows[-1], len(set(rows.tolist()))) == (0, 1_000_002, 5000)


@pytest.mark.parametrize(("count", "at_most"), [(0, 5), (1, 5), (5, 5), (6, 5), (1_000_003, 5000)])
def test_scattered_rows_are_sorted_distinct_and_always_the_same(count, at_most):
    rows = scattered(count, at_most)
    assert len(rows) == min(count, at_most)
    assert (np.diff(rows) > 0).all()
    assert not len(rows) or (rows[0] >= 0 and rows[-1] < count)
    assert (rows == scattered(count, at_most)).all()


@pytest.mark.parametrize("kinds", [2, 3, 5, 10])
@pytest.mark.parametrize("count", [2000, 3000, 10_000, 60_000])
def test_of_kinds_in_turn_each_has_its_share(count, kinds):
    shares = np.bincount(scattered(count, 1000) % kinds, minlength=kinds) / 1000
    assert abs(shares - 1 / kinds).max() < 0.05
