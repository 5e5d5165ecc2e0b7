"""The evidence lower bound of single images: against the formula written out, and against what images deserve."""

import msgspec
import numpy as np
import pytest

from catvae.runtime.bundles.answers import UNKNOWN
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.scoring import contrast, elbo, pixel_entropy, score_latents


def test_the_bound_is_the_formula():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, 2, 1), dtype=np.uint8)
    decoded = rng.uniform(0.01, 0.99, (4, 3, 2, 1)).astype(np.float32)
    a = np.array([[1.0, 0.0], [0.25, 0.75]], np.float32)
    kl = np.array([[3.0, 9.0], [2.0, 4.0]], np.float32)
    expected = []
    for n in range(2):
        x = images[n].ravel() / 255
        draws = [decoded[n].ravel(), decoded[n + 2].ravel()]
        likelihood = np.mean([np.sum(x * np.log(p) + (1 - x) * np.log(1 - p)) for p in draws])
        entropy = -sum(v * np.log(v) for v in a[n].tolist() if v > 0)
        expected.append(likelihood - a[n] @ kl[n] + entropy - np.log(2))
    np.testing.assert_allclose(elbo(images, decoded, a, kl), expected, rtol=1e-5)


def test_pixels_have_the_entropy_of_their_intensity():
    images = np.array([[0, 255], [64, 128]], np.uint8).reshape(2, 2, 1, 1)
    p = np.array([64, 128]) / 255
    np.testing.assert_allclose(pixel_entropy(images), [0, -np.sum(p * np.log(p) + (1 - p) * np.log(1 - p))])


def test_no_decoder_scores_above_zero():
    """The best there is: pixels drawn as they are, one cluster, nothing said by the latent."""
    images = np.random.default_rng(5).integers(1, 255, (3, 4, 4, 1), dtype=np.uint8)
    exact = np.tile(images / np.float32(255), (2, 1, 1, 1))
    ones, zeros = np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)
    np.testing.assert_allclose(elbo(images, exact, ones, zeros) + pixel_entropy(images), 0, atol=1e-5)
    assert (elbo(images, exact * 0.9, ones, zeros) + pixel_entropy(images) < 0).all()


def test_draws_are_antithetic_and_the_same_for_every_image():
    mean, log_variance = np.zeros((3, 5), np.float32), np.zeros((3, 5), np.float32)
    z = score_latents(mean, log_variance)
    np.testing.assert_array_equal(z[:3], -z[3:])
    np.testing.assert_array_equal(z[0], z[2])


def test_scores_do_not_depend_on_company(bundle):
    images = np.random.default_rng(1).integers(0, 256, (7, *bundle.preprocess.shape), dtype=np.uint8)
    whole = bundle.score_samples(images)
    assert np.array_equal(whole, bundle.score_samples(images, batch_size=2))
    assert np.array_equal(whole[::-1], bundle.score_samples(images[::-1]))


def test_relative_to_their_pixels_scores_are_at_most_zero(bundle):
    images = np.random.default_rng(6).integers(0, 256, (9, *bundle.preprocess.shape), dtype=np.uint8)
    images[:3] //= 8  # dark ones
    images[3] = 128
    assert (bundle.score_samples(images) + pixel_entropy(images) <= 0).all()


@pytest.mark.parametrize("which", ["reject_threshold", "reject_relative"])
def test_either_threshold_makes_an_image_unknown(bundle, which):
    images = np.round(bundle.decode(bundle.means) * 255).astype(np.uint8)
    thresholds = bundle.score_samples(images) + (pixel_entropy(images) if which == "reject_relative" else 0)
    for off, unknown in ((-0.01, False), (0.01, True)):
        own = {c: {"reject_threshold": None, "reject_relative": None, which: float(t) + off} for c, t in enumerate(thresholds)}
        clusters = [msgspec.structs.replace(cluster, **own[c]) for c, cluster in enumerate(bundle.manifest.clusters)]
        manifest = msgspec.structs.replace(bundle.manifest, clusters=clusters, scoring=None)
        changed = Bundle(manifest, {role: bundle.file(graph) for role, graph in bundle.manifest.graphs.items()}, bundle.path)
        decided = bundle.predict(images)
        assert np.array_equal(decided, np.arange(len(images)))
        assert ((changed.examine(images, score=True).clusters == UNKNOWN) == unknown).all()


def test_what_the_model_draws_scores_above_noise(bundle):
    drawn = np.round(bundle.decode(bundle.means) * 255).astype(np.uint8)
    noise = np.random.default_rng(2).integers(0, 256, drawn.shape, dtype=np.uint8)
    assert bundle.score_samples(drawn).min() > bundle.score_samples(noise).max() + 100


def test_the_packaged_bundle_calls_noise_unknown(bundle):
    noise = np.random.default_rng(2).integers(0, 256, (20, *bundle.preprocess.shape), dtype=np.uint8)
    if bundle.manifest.scoring is None:
        pytest.skip("a bundle without thresholds")
    assert (bundle.examine(noise, score=True).clusters == UNKNOWN).all()
    # In black and white, as digits are: a mean image is grey where strokes differ, and grey is never certain to be anything.
    drawn = np.where(bundle.decode(bundle.means) > 0.5, 255, 0).astype(np.uint8)
    assert np.array_equal(bundle.examine(drawn, score=True).clusters, np.arange(len(bundle.names)))
    assert (bundle.examine(noise).clusters >= 0).all()  # without scores nothing is refused


def test_contrast_is_the_deviation_from_the_mean_of_each_channel():
    images = np.random.default_rng(3).integers(0, 256, (5, 7, 4, 3), dtype=np.uint8)
    expected = [np.sqrt(np.mean([np.var(image[..., c].astype(float)) for c in range(3)])) for image in images]
    np.testing.assert_allclose(contrast(images), expected, rtol=1e-6)
    tinted = np.broadcast_to(np.array([250, 180, 90], np.uint8), (1, 9, 9, 3))
    assert contrast(tinted) == 0
    halves = np.zeros((1, 2, 2, 1), np.uint8)
    halves[:, 0] = 255
    assert contrast(halves) == 127.5
    assert contrast(np.zeros((0, 3, 3, 1), np.uint8)).shape == (0,)
    assert np.array_equal(contrast(images), contrast(np.asfortranarray(images)))
    large = np.full((1, 600, 600, 1), 255, np.uint8)  # sums beyond what float32 holds
    large[:, ::2] = 254
    assert contrast(large) == 0.5


@pytest.mark.parametrize("level", [0, 3, 128, 255])
def test_blank_frames_are_unknown_to_the_packaged_bundle(level):
    """A black one scores like a thin digit: it is told by what is not on it."""
    bundle = Bundle.load()
    noise = np.random.default_rng(4).normal(0, 4, (20, *bundle.preprocess.shape))  # of a sensor
    frames = np.clip(level + noise, 0, 255).astype(np.uint8)
    frames[0] = level
    assert (bundle.examine(frames, score=True).clusters == UNKNOWN).all()
    assert (bundle.examine(frames).clusters >= 0).all()
