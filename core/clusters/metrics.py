"""Scores of a clustering. Those with labels are for the final report alone: nothing that trains or chooses may import their values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from catvae.runtime.bundles.matching import contingency, match_counts


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
    shares: tuple[float, ...]
    """Share of the images in each cluster."""
    mean_confidence: float
    information: float
    """I(x; c) = H(mean q) - mean H(q), in nats."""


CALIBRATION_BINS = 15
UNRELATED = 0.05
"""Adjusted Rand index below which labels say next to nothing of clusters: days, cameras, plates."""


def match(clusters: NDArray, labels: NDArray, n_clusters: int, n_classes: int) -> NDArray[np.int64]:
    """The class matched to each cluster so that agreement is largest, one-to-one; -1 for clusters left over.

    Parameters
    ----------
    clusters, labels : ndarray, (N,), int
    """
    return match_counts(contingency(clusters, labels, (n_clusters, n_classes)))


def label_scores(clusters: NDArray, labels: NDArray) -> LabelScores:
    """ACC, NMI and ARI of a clustering, (N,) int each; the matching is made on these same images."""
    n_clusters, n_classes = int(clusters.max()) + 1, int(labels.max()) + 1
    acc = float((match(clusters, labels, n_clusters, n_classes)[clusters] == labels).mean())
    return LabelScores(
        acc,
        float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic")),
        float(adjusted_rand_score(labels, clusters)),
    )


def calibration_error(assignment: NDArray[np.float32], labels: NDArray) -> float:
    """Expected calibration error: mean |confidence - accuracy| over equally wide bins of confidence, clusters matched one-to-one.

    Parameters
    ----------
    assignment : ndarray, (N, K)
    labels : ndarray, (N,), int
    """
    clusters, confidence = assignment.argmax(1), assignment.max(1)
    correct = match(clusters, labels, assignment.shape[1], int(labels.max()) + 1)[clusters] == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=confidence - correct, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(labels))


def generation_ceiling(clusters: int, delta: int, lam: float) -> float:
    """Probability that z ~ N(mu_c, I) is nearest to its own mean: no judge of generated images can agree more often on average.

    The nearest mean is the one with the largest projection: N(s, 1) on the own axis against K - 1 of N(0, 1), s = lambda sqrt(delta),
    so the probability is the integral of phi(t - s) Phi(t)^(K-1).
    """
    s = lam * np.sqrt(delta)
    t = np.linspace(s - 10, s + 10, 4001)
    return float(trapezoid(norm.pdf(t - s) * norm.cdf(t) ** (clusters - 1), t))


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
        shares=tuple(counted.tolist()),
        mean_confidence=float(a.max(1).mean()),
        information=float(entropy - _entropy(a).mean()),
    )


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the last axis, in nats, 0 log 0 = 0."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
