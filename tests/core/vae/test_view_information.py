"""Mutual information of images and their views: known values, and what symmetrising makes of a cluster of views alone."""

import math

import pytest
import torch

from catvae.core.vae.view_information import view_information


def test_information_of_perfect_and_of_useless_assignments():
    sure = 50.0 * torch.eye(4).repeat(25, 1)
    found = view_information(sure, sure, 1.0)
    assert found.information.item() == pytest.approx(math.log(4), abs=1e-4)
    assert found.trained.item() == pytest.approx(math.log(4), abs=1e-4)
    assert view_information(torch.zeros(9, 4), torch.zeros(9, 4), 1.0).information.item() == pytest.approx(0, abs=1e-5)
    one = torch.zeros(9, 4)
    one[:, 0] = 50
    assert view_information(one, one, 1.0).information.item() == pytest.approx(0, abs=1e-4)
    assert view_information(sure, sure, 1.5).trained.item() == pytest.approx(2 * math.log(4), abs=1e-3)


def test_a_cluster_of_views_alone_is_worth_nothing_where_order_counts():
    """Two kinds, each of which has a cluster of its images and another one of their views: four clusters in all, two bits or one."""
    images, views = 50.0 * torch.eye(4)[[0, 1] * 50], 50.0 * torch.eye(4)[[2, 3] * 50]
    assert view_information(images, views, 1.0).information.item() == pytest.approx(math.log(4), abs=1e-3)
    assert view_information(images, views, 1.0, symmetric=False).information.item() == pytest.approx(math.log(2), abs=1e-3)
    sure = 50.0 * torch.eye(4).repeat(25, 1)
    for weight in (1.0, 1.5):
        symmetric, plain = (view_information(sure, sure, weight, symmetric=given) for given in (True, False))
        assert plain.trained.item() == pytest.approx(symmetric.trained.item(), abs=1e-5)
