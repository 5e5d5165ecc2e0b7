"""Names for the clusters of a finished bundle: from a few labelled images or by hand, without training.

Names are all that changes: `manifest.json`, the model card and the preview are written anew, the graphs are the same bytes. Clusters that
are given one name are merged: they count as one class from then on.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bundles.bundle import Bundle
from ..bundles.bundle_files import manifest_bytes, refuse_inside
from ..bundles.manifest import Manifest
from ..bundles.manifest_seal import require_seal, sealed
from ..bundles.matching import contingency, match_counts, most_frequent, winners
from ..bundles.model_card import model_card
from ..bundles.pictures import preview
from ..errors import DataError, UsageError
from ..files import atomic_write, real_path
from ..images.labelled import LabelledImages
from ..names import unnamed
from ..ours import CARD, MANIFEST, PREVIEW
from ..whole_folder import write_folder

LEAST = 0.1
"""With one cluster for each class: the least share of a class's images, by soft assignment, that must be in the cluster named after it."""


class Naming(NamedTuple):
    """Names found from labelled images."""

    names: list[str]
    """Of each cluster; one without images keeps its name, or becomes ``cluster 3`` where another has just been given that."""
    counts: NDArray[np.int64]
    """(K, classes) images of each class in each cluster."""


def names_from_images(names: list[str], labelled: LabelledImages, assignment: NDArray[np.float32], *, one_to_one: bool) -> Naming:
    """Name clusters after the classes of images.

    Parameters
    ----------
    names : list of str
        Of the clusters, as they are.
    labelled : LabelledImages
    assignment : ndarray, (images, K)
        What the bundle's classifier makes of them.
    one_to_one : bool
        Each class names one cluster (Hungarian method); otherwise each cluster takes its most frequent class, so that several may share it.

    Raises
    ------
    UsageError
        With more classes than clusters, one to one.
    """
    clusters, classes = len(names), len(labelled.names)
    if one_to_one and classes > clusters:
        raise UsageError(f"{classes} classes cannot each name one of {clusters} clusters: use --match many-to-one")
    found = assignment.argmax(1)
    counts = contingency(found, labelled.labels, (clusters, classes))
    weights = np.zeros((clusters, classes))  # soft: with one image of a class, the second choice still tells clusters apart
    np.add.at(weights.T, labelled.labels, assignment)
    matched = match_counts(weights) if one_to_one else most_frequent(counts)
    enough = np.zeros(classes)
    if one_to_one:  # of a class that lies elsewhere no cluster takes the name
        enough = LEAST * np.bincount(labelled.labels, minlength=classes)
    given = [labelled.names[c] if c >= 0 and weights[i, c] >= enough[c] else "" for i, c in enumerate(matched)]
    kept = [unnamed(i, {*given, *names}) if name in given else name for i, name in enumerate(names)]
    return Naming([new or old for new, old in zip(given, kept, strict=True)], counts)


def accuracy(manifest: Manifest, labelled: LabelledImages, assignment: NDArray[np.float32]) -> float:
    """Share of the images whose cluster bears the name of their class; clusters that share a name count as one."""
    found, _ = winners(assignment, manifest.groups)
    given = np.array(labelled.names)[labelled.labels]
    return float((np.array(manifest.names)[found] == given).mean())


def renamed(manifest: Manifest, names: list[str], by_hand: Mapping[int, str]) -> Manifest:
    """The manifest with other names; those given by hand win.

    A cluster that already has a name given by hand is joined with the cluster it is given to, unless that name is just its own number: then
    it becomes ``cluster 3``.
    """
    given = by_hand.values()
    kept = [unnamed(i, {*given, *names}) if name == str(i) and name in given else name for i, name in enumerate(names)]
    final = [by_hand.get(i, name) for i, name in enumerate(kept)]
    return manifest.with_names(final)


def require_place(bundle: Bundle, output: Path) -> None:
    """Raise `UsageError` where `output` is neither the bundle itself nor free."""
    if real_path(output) != real_path(bundle.path):
        refuse_inside(bundle.path, output)
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UsageError(f"{output} is {'not empty' if output.is_dir() else 'a file'}: choose another -o")


def write_names(bundle: Bundle, manifest: Manifest, output: Path) -> None:
    """Write the renamed bundle to `output`, which may be the bundle itself.

    Raises
    ------
    UsageError
        When `output` is another folder with something in it.
    DataError
        When a file of the bundle is missing or damaged.
    OutputError
        When it cannot be written.
    """
    written = json.loads(manifest_bytes(bundle.path))  # with what a newer version has written there
    require_seal(written, str(bundle.path / MANIFEST))
    if written["seal"] != bundle.fingerprint:
        raise DataError(f"{bundle.path} was exported or named by another call meanwhile: label it again, nothing was changed")
    for cluster, name in zip(written["clusters"], manifest.names, strict=True):
        cluster["name"] = name
    named: dict[str, bytes | str] = {
        CARD: model_card(manifest),
        PREVIEW: preview(bundle, manifest.names),
        MANIFEST: sealed(written),
    }
    require_place(bundle, output)
    if real_path(output) == real_path(bundle.path):
        for name, content in named.items():
            atomic_write(output / name, content)
        return
    write_folder(output, {record.name: bundle.file(record) for record in manifest.files} | named)
