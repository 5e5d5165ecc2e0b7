"""Training with scikit-learn's names."""

import os
import signal
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from catvae.core import InfoCatVAE
from catvae.core.training.trainer import Trainer
from catvae.runtime.errors import UsageError
from catvae.runtime.interruption import Interrupted


def test_estimator_follows_scikit_learn(blobs):
    model = clone(InfoCatVAE(n_clusters=3, settings={"epochs": 2, "hidden": 16, "precision": "fp32", "augment": "none"}))
    labels = model.fit_predict(blobs.images)
    assert labels.shape == (120,)
    assert np.array_equal(labels, model.predict(blobs.images))
    assert model.transform(blobs.images[:4]).shape == (4, 12)
    assert model.sample(2).shape == (3, 2, 6, 5, 1)
    assert model.predict(blobs.images[:0]).shape == (0,)
    assert model.transform(blobs.images[:0]).shape == (0, 12)
    for settings in ({"seed": 5}, {"clusters": 5}, {"label_weight": 1.0}):
        with pytest.raises(UsageError, match=f"settings has '{next(iter(settings))}': give"):
            InfoCatVAE(settings=settings).fit(blobs.images)
    with pytest.raises(UsageError, match=r"images have no pixels: got \(20, 0, 8\)"):
        InfoCatVAE(n_clusters=3).fit(np.zeros((20, 0, 8), np.uint8))
    with pytest.raises(UsageError, match="n_clusters is 'seven', expected a whole number or 'auto'"):
        InfoCatVAE(n_clusters="seven").fit(blobs.images)
    with pytest.raises(UsageError, match="random_state is 'now'"):
        InfoCatVAE(n_clusters=3, random_state="now").fit(blobs.images)  # pyright: ignore[reportArgumentType]
    numpy_settings = {"epochs": np.int64(1), "hidden": np.int64(16), "learning_rate": np.float32(1e-3), "regroup": np.array([0.5])}
    InfoCatVAE(n_clusters=np.int64(3), settings=numpy_settings).fit(blobs.images)  # pyright: ignore[reportArgumentType] - of grids
    for random_state in (None, np.random.RandomState(3)):
        InfoCatVAE(n_clusters=3, random_state=random_state, settings={"epochs": 1, "hidden": 16}).fit(blobs.images)
    with pytest.raises(UsageError, match="there are no images"):
        clone(model).fit(blobs.images[:0])
    with pytest.raises(UsageError, match="fitted on"):
        model.predict(np.zeros((1, 9, 9), np.uint8))
    with pytest.raises(UsageError, match="must be uint8"):
        InfoCatVAE().fit(np.zeros((5, 4, 4)))


@pytest.mark.filterwarnings("error", "ignore::sklearn.exceptions.ConvergenceWarning")
def test_images_that_may_not_be_written_into_are_fitted(blobs):
    """As memory maps and other libraries hand them out."""
    images = blobs.images.copy()
    images.setflags(write=False)
    model = InfoCatVAE(n_clusters=3, settings={"epochs": 1, "hidden": 16}).fit(images)
    assert len(model.predict(images)) == len(images)


@pytest.mark.parametrize(("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Interrupted)])
def test_an_interrupted_estimator_raises_what_notebooks_look_for(blobs, monkeypatch, signum, raised):
    real = Trainer.step

    def step(self):
        os.kill(os.getpid(), signum)
        return real(self)

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(raised):
        InfoCatVAE(n_clusters=3, settings={"epochs": 2, "hidden": 16}).fit(blobs.images)


def test_what_became_of_the_clusters_is_said(blobs):
    """Two epochs of thirty images say nothing; enough of them tell the three kinds apart."""
    with pytest.warns(ConvergenceWarning, match="these clusters are degenerate: trained for 2 steps only"):
        short = InfoCatVAE(n_clusters=3, settings={"epochs": 2, "hidden": 16}).fit(blobs.images)
    assert short.verdict_.status == "degenerate"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = InfoCatVAE(n_clusters=3, settings={"epochs": 300, "hidden": 16, "augment": "none"}).fit(blobs.images)
    assert model.verdict_.status == "healthy"
