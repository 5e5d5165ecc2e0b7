"""A handful of images whose class is known, given with ``--labels``: they name clusters, and train them only where asked to.

Reading them stands in `runtime.images.labelled`, which `catvae-label` shares.
"""

import numpy as np
import torch
from torch import Tensor

from catvae.runtime.bundles.matching import match_counts
from catvae.runtime.errors import UsageError
from catvae.runtime.files import sha256
from catvae.runtime.images.labelled import LabelledImages, read_labelled

from ..images.pieces import in_pieces, to_float
from ..images.views import ViewPolicy, random_view
from ..vae.model import CatVAE

PER_STEP = 64
"""Labelled images in one step, at most."""

__all__ = ["LabelledImages", "clusters_of_classes", "labelled_batch", "labels_hash", "read_labelled", "require_room"]


def labels_hash(labelled: LabelledImages | None) -> str:
    """SHA-256 of images and classes; empty where there are none."""
    if labelled is None:
        return ""
    return sha256(repr(labelled.names).encode(), np.ascontiguousarray(labelled.images).reshape(-1).data, labelled.labels.data)


def require_room(labelled: LabelledImages, clusters: int) -> None:
    """Raise `UsageError` when there are more classes than clusters to name."""
    if len(labelled.names) > clusters:
        raise UsageError(
            f"--labels has {len(labelled.names)} classes, but there are {clusters} clusters: raise -k, with -k auto --max-clusters"
        )


@torch.no_grad()
def clusters_of_classes(model: CatVAE, labelled: LabelledImages) -> list[int]:
    """The cluster matched one-to-one with each class, by the soft assignments of its images; -1 where K was chosen too small for it."""
    model.eval()
    pieces = in_pieces(labelled.images, model.prior.device)
    assignment = torch.cat([model(x).cpu() for x in pieces]).numpy().astype(np.float64)
    counts = np.zeros((assignment.shape[1], len(labelled.names)))
    np.add.at(counts.T, labelled.labels, assignment)
    of_cluster = match_counts(counts)
    return [int(found[0]) if len(found := np.flatnonzero(of_cluster == label)) else -1 for label in range(len(labelled.names))]


def labelled_batch(labelled: LabelledImages, clusters: list[int], policy: ViewPolicy, device: torch.device) -> tuple[Tensor, Tensor]:
    """Views (n, C, H, W) of at most `PER_STEP` labelled images and the cluster of each, (n,); default generator."""
    known = np.flatnonzero(np.array(clusters)[labelled.labels] >= 0)
    chosen = known[torch.randperm(len(known))[:PER_STEP].numpy()]
    x = random_view(to_float(torch.from_numpy(labelled.images[chosen]).to(device)), policy)
    return x, torch.tensor([clusters[label] for label in labelled.labels[chosen]], device=device)
