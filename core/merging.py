"""Merging many small clusters into K by what views say of them: the information bottleneck, agglomeratively, without labels.

A view sometimes lands in another small cluster than its image; clusters that exchange views belong together. From the joint distribution
P of an image's and its view's small cluster, the pair whose merge loses least of the mutual information I(c; c') is merged, until K are
left (Slonim and Tishby, Agglomerative Information Bottleneck, NIPS 1999). On MNIST this turned 50 clusters into ten digits from seeds
whose own K-way head had merged two digits and split another.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .model import CatVAE
from .views import ViewPolicy, random_view, to_float

PAIRS = 20_000
"""Image-view pairs that a joint distribution is estimated on, about; a small set is viewed several times."""


class Merge(NamedTuple):
    """A partition of the small clusters."""

    group: NDArray[np.int64]
    """(overclusters,) in 0..K-1."""
    information: float
    """I(c; c') of the groups, in nats."""


class Joints(NamedTuple):
    """Symmetric joint distributions of assignments of images and of their views."""

    clusters: NDArray[np.float64]
    """(K, K)."""
    overclusters: NDArray[np.float64]
    """(overclusters, overclusters)."""
    shared: NDArray[np.float64]
    """(overclusters, K), of the same image in both heads."""


def mutual_information(joint: NDArray[np.float64]) -> float:
    """I of a symmetric joint distribution, in nats."""
    return float(_plogp(joint).sum() - 2 * _plogp(joint.sum(1)).sum())


def merge_clusters(joint: NDArray[np.float64], clusters: int) -> Merge:
    """Merge greedily until `clusters` groups are left.

    Parameters
    ----------
    joint : ndarray, (overclusters, overclusters)
        Symmetric, sums to 1.
    clusters : int
        K, at most the number of small clusters.
    """
    P = joint.copy()
    pairs = _pair_terms(P)
    members = [[i] for i in range(len(P))]
    while len(P) > clusters:
        i, j = divmod(int(_merge_losses(P, pairs).argmin()), len(P))
        i, j = min(i, j), max(i, j)
        old = _plogp(P[:, i, None] + P[None, :, i]) + _plogp(P[:, j, None] + P[None, :, j])
        P[i] += P[j]
        P[:, i] += P[:, j]
        pairs += _plogp(P[:, i, None] + P[None, :, i]) - old
        P, pairs = (np.delete(np.delete(x, j, 0), j, 1) for x in (P, pairs))
        pairs[i] = pairs[:, i] = _plogp(P + P[i]).sum(1)
        members[i] += members.pop(j)
    group = np.empty(len(joint), dtype=np.int64)
    for k, rows in enumerate(members):
        group[rows] = k
    return Merge(group, mutual_information(P))


def _pair_terms(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) sums over columns of f(P_i. + P_j.), row by row: all pairs at once would need n^3 numbers."""
    return np.stack([_plogp(P + row).sum(1) for row in P])


def _merge_losses(P: NDArray[np.float64], pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) information lost by merging each pair; infinite on the diagonal.

    With f(p) = p log p, I = sum f(P_ij) - 2 sum f(p_i): only rows, columns and marginals of the pair change.
    """
    n = len(P)
    f, diagonal, share = _plogp(P), np.diag(P), P.sum(1)
    rows = f.sum(1)
    own_i = _plogp(diagonal[:, None] + P)  # column i of the merged row: P_ii + P_ji
    own_j = _plogp(diagonal[None] + P)
    before = 2 * (rows[:, None] + rows[None]) - np.diag(f)[:, None] - np.diag(f)[None] - 2 * f
    after = 2 * (pairs - own_i - own_j) + _plogp(diagonal[:, None] + diagonal[None] + 2 * P)
    marginals = _plogp(share)[:, None] + _plogp(share)[None] - _plogp(share[:, None] + share[None])
    loss = before - after - 2 * marginals
    loss[np.arange(n), np.arange(n)] = np.inf
    return loss


def _plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return p * np.log(np.where(p > 0, p, 1.0))


@torch.no_grad()
def estimate_joints(model: CatVAE, images: torch.Tensor, policy: ViewPolicy, batch: int = 1024) -> Joints:
    """Joint distributions over about `PAIRS` pairs of evenly spaced images, (N, H, W, C) uint8, and views; default generator."""
    model.eval()
    step = max(1, len(images) // PAIRS)
    chosen = images[::step]
    rounds = max(1, round(PAIRS / len(chosen)))
    K, J = model.spec.clusters, model.spec.overclusters
    clusters, overclusters, shared = (torch.zeros(shape, dtype=torch.float64, device=images.device) for shape in ((K, K), (J, J), (J, K)))
    for start in range(0, len(chosen), batch):
        x = to_float(chosen[start : start + batch])
        own = model.encode(x)
        a, o = own.logits.softmax(-1).double(), own.auxiliary.softmax(-1).double()
        shared = shared + rounds * (o.T @ a)
        for _ in range(rounds):
            view = model.encode(random_view(x, policy))
            clusters = clusters + a.T @ view.logits.softmax(-1).double()
            overclusters = overclusters + o.T @ view.auxiliary.softmax(-1).double()
    return Joints(_normalised(clusters), _normalised(overclusters), (shared / shared.sum()).cpu().numpy())


def _normalised(counts: torch.Tensor) -> NDArray[np.float64]:
    joint = (counts + counts.T).cpu().numpy()
    return joint / joint.sum()


def align(group: NDArray[np.int64], shared: NDArray[np.float64]) -> NDArray[np.int64]:
    """Renumber groups so that they overlap most with the clusters they replace: decoder and offsets keep their blocks.

    Parameters
    ----------
    group : ndarray, (overclusters,)
    shared : ndarray, (overclusters, K)
        Joint distribution of small cluster and present cluster.
    """
    clusters = shared.shape[1]
    overlap = np.zeros((clusters, clusters))
    np.add.at(overlap, group, shared)
    rows, columns = linear_sum_assignment(-overlap)
    renumbered = np.empty(clusters, dtype=np.int64)
    renumbered[rows] = columns
    return renumbered[group]
