"""How often drawings are sorted into their own cluster, and what is noted of labels; the other signs are tested where they are computed."""

import numpy as np
import pytest

pytest.importorskip("torch")

from catvae.core.config import resolve
from catvae.core.runs import evaluation
from catvae.core.vae.model import CatVAE, ModelSpec
from catvae.runtime.images.labelled import LabelledImages


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


def test_what_labels_say_beside_the_verdict_is_noted():
    labelled = LabelledImages(np.zeros((3, 8, 8, 1), np.uint8), np.arange(3), ("a", "b", "c"), ("x", "y", "z"))
    none = evaluation.notes_on_labels({}, "healthy", 3, labelled, [2, 0, 1])
    assert none == evaluation.notes_on_labels({"train": {"ari": 0.5}}, "healthy", 3, None, []) == []
    (left,) = evaluation.notes_on_labels({}, "healthy", 2, labelled, [1, -1, 0])
    assert left == "2 clusters for 3 known classes: none is named b; give -k 3 or more"
    (days,) = evaluation.notes_on_labels({"train": {"ari": 0.01}}, "healthy", 3, None, [])
    assert "--no-labels" in days
    assert evaluation.notes_on_labels({"train": {"ari": 0.01}}, "degenerate", 3, None, []) == []
