"""Small data for the training suite; skipped as a whole where torch is absent."""

import numpy as np
import pytest

pytest.importorskip("torch")

from catvae.core.config import TrainConfig, resolve
from catvae.core.images.data import ImageData, load_data, native_preprocess


@pytest.fixture(scope="session")
def digits() -> ImageData:
    return load_data("digits")


@pytest.fixture(scope="session")
def blobs() -> ImageData:
    """Three kinds of 6x5 images that nobody could confuse, 40 of each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 30, (120, 6, 5, 1), dtype=np.uint8)
    labels = np.arange(120) % 3
    for i, label in enumerate(labels):
        images[i, 2 * label : 2 * label + 2] += 200
    return ImageData("blobs", images, native_preprocess(images), labels.astype(np.int64), ("a", "b", "c"))


def quick_config(**settings) -> TrainConfig:
    """A configuration that trains in a second or two."""
    base = {
        "clusters": 3,
        "epochs": 4,
        "batch_size": 32,
        "device": "cpu",  # results are compared to the last bit
        "precision": "fp32",
        "hidden": 16,
        "starts": 1,
        "overclusters": 2,
        "generated_per_cluster": 2,
    }
    return resolve({**base, **settings})


@pytest.fixture
def quick():
    """`quick_config`."""
    return quick_config
