"""Joint distributions of assignments: of images with views of themselves, and with their nearest neighbours.

Two groups that often exchange views, or neighbours, belong together: this is all that merging, starts, verdict and the choice of seeds look
at. Views know only the changes they are made of; neighbours in the hidden layer reach from one way of writing a seven to another
(neighbours as positives: SCAN, arXiv 2005.12320).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from torch import Tensor

from .model import CatVAE
from .views import ViewPolicy, at_a_time, random_view, to_float

PAIRS = 20_000
"""Image-view pairs that a joint distribution is estimated on, about; a small set is viewed several times."""
FEWEST, VALUES = 5_000, 32 * 32
"""Pairs of images of more than so many values, at least: their views cost as much as steps of training do."""
CROWD = 10_000
"""Images among which neighbours are looked for, at most: 1 s on one processor."""
NEIGHBOURS = 5
PIXELS = 16
"""Images are averaged down to at most this many pixels a side before they are compared."""
ROWS = 1000
"""Of the similarity matrix, computed at a time."""


class Sample(NamedTuple):
    """Some of the images, which stay where they are: taking them out would hold a set of 40,000 twice."""

    images: Tensor
    """(N, H, W, C), uint8."""
    rows: Tensor
    """(n,) of `images`."""


class Joints(NamedTuple):
    """What a network's clusters and its J over-clusters share: distributions, each summing to 1, and how many views stay."""

    clusters: NDArray[np.float64]
    """(K, K), of images and their views."""
    overclusters: NDArray[np.float64]
    """(J, J), of images and their views."""
    shared: NDArray[np.float64]
    """(J, K), of the same image in both heads."""
    neighbours: NDArray[np.float64]
    """(J, J), of images and their nearest in the hidden layer."""
    pixels: NDArray[np.float64]
    """(J, J), of images and their nearest by pixels."""
    cluster_neighbours: NDArray[np.float64]
    """(K, K), as `neighbours`."""
    cluster_pixels: NDArray[np.float64]
    """(K, K), as `pixels`."""
    kept: float
    """Share of the views whose likeliest cluster is that of their image; what `clusters` has on its diagonal is less, the less certain
    assignments are."""
    looked_at: int
    """Images that all of them are estimated on."""


@torch.no_grad()
def estimate_joints(model: CatVAE, sample: Sample, policy: ViewPolicy, batch: int = 1024) -> Joints:
    """Estimate all of them on evenly spaced images of a sample; views draw from the default generator."""
    model.eval()
    images = sample.images
    batch = at_a_time(images, batch)
    chosen = sample.rows[:: max(1, len(sample.rows) // PAIRS)]
    pairs = max(FEWEST, PAIRS * min(1.0, VALUES / math.prod(images.shape[1:])))
    rounds = max(1, round(pairs / len(chosen)))
    K, J = model.spec.clusters, model.spec.overclusters
    clusters, overclusters = (torch.zeros((size, size), dtype=torch.float64, device=images.device) for size in (K, J))
    kept = torch.zeros((), dtype=torch.int64, device=images.device)
    hidden, pixels, a_pieces, o_pieces = [], [], [], []
    for start in range(0, len(chosen), batch):
        x = to_float(images[chosen[start : start + batch]])
        h = model.encoder(x)
        own = model.read(h)
        a, o = own.logits.softmax(-1).double(), own.auxiliary.softmax(-1).double()
        together = max(1, min(rounds, batch // len(x)))  # of a few images, many views go through the encoder at a time
        for done in range(0, rounds, together):
            times = min(together, rounds - done)
            view = model.encode(random_view(x.repeat(times, 1, 1, 1), policy))
            clusters = clusters + a.repeat(times, 1).T @ view.logits.softmax(-1).double()
            kept += (view.logits.argmax(-1) == own.logits.argmax(-1).repeat(times)).sum()
            overclusters = overclusters + o.repeat(times, 1).T @ view.auxiliary.softmax(-1).double()
        hidden.append(h.float())
        pixels.append(averaged(x))
        a_pieces.append(a)
        o_pieces.append(o)
    a, o = torch.cat(a_pieces), torch.cat(o_pieces)
    crowd = slice(None, None, -(-len(chosen) // CROWD))
    features = torch.cat(hidden)[crowd]
    by_features = nearest(features - features.mean(0), NEIGHBOURS)
    by_pixels = nearest(torch.cat(pixels)[crowd], NEIGHBOURS)
    return Joints(
        _normalised(clusters),
        _normalised(overclusters),
        (o.T @ a / max(1, len(a))).cpu().numpy(),
        neighbour_joint(o[crowd], by_features),
        neighbour_joint(o[crowd], by_pixels),
        neighbour_joint(a[crowd], by_features),
        neighbour_joint(a[crowd], by_pixels),
        int(kept) / max(1, rounds * len(chosen)),
        len(chosen),
    )


def averaged(x: Tensor) -> Tensor:
    """Images (N, C, H, W) averaged down to what neighbours by pixels are compared by, (N, F)."""
    return nnF.adaptive_avg_pool2d(x, (min(PIXELS, x.shape[2]), min(PIXELS, x.shape[3]))).flatten(1)


def nearest(features: Tensor, count: int) -> Tensor:
    """The `count` rows of largest cosine with each row of `features` (N, F), itself left out: (N, min(count, N - 1)) indices."""
    unit = nnF.normalize(features, dim=1)
    pieces = []
    for start in range(0, len(unit), ROWS):
        similarity = unit[start : start + ROWS] @ unit.T
        own = torch.arange(len(similarity), device=unit.device)
        similarity[own, own + start] = -torch.inf
        pieces.append(similarity.topk(min(count, len(unit) - 1), dim=1).indices)
    return torch.cat(pieces)


def neighbour_joint(assignment: Tensor, neighbours: Tensor) -> NDArray[np.float64]:
    """Joint distribution (J, J) of the assignments (N, J) of rows and of their neighbours (N, n)."""
    counts = assignment.T @ assignment[neighbours].sum(1)
    return _normalised(counts)


def _normalised(counts: Tensor) -> NDArray[np.float64]:
    joint = (counts + counts.T).cpu().numpy()
    return joint / joint.sum() if joint.size else joint
