"""Joint distributions of assignments: of images and their views, and of images and their nearest neighbours.

Clusters that often exchange views or neighbours belong together. Merging and the choice of a start read these distributions and nothing
else, the verdict reads them too. Views differ only by the changes they are made with; neighbours in the hidden layer connect one way of
writing a seven with another (neighbours as positives: SCAN, arXiv 2005.12320).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from torch import Tensor

from ..images.pieces import at_a_time, to_float
from ..images.views import ViewPolicy, random_view
from ..vae.model import CatVAE

PAIRS = 20_000
"""Pairs of image and view, about, that a joint distribution is estimated on; of a small set each image gets several views."""
MIN_PAIRS, FULL_PAIRS_VALUES = 5_000, 32 * 32
"""Images of more values than the second get fewer pairs, but at least the first: their views cost as much as steps of training."""
CROWD = 10_000
"""The most images among which neighbours are searched: 1 s on one processor."""
NEIGHBOURS = 5
"""Nearest neighbours of each image."""
COMPARED_SIDE = 16
"""Images are averaged down to at most this many pixels a side before they are compared by pixels."""
SIMILARITY_ROWS = 1000
"""Rows of the similarity matrix computed at a time."""


class Sample(NamedTuple):
    """A choice of images by their rows; a copy of them would hold a set of 40,000 twice."""

    images: Tensor
    """(N, H, W, C), uint8, all of them."""
    rows: Tensor
    """(n,), those of `images` that are meant."""


class Joints(NamedTuple):
    """Joint distributions of a network's K clusters and J over-clusters, each summing to 1."""

    clusters: NDArray[np.float64]
    """(K, K), clusters of images and of their views."""
    overclusters: NDArray[np.float64]
    """(J, J), over-clusters of images and of their views."""
    shared: NDArray[np.float64]
    """(J, K), over-cluster and cluster of the same image."""
    neighbours: NDArray[np.float64]
    """(J, J), over-clusters of images and of their nearest neighbours in the hidden layer."""
    pixels: NDArray[np.float64]
    """(J, J), over-clusters of images and of their nearest neighbours by pixels."""
    cluster_neighbours: NDArray[np.float64]
    """(K, K), as `neighbours`."""
    cluster_pixels: NDArray[np.float64]
    """(K, K), as `pixels`."""
    view_agreement: float
    """Share of the views whose likeliest cluster is that of their image. The diagonal of `clusters` sums to less, the less certain
    assignments are."""
    images: int
    """Images that the distributions are estimated on."""


@torch.no_grad()
def estimate_joints(model: CatVAE, sample: Sample, policy: ViewPolicy, batch: int = 1024) -> Joints:
    """Estimate the joint distributions on evenly spaced images of a sample; views draw from torch's default generator.

    Parameters
    ----------
    model : CatVAE
        Put into evaluation mode.
    sample : Sample
    policy : ViewPolicy
        Makes the views.
    batch : int
        The most images that go through the encoder at a time.
    """
    model.eval()
    images = sample.images
    batch = at_a_time(images, batch)
    chosen = sample.rows[:: max(1, len(sample.rows) // PAIRS)]
    pairs = max(MIN_PAIRS, PAIRS * min(1.0, FULL_PAIRS_VALUES / math.prod(images.shape[1:])))
    rounds = max(1, round(pairs / len(chosen)))
    K, J = model.spec.clusters, model.spec.overclusters
    clusters, overclusters = (torch.zeros((size, size), dtype=torch.float64, device=images.device) for size in (K, J))
    agreeing = torch.zeros((), dtype=torch.int64, device=images.device)
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
            agreeing += (view.logits.argmax(-1) == own.logits.argmax(-1).repeat(times)).sum()
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
        clusters=_symmetric(clusters),
        overclusters=_symmetric(overclusters),
        shared=(o.T @ a / max(1, len(a))).cpu().numpy(),
        neighbours=neighbour_joint(o[crowd], by_features),
        pixels=neighbour_joint(o[crowd], by_pixels),
        cluster_neighbours=neighbour_joint(a[crowd], by_features),
        cluster_pixels=neighbour_joint(a[crowd], by_pixels),
        view_agreement=int(agreeing) / max(1, rounds * len(chosen)),
        images=len(chosen),
    )


def averaged(x: Tensor) -> Tensor:
    """Images (N, C, H, W) averaged down to the coarse ones by which neighbours by pixels are found, (N, F)."""
    return nnF.adaptive_avg_pool2d(x, (min(COMPARED_SIDE, x.shape[2]), min(COMPARED_SIDE, x.shape[3]))).flatten(1)


def nearest(features: Tensor, count: int) -> Tensor:
    """The `count` rows of largest cosine with each row of `features` (N, F), itself left out: (N, min(count, N - 1)) indices."""
    unit = nnF.normalize(features, dim=1)
    pieces = []
    for start in range(0, len(unit), SIMILARITY_ROWS):
        similarity = unit[start : start + SIMILARITY_ROWS] @ unit.T
        own = torch.arange(len(similarity), device=unit.device)
        similarity[own, own + start] = -torch.inf
        pieces.append(similarity.topk(min(count, len(unit) - 1), dim=1).indices)
    return torch.cat(pieces)


def neighbour_joint(assignment: Tensor, neighbours: Tensor) -> NDArray[np.float64]:
    """Joint distribution (J, J) of the assignments (N, J) of rows and of their neighbours (N, n)."""
    counts = assignment.T @ assignment[neighbours].sum(1)
    return _symmetric(counts)


def _symmetric(counts: Tensor) -> NDArray[np.float64]:
    """Counts (n, n) as a symmetric joint distribution."""
    joint = (counts + counts.T).cpu().numpy()
    return joint / joint.sum() if joint.size else joint
