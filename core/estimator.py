"""scikit-learn's face on training: `InfoCatVAE(n_clusters=10).fit(images).labels_`.

For notebooks and pipelines; run folders, resume and pictures belong to `catvae-train`, answers without torch to `catvae.runtime`.
"""

import operator
import signal
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from catvae.runtime.bundles.arguments import whole_number
from catvae.runtime.errors import UsageError
from catvae.runtime.interruption import Interrupted

from .config import LARGEST_SEED, resolve
from .images.data import ImageData, native_preprocess
from .runs.diagnosis import diagnose
from .runs.evaluation import assign, draw_samples, encode_mean
from .training.trainer import Trainer


class InfoCatVAE(ClusterMixin, TransformerMixin, BaseEstimator):
    """Cluster images without labels with a VAE whose prior has one Gaussian mode per cluster (arXiv 1806.08240).

    Parameters
    ----------
    n_clusters : int or "auto"
        K; auto chooses it from the images.
    random_state : int, RandomState or None
        Seed of weights, order and noise; None draws one.
    settings : dict, optional
        Any other setting of `catvae.core.TrainConfig`, called as in configuration files: ``{"epochs": 20, "lambda": 3.0}``.

    Attributes
    ----------
    labels_ : ndarray, (N,), int64
        Cluster of each training image.
    model_ : CatVAE
        The trained network.
    verdict_ : Verdict
        Whether its clusters are sound, told without labels: `status`, `reasons` and `notes`. A degenerate one comes as scikit-learn's
        `ConvergenceWarning` too.
    """

    def __init__(
        self, n_clusters: int | str = 10, random_state: int | np.random.RandomState | None = 0, settings: dict[str, Any] | None = None
    ):
        self.n_clusters = n_clusters
        self.random_state = random_state
        self.settings = settings

    def fit(self, X: NDArray[np.uint8], y: object = None) -> "InfoCatVAE":
        """Train on uint8 images (N, H, W) or (N, H, W, C) with 1 or 3 channels; `y` is ignored.

        Raises
        ------
        UsageError
            On other arrays, settings that are not known, of a wrong type or out of range, fewer images than clusters.
        DeviceError
            When the device of `settings` is not there.
        NumericError
            When the loss was no finite number for several steps in a row.
        KeyboardInterrupt, Interrupted
            On SIGINT, on SIGTERM; a step under way is finished first.
        """
        images = _images(X)
        if 0 in images.shape[1:]:
            raise UsageError(f"images have no pixels: got {np.shape(X)}")
        for name, instead in {"clusters": "n_clusters", "seed": "random_state", "label_weight": "catvae-train --labels"}.items():
            if name in (self.settings or {}):
                raise UsageError(f"settings has '{name}': give {instead} instead")
        clusters = self.n_clusters
        if clusters != "auto":
            try:
                clusters = operator.index(clusters)  # pyright: ignore[reportArgumentType]  # numpy's integers too, of parameter grids
            except TypeError as error:
                raise UsageError(f"n_clusters is {clusters!r}, expected a whole number or 'auto'") from error
        settings = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in (self.settings or {}).items()}  # numpy's
        config = resolve({**settings, "clusters": clusters, "seed": _seed(self.random_state)})
        trainer = Trainer(ImageData("array", images, native_preprocess(images)), config)
        try:
            trainer.run()
        except Interrupted as interruption:
            if interruption.signum == signal.SIGINT:
                raise KeyboardInterrupt from interruption  # what notebooks and their users look for
            raise
        self.model_ = trainer.model
        assignment = assign(self.model_, images)
        self.labels_, self.verdict_ = assignment.argmax(1), diagnose(trainer, images, assignment).verdict
        if self.verdict_.status == "degenerate":
            warnings.warn(f"these clusters are degenerate: {'; '.join(self.verdict_.reasons)}", ConvergenceWarning, stacklevel=2)
        return self

    def predict(self, X: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Most likely cluster of each image, (N,) int64; `X` and errors as for `predict_proba`."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Soft assignment q(c|x), (N, K) float32, of uint8 images (N, H, W) or (N, H, W, C) of the shape that was fitted.

        Raises
        ------
        NotFittedError
            Before `fit`.
        UsageError
            On images of another type or shape.
        """
        check_is_fitted(self)
        return assign(self.model_, self._same_shape(X))

    def transform(self, X: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Means of q(z|x), (N, D) float32; `X` and errors as for `predict_proba`."""
        check_is_fitted(self)
        return encode_mean(self.model_, self._same_shape(X))

    def sample(self, n: int, random_state: int = 0) -> NDArray[np.float32]:
        """`n` generated images per cluster, (K, n, H, W, C) float32 in [0, 1]: those that `Bundle.sample` draws with this seed.

        Raises
        ------
        NotFittedError
            Before `fit`.
        UsageError
            Where `n` or `random_state` is no whole number from 0 on.
        """
        check_is_fitted(self)
        n, seed = whole_number(n, "n"), whole_number(random_state, "random_state")
        return draw_samples(self.model_, per_cluster=n, seed=seed, centroid_first=False)

    def _same_shape(self, X: NDArray[np.uint8]) -> NDArray[np.uint8]:
        images, spec = _images(X), self.model_.spec
        if images.shape[1:] != (spec.height, spec.width, spec.channels):
            raise UsageError(f"images are {images.shape[1:]}, the model was fitted on {(spec.height, spec.width, spec.channels)}")
        return images


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if random_state is None or isinstance(random_state, np.random.RandomState):
        return int(check_random_state(random_state).randint(LARGEST_SEED))
    try:
        return operator.index(random_state)
    except TypeError as error:
        raise UsageError(f"random_state is {random_state!r}, expected a whole number, a RandomState or None") from error


def _images(X: NDArray[np.uint8]) -> NDArray[np.uint8]:
    images = np.asarray(X)
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        scaled = "; of floats in 0..1, (X * 255).round().astype('uint8')" if images.dtype.kind == "f" else ""
        raise UsageError(f"images must be uint8 (N, H, W) or (N, H, W, 1 or 3): got {images.dtype} {np.shape(X)}{scaled}")
    return images
