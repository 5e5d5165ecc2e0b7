"""Pictures a bundle can draw: rows of new images per cluster, paths between clusters, walks along one cluster."""

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .latents import interpolate, prior_samples, walk


def cluster_rows(bundle: Bundle, *, per_cluster: int, seed: int, clusters: list[int] | None = None) -> list[NDArray[np.float32]]:
    """New images of each cluster, a row (n, H, W, C) each, the prior mean first."""
    rows = []
    for cluster in clusters if clusters is not None else range(len(bundle.names)):
        latents = prior_samples(bundle.means, cluster, per_cluster, seed)
        latents[:1] = bundle.means[cluster]
        rows.append(bundle.decode(latents))
    return rows


def interpolation_row(bundle: Bundle, start: int, end: int, n: int) -> NDArray[np.float32]:
    """`n` images on the straight line between two clusters' prior means, (n, H, W, C)."""
    means = bundle.means
    return bundle.decode(interpolate(means[start], means[end], n))


def walk_row(bundle: Bundle, cluster: int, n: int) -> NDArray[np.float32]:
    """`n` images from the origin out along a cluster's own subspace, (n, H, W, C): the paper's lambda figure."""
    return bundle.decode(walk(bundle.means, cluster, n))
