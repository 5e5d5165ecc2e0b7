"""Reject thresholds: the lowest percent of images that were held back."""

import msgspec
import numpy as np
import pytest

from catvae.core.images.data import load_data
from catvae.core.images.held_back import LEAST, Calibration, read_calibration, split
from catvae.export.bundle_writer import export_bundle
from catvae.export.thresholds import EACH, ENOUGH, QUANTILE, _quantile, calibrate, least_contrast
from catvae.runtime.bundles.answers import UNKNOWN, Answers
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.scoring import pixel_entropy


@pytest.fixture(scope="module")
def bundle(finished_run, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundles") / "b"
    export_bundle(finished_run, target)
    return Bundle.load(target)


def test_the_quantile_lies_among_the_scores():
    scores = np.arange(1000.0)
    assert _quantile(scores, 0.01) == 9
    assert _quantile(scores, EACH) == 4
    assert (scores < _quantile(scores, EACH)).mean() <= EACH
    assert _quantile(np.array([3.0, 2.0]), EACH) == 2


def test_thresholds_are_of_images_that_were_not_trained_on(bundle, finished_run):
    calibration = read_calibration(finished_run)
    rows = split(1797)
    images = load_data("digits").images
    assert np.array_equal(calibration.held_back, images[rows.held_back])
    assert len(rows.held_back) == 90
    assert not set(rows.held_back) & set(rows.trained)
    assert len(rows.held_back) + len(rows.trained) == 1797
    assert bundle.manifest.scoring.held_back
    assert bundle.manifest.scoring.images == 90
    unknown = bundle.examine(calibration.held_back, score=True).clusters == UNKNOWN
    assert unknown.mean() <= QUANTILE


def test_noise_is_unknown_and_training_images_are_not(bundle):
    noise = np.random.default_rng(0).integers(0, 256, (50, *bundle.preprocess.shape), dtype=np.uint8)
    assert (bundle.examine(noise, score=True).clusters == UNKNOWN).all()
    assert (bundle.examine(load_data("digits").images, score=True).clusters == UNKNOWN).mean() < 0.05


def test_a_large_cluster_has_a_threshold_of_its_own():
    class TwoClusters:
        """A large cluster that scores high, a small one that scores low."""

        names = ("large", "small")

        @staticmethod
        def examine(images, score):
            small = np.arange(len(images)) < 10
            assignment = np.stack([~small, small], 1).astype(np.float32)
            scores = np.where(small, -500, -np.arange(len(images))).astype(np.float32)
            finite = np.arange(len(images)) != 20  # what has no finite answer has no say
            scores[~finite] = np.nan
            return Answers(assignment.argmax(1), assignment.max(1), assignment, None, scores, ~finite, finite)

    empty = np.zeros((0, 1, 1, 1), np.uint8)
    held = np.zeros((10 + 2 * ENOUGH, 1, 1, 1), np.uint8)
    thresholds, record = calibrate(TwoClusters(), Calibration(empty, held))
    assert thresholds[0].bound == thresholds[0].relative == -(len(held) - 2)  # black pixels allow certainty
    assert thresholds[1].bound == -500
    assert record.held_back
    _, record = calibrate(TwoClusters(), Calibration(held, empty))
    assert not record.held_back


def test_images_that_all_score_alike_are_not_unknown():
    """Empty ones do; rounded up, the threshold would lie above every one of them."""

    class Same:
        names = ("one",)

        @staticmethod
        def examine(images, score):
            ones = np.ones((len(images), 1), np.float32)
            scores, none, every = ones[:, 0] * np.float32(-12.3454), np.zeros(len(images), bool), np.ones(len(images), bool)
            return Answers(np.zeros(len(images), int), ones[:, 0], ones, None, scores, none, every)

    images = np.full((2 * ENOUGH, 30, 30, 1), 91, np.uint8)  # grey: a relative score in the hundreds
    (own,), scoring = calibrate(Same(), Calibration(images[:0], images))
    manifest = Bundle.load().manifest
    one = msgspec.structs.replace(manifest.clusters[0], reject_threshold=own.bound, reject_relative=own.relative)
    low, relatively_low = msgspec.structs.replace(manifest, clusters=[one]).reject_thresholds[:, 0]
    bound = np.float32(-12.3454)
    assert bound >= low > -12.4
    assert bound + pixel_entropy(images[:1])[0] >= relatively_low > bound + pixel_entropy(images[:1])[0] - 0.01
    assert scoring.least_contrast == 0


def test_blank_images_are_unknown_unless_there_were_some_in_training(bundle):
    digits = load_data("digits").images
    assert 30 < bundle.manifest.least_contrast == pytest.approx(least_contrast(digits), abs=2)
    blank = np.full((3, *bundle.preprocess.shape), 15, np.uint8)
    assert (bundle.examine(blank, score=True).clusters == UNKNOWN).all()
    many = digits[:1000]
    assert least_contrast(np.concatenate([many, blank])) > 30
    assert least_contrast(np.concatenate([many, np.repeat(blank, 5, 0)])) == 0


def test_a_small_set_holds_nothing_back():
    assert len(split(20 * LEAST - 20).held_back) == 0
    assert len(split(20 * LEAST).held_back) == LEAST
    assert len(split(10**6).held_back) == 1000
