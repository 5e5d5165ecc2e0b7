"""Points of the latent space, made with numpy outside the graphs: one seed gives the same latents on every machine.

Generation follows the paper's figures: draws from a cluster's mode, straight lines between modes, walks along a cluster's own subspace, and
the same style in every cluster.
"""

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .arguments import whole_number

Latents = NDArray[np.float32]


def prior_means(clusters: int, delta: int, lam: float) -> Latents:
    """Means mu, (K, D) with D = K * delta: lambda on block c of cluster c, zero elsewhere."""
    return (lam * np.eye(clusters)).repeat(delta, axis=1).astype(np.float32)


def prior_samples(means: Latents, cluster: int, n: int, seed: int) -> Latents:
    """`n` draws z ~ N(mu_c, I), (n, D); the noise depends on (seed, cluster) alone: of fewer draws it is the same first ones.

    Raises
    ------
    UsageError
        For a cluster that does not exist, and where `n` or `seed` is no whole number from 0 on.
    """
    _require_cluster(cluster, len(means))
    n, seed = whole_number(n, "n"), whole_number(seed, "seed")
    noise = np.random.Generator(np.random.PCG64([seed, cluster])).standard_normal((n, means.shape[1]), dtype=np.float32)
    return means[cluster] + noise


def interpolate(start: Latents, end: Latents, n: int) -> Latents:
    """`n` points on the straight line from `start` to `end`, both included, (n, D)."""
    t = np.linspace(0, 1, n)[:, None]
    return ((1 - t) * start + t * end).astype(np.float32)


def walk(means: Latents, cluster: int, n: int, reach: float = 2.0) -> Latents:
    """`n` points from the origin through a cluster's mean to `reach` times its distance, (n, D): the paper's lambda figure."""
    _require_cluster(cluster, len(means))
    return np.linspace(0, reach, n, dtype=np.float32)[:, None] * means[cluster]


def transfer(latents: Latents, assignment: Latents, means: Latents) -> Latents:
    """Images' latents in every cluster, (N, K, D): style, what is left of a latent without its cluster's mean, is kept and K means added.

    Parameters
    ----------
    latents : ndarray, (N, D)
        Posterior means.
    assignment : ndarray, (N, K)
        Theirs: a posterior mean carries the cluster means mixed by it.
    means : ndarray, (K, D)
        Of the prior.
    """
    style = latents - assignment @ means
    return (style[:, None] + means).astype(np.float32)


def _require_cluster(cluster: int, clusters: int) -> None:
    if isinstance(cluster, bool) or not isinstance(cluster, (int, np.integer)):
        raise UsageError(f"cluster is {cluster!r}, expected a number from 0 to {clusters - 1}; names are in Bundle.names")
    if not 0 <= cluster < clusters:
        raise UsageError(f"cluster {cluster} does not exist: expected 0 to {clusters - 1}")
