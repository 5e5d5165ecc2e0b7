"""Scores of a clustering. Those with labels are for the final report alone: nothing that trains or chooses may import their values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


class LabelScores(NamedTuple):
    """Agreement with labels, each in [0, 1] (ARI may be negative)."""

    acc: float
    """Share of images in the cluster matched one-to-one with their class (Hungarian method)."""
    nmi: float
    """Normalised mutual information, arithmetic mean."""
    ari: float
    """Adjusted Rand index."""


class Health(NamedTuple):
    """Label-free signs of a healthy clustering."""

    perplexity: float
    """exp of the entropy of the mean assignment: K when clusters are equally used, 1 when all images share one."""
    active: int
    """Clusters that hold more than 1 % of the images."""
    smallest_share: float
    mean_confidence: float
    information: float
    """I(x; c) = H(mean q) - mean H(q), in nats."""


def match(clusters: NDArray, labels: NDArray, n_clusters: int, n_classes: int) -> NDArray[np.int64]:
    """The class matched to each cluster so that agreement is largest, one-to-one; -1 for clusters left over.

    Parameters
    ----------
    clusters, labels : ndarray, (N,), int
    """
    counts = np.zeros((n_clusters, n_classes), dtype=np.int64)
    np.add.at(counts, (clusters, labels), 1)
    rows, columns = linear_sum_assignment(-counts)
    matched = np.full(n_clusters, -1, dtype=np.int64)
    matched[rows] = columns
    return matched


def label_scores(clusters: NDArray, labels: NDArray) -> LabelScores:
    """ACC, NMI and ARI of a clustering, (N,) int each; the matching is made on these same images."""
    n_clusters, n_classes = int(clusters.max()) + 1, int(labels.max()) + 1
    acc = float((match(clusters, labels, n_clusters, n_classes)[clusters] == labels).mean())
    return LabelScores(
        acc,
        float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic")),
        float(adjusted_rand_score(labels, clusters)),
    )


def health(assignment: NDArray[np.float32]) -> Health:
    """Signs of health of soft assignments (N, K)."""
    a = assignment.astype(np.float64)
    share = a.mean(0)
    counted = np.bincount(a.argmax(1), minlength=a.shape[1]) / len(a)
    entropy = _entropy(share)
    return Health(
        perplexity=float(np.exp(entropy)),
        active=int((counted > 0.01).sum()),
        smallest_share=float(counted.min()),
        mean_confidence=float(a.max(1).mean()),
        information=float(entropy - _entropy(a).mean()),
    )


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the last axis, in nats, 0 log 0 = 0."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
