"""Bound and likelihood against numbers that are known without them."""

import itertools
import math

import numpy as np
import pytest
import torch

from catvae.core.clusters.metrics import calibration_error, generation_ceiling
from catvae.core.images.pieces import to_float
from catvae.core.training.trainer import Trainer
from catvae.core.vae.likelihood import _log_mixture, likelihood


@pytest.fixture
def model(blobs, quick):
    trainer = Trainer(blobs, quick(net="mlp", hidden=8, delta=1, augment="none"))
    for _ in range(10):
        trainer.step()
    return trainer.model


def test_the_likelihood_is_that_of_numerical_integration(blobs, model):
    """D = 3: p(x) is a sum over a fine grid of latents."""
    found = likelihood(model, blobs.images[:4], draws=4000, seed=1)
    axis = torch.linspace(-6, 8, 57)
    z = torch.tensor(list(itertools.product(axis.tolist(), repeat=3)))
    with torch.no_grad():
        log_prior = _log_mixture(z[None], torch.full((1, 3), -math.log(3)), model.prior[None], torch.zeros(1, 3, 3))[0]
        x = to_float(torch.from_numpy(blobs.images[:4]))
        binary = (torch.from_numpy(np.random.default_rng([1, 1]).random(tuple(x.shape), dtype=np.float32)) < x).float()
        pixels = model.decode(z)
        error = torch.nn.functional.binary_cross_entropy_with_logits
        exact = [
            -float((log_prior - error(pixels, b.expand_as(pixels), reduction="none").flatten(1).sum(1)).logsumexp(0))
            - 3 * math.log(float(axis[1] - axis[0]))
            for b in binary
        ]
    assert found.nll == pytest.approx(np.mean(exact), abs=0.02)


def test_more_draws_lower_the_bound(blobs, model):
    few, many = (likelihood(model, blobs.images, draws=draws) for draws in (1, 500))
    assert many.nll < few.nll
    assert (few.images, few.draws, many.draws) == (120, 1, 500)
    assert few.elbo == pytest.approx(many.elbo, abs=1e-4)


def test_the_terms_add_up_and_agree_with_training(blobs, model):
    found = likelihood(model, blobs.images)
    assert found.elbo == pytest.approx(-(found.reconstruction + found.kl + found.neg_entropy + math.log(3)))
    again = likelihood(model, blobs.images)
    assert again == found
    state = torch.random.get_rng_state()
    likelihood(model, blobs.images)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_ceiling_of_generation_is_that_of_a_simulation():
    rng = np.random.default_rng(0)
    for clusters, delta, lam in ((10, 2, 2.0), (10, 4, 2.5), (3, 1, 1.0)):
        means = lam * np.eye(clusters).repeat(delta, 1)
        c = rng.integers(0, clusters, 40_000)
        z = means[c] + rng.standard_normal((len(c), clusters * delta))
        nearest = ((z[:, None] - means) ** 2).sum(-1).argmin(1)
        assert generation_ceiling(clusters, delta, lam) == pytest.approx((nearest == c).mean(), abs=0.006)
    assert generation_ceiling(1, 4, 2.5) == pytest.approx(1)


def test_calibration_of_known_assignments():
    labels = np.arange(2).repeat(50)
    certain = np.eye(2, dtype=np.float32)[labels]
    assert calibration_error(certain, labels) == pytest.approx(0)
    half = certain * 0.4 + 0.3  # says 0.7, is always right
    assert calibration_error(half, labels) == pytest.approx(0.3, abs=1e-6)
    wrong = certain.copy()
    wrong[:20] = [0, 1]  # says 1.0, is right for 80 of 100
    assert calibration_error(wrong, labels) == pytest.approx(0.2, abs=1e-6)


def test_large_images_are_decoded_a_few_at_a_time(blobs, model, monkeypatch):
    whole = likelihood(model, blobs.images, at_most=9, draws=12)
    monkeypatch.setattr("catvae.core.vae.likelihood.PIXELS", 5 * blobs.images[0].size)
    parts = likelihood(model, blobs.images, at_most=9, draws=12)
    assert parts == pytest.approx(whole, abs=1e-4)
