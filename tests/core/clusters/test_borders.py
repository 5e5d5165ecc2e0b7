"""Clusters that follow backgrounds are told by the images' borders; those that follow things are not."""

import numpy as np
import pytest

from catvae.core.clusters.borders import predicted_by_borders
from catvae.core.clusters.metrics import health
from catvae.core.runs.verdict import Evidence, verdict
from catvae.runtime.sampling import scattered


@pytest.fixture
def pile():
    """Things of three kinds on four backgrounds, in noise: images (240, 12, 10, 3), kinds, backgrounds."""
    rng = np.random.default_rng(0)
    kinds, grounds = rng.integers(0, 3, 240), rng.integers(0, 4, 240)
    colours = np.array([[40, 60, 90], [90, 60, 40], [120, 120, 120], [30, 110, 60]])[grounds]
    images = np.broadcast_to(colours[:, None, None], (240, 12, 10, 3)).copy()
    images[:, 4:8, 3:7] += 30 * (kinds + 1)[:, None, None, None]
    return np.clip(images + rng.normal(0, 5, images.shape), 0, 255).astype(np.uint8), kinds, grounds


def test_backgrounds_are_told_and_things_are_not(pile):
    images, kinds, grounds = pile
    assert predicted_by_borders(images, grounds) > 0.98
    assert predicted_by_borders(images, kinds) < 0.1
    assert predicted_by_borders(images[..., :1], kinds) < 0.1


def test_half_of_the_clusters_is_half_told(pile):
    """Two backgrounds apart, the other two in one cluster each with half of its images: no more is said than there is."""
    images, _, grounds = pile
    mixed = np.where(grounds < 2, grounds, 2 + np.arange(len(grounds)) % 2)
    assert 0.3 < predicted_by_borders(images, mixed) < 0.8


def test_nothing_to_tell(pile):
    images, kinds, _ = pile
    assert predicted_by_borders(images, np.zeros_like(kinds)) == 0
    assert predicted_by_borders(images[:49], kinds[:49]) == 0
    assert predicted_by_borders(images[:0], kinds[:0]) == 0
    assert predicted_by_borders(np.full_like(images, 7), kinds) < 0.1


def test_at_most_so_many_images_are_asked_for(pile, monkeypatch):
    images, _, grounds = pile
    monkeypatch.setattr("catvae.core.clusters.borders.AT_MOST", 120)
    spoilt = np.zeros_like(grounds)
    looked_at = scattered(len(images), 120)
    spoilt[looked_at] = grounds[looked_at]
    assert predicted_by_borders(images, spoilt) == predicted_by_borders(images, grounds) > 0.95


@pytest.mark.parametrize("cameras", [2, 3, 5, 10])
def test_backgrounds_in_turn_are_told_too(cameras):
    """Every n-th image would be of one background, which the others know nothing of."""
    rng = np.random.default_rng(0)
    grounds = np.arange(600) % cameras
    images = np.clip(20 * grounds[:, None, None, None] + rng.normal(20, 3, (600, 8, 8, 3)), 0, 255).astype(np.uint8)
    assert predicted_by_borders(images, grounds) > 0.98


def test_the_verdict_says_so():
    sure = health(np.eye(4, dtype=np.float32).repeat(25, 0))
    (note,) = verdict(Evidence(sure, by_borders=0.7)).notes
    assert note.startswith("the images' borders alone tell 70% of their clusters: these may be backgrounds")
    assert "try --colours ignore; else crop to the things" in note
    (note,) = verdict(Evidence(sure, by_borders=0.7, may_ignore_colours=False)).notes
    assert note.endswith("report. Crop to the things, or put them on one plain background")
    assert verdict(Evidence(sure, by_borders=0.5)).notes == ()
    assert verdict(Evidence(health(np.eye(4, dtype=np.float32)[[0, 1, 2] * 30]), by_borders=0.9)).notes == ()
