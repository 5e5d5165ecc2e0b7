"""The oracle itself: known answers, and its gradients against finite differences."""

import numpy as np
import pytest

from catvae.kernels.reference import mixture_kl_reference


def problem(N=4, K=3, D=5, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"m": (N, D), "v": (N, D), "E": (K, D), "F": (K, D), "prior": (K, D), "logits": (N, K)}
    return {name: rng.standard_normal(shape) * 0.7 for name, shape in shapes.items()}, rng.uniform(0.1, 2, N)


def test_posterior_equal_to_prior_has_no_divergence():
    prior = np.array([[1.0, 0.0], [0.0, 1.0]])
    zero = np.zeros((3, 2))
    found = mixture_kl_reference(zero, zero, prior, np.zeros((2, 2)), prior, np.zeros((3, 2)))
    assert found.kl == 0
    assert found.neg_entropy == pytest.approx(-3 * np.log(2))


def test_a_hand_computed_value():
    # One sample, one cluster: mean 2 from the prior, variance e: KL = (4 + e - 1 - 1) / 2.
    found = mixture_kl_reference([[1.5]], [[0.25]], [[0.5]], [[0.75]], [[0.0]], [[3.0]])
    assert found.kl == pytest.approx((4 + np.e - 2) / 2)
    assert found.neg_entropy == 0


@pytest.mark.parametrize("name", ["m", "v", "E", "F", "logits"])
def test_gradients_are_the_slopes(name):
    inputs, weight = problem()

    def value(x):
        found = mixture_kl_reference(**{**inputs, name: x}, weight=weight)
        return 1.7 * found.kl - 0.6 * found.neg_entropy

    gradient = getattr(mixture_kl_reference(**inputs, weight=weight, g1=1.7, g2=-0.6), f"g_{name}")
    slopes = np.zeros_like(gradient)
    for index in np.ndindex(*gradient.shape):
        step = np.zeros_like(gradient)
        step[index] = 1e-6
        slopes[index] = (value(inputs[name] + step) - value(inputs[name] - step)) / 2e-6
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-7)
