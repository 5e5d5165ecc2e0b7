"""How often drawings are sorted into their own cluster; the other signs are tested where they are computed."""

import numpy as np
import pytest

pytest.importorskip("torch")

from catvae.core.config import resolve
from catvae.core.runs import evaluation
from catvae.core.vae.model import CatVAE, ModelSpec


def test_drawings_are_counted_where_they_return(monkeypatch):
    model = CatVAE(ModelSpec.of(resolve({"clusters": 4, "hidden": 16, "overclusters": 0}), (8, 8, 1)))
    seen = []

    def everything_in_its_own_but_the_last(model, images):
        seen.append(images)
        found = np.repeat(np.arange(4), len(images) // 4)
        return np.eye(4, dtype=np.float32)[np.where(found == 3, 0, found)]

    monkeypatch.setattr(evaluation, "DRAWN", 20)
    monkeypatch.setattr(evaluation, "assign", everything_in_its_own_but_the_last)
    assert evaluation.drawn_return(model, 0) == 0.75
    (images,) = seen
    assert (images.shape, images.dtype) == ((20, 8, 8, 1), np.uint8)
    drawn = evaluation.draw_samples(model, per_cluster=5, seed=0, centroid_first=False)
    assert np.abs(images / 255 - drawn.reshape(images.shape)).max() <= 0.5 / 255 + 1e-6
