"""Latents are arithmetic: known values, and the same draws on every machine."""

import numpy as np
import pytest

from catvae.runtime.bundles.latents import interpolate, prior_means, prior_samples, walk
from catvae.runtime.errors import UsageError


def test_means_are_orthogonal_and_equidistant():
    means = prior_means(5, 4, 2.5)
    assert means.shape == (5, 20)
    gram = means @ means.T
    np.testing.assert_allclose(gram, 4 * 2.5**2 * np.eye(5))


def test_draws_are_the_same_everywhere():
    drawn = prior_samples(prior_means(3, 2, 2.0), cluster=1, n=2, seed=7)
    golden = [[1.876122, -0.5396083, -0.28678203, 1.8181609, -0.17108242, -0.29547554]]
    np.testing.assert_allclose(drawn[:1], golden, rtol=1e-6)


def test_first_draws_do_not_depend_on_how_many_follow():
    means = prior_means(3, 2, 2.0)
    assert np.array_equal(prior_samples(means, 1, 5, 7)[:2], prior_samples(means, 1, 2, 7))
    assert not np.array_equal(prior_samples(means, 1, 2, 7) - means[1], prior_samples(means, 2, 2, 7) - means[2])


def test_lines_and_walks():
    means = prior_means(2, 1, 3.0)
    line = interpolate(means[0], means[1], 3)
    np.testing.assert_allclose(line, [[3, 0], [1.5, 1.5], [0, 3]])
    np.testing.assert_allclose(walk(means, 1, 3, reach=2), [[0, 0], [0, 3], [0, 6]])
    with pytest.raises(UsageError):
        walk(means, -1, 3)
