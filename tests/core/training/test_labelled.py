"""A few labels: they name clusters, and train them only where a weight asks for it."""

import dataclasses

import numpy as np
import pytest
import torch

from catvae.core.runs.evaluation import assign, cluster_names
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin
from catvae.core.runs.session import Session
from catvae.core.training.labelled import LabelledImages, clusters_of_classes
from catvae.core.training.trainer import Trainer
from catvae.runtime.errors import DataError, UsageError


@pytest.fixture
def given(blobs) -> LabelledImages:
    """Two images of each kind, under names of their own."""
    chosen = np.concatenate([np.flatnonzero(blobs.labels == k)[:2] for k in range(3)])
    return LabelledImages(blobs.images[chosen], blobs.labels[chosen], ("apple", "bean", "corn"), ("",) * 6)


def test_they_name_the_clusters_of_a_run(blobs, quick, given, tmp_path):
    settings = quick(augment="none", epochs=200, learning_rate=3e-3)
    session = Session.start(RunFolder(tmp_path / "run"), blobs, settings, Origin(data="blobs"), given)
    session.train()
    record = session.finish()
    clusters = assign(session.trainer.model, blobs.images).argmax(1)
    names = [cluster.name for cluster in record.clusters]
    assert [names[cluster] for cluster in clusters] == [given.names[label] for label in blobs.labels]


def test_without_a_weight_they_change_nothing(blobs, quick, given):
    plain, named = Trainer(blobs, quick()), Trainer(blobs, quick(), given)
    for trainer in (plain, named):
        trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), named.model.parameters(), strict=True))


def test_with_a_weight_they_pull_their_images_into_place(blobs, quick, given):
    """Labels that contradict what the images show are followed: the first image of two kinds changes places."""
    swapped = given._replace(labels=given.labels[[2, 1, 0, 3, 4, 5]])
    trainer = Trainer(blobs, quick(augment="none", epochs=300, learning_rate=3e-3, label_weight=100.0), swapped)
    trainer.run()
    found = assign(trainer.model, swapped.images).argmax(1)
    homes = clusters_of_classes(trainer.model, swapped)
    assert [homes[label] for label in swapped.labels] == found.tolist()


def test_more_classes_than_clusters(blobs, quick, given):
    with pytest.raises(UsageError, match="--labels has 3 classes, but there are 2 clusters"):
        Trainer(blobs, quick(clusters=2), given)


def test_clusters_without_a_labelled_image_are_named_by_number(blobs, given):
    two = LabelledImages(given.images[:4], given.labels[:4], given.names[:2], given.paths[:4])
    assignment = np.eye(3, dtype=np.float32)[blobs.labels]
    assert cluster_names(assignment, blobs, two, [2, 0]) == ["bean", "cluster 1", "apple"]
    assert cluster_names(assignment, blobs, None, []) == ["a", "b", "c"]
    clusters = np.where(np.arange(len(blobs.labels)) < 6, 1, 0)  # a third of each class in two clusters, the other one empty
    assert cluster_names(np.eye(3, dtype=np.float32)[clusters], blobs, None, []) == ["cluster 0", "cluster 1", "cluster 2"]


def test_one_labelled_image_trains_too(blobs, quick):
    one = LabelledImages(blobs.images[:1], np.array([0]), ("apple",), ("",))
    trainer = Trainer(blobs, quick(label_weight=1.0, regroup=(), overclusters=0), one)
    trainer.run()
    assert trainer.finished


def test_a_run_goes_on_with_the_labels_it_was_started_with(blobs, quick, given, tmp_path):
    folder = RunFolder(tmp_path / "run")
    Session.start(folder, blobs, quick(), Origin(data="blobs", labels="some"), given)
    Session.resume(folder, blobs, given)
    with pytest.raises(DataError, match=r"other images or classes than .* was started with \(some\)"):
        Session.resume(folder, blobs, given._replace(labels=given.labels[::-1].copy()))


def test_a_run_that_had_none_is_given_none_later(blobs, quick, given, tmp_path):
    folder = RunFolder(tmp_path / "run")
    Session.start(folder, blobs, quick(), Origin(data="blobs"))
    with pytest.raises(DataError, match="was started without --labels"):
        Session.resume(folder, blobs, given)


def test_a_class_called_as_a_cluster_is_one_of_a_kind(blobs, given):
    called = given._replace(names=("apple", "cluster 1", "corn"))
    assignment = np.eye(3, dtype=np.float32)[blobs.labels]
    assert cluster_names(assignment, blobs, called, [0, 2, -1]) == ["apple", "cluster 1 (2)", "cluster 1"]
    data = dataclasses.replace(blobs, label_names=("a", "b", "cluster 0"))
    clusters = np.where(blobs.labels == 0, np.arange(len(blobs.labels)) % 3, blobs.labels)  # the first kind is in no cluster of its own
    named = cluster_names(np.eye(3, dtype=np.float32)[clusters], data, None, [])
    assert len(set(named)) == 3


def test_of_labels_that_clusters_do_not_follow_none_names_a_cluster(blobs):
    """Cameras, say: of few clusters one holds half of a camera's images by chance."""
    clusters = np.arange(len(blobs.images)) % 3
    cameras = dataclasses.replace(blobs, labels=(np.arange(len(blobs.images)) // 3 % 2).astype(np.int64), label_names=("left", "right"))
    assert cluster_names(np.eye(3, dtype=np.float32)[clusters], cameras, None, []) == ["cluster 0", "cluster 1", "cluster 2"]
