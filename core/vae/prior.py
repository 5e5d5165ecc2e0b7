"""The K-modal prior: p(c) = 1/K, p(z|c) = N(mu_c, I) with orthogonal, equidistant means (section 3.1 of arXiv 1806.08240)."""

import torch
from torch import Tensor

from catvae.runtime.bundles import latents


def prior_means(clusters: int, delta: int, lam: float) -> Tensor:
    """Means mu, (K, D) with D = K * delta: lambda on block c of cluster c, zero elsewhere."""
    return torch.from_numpy(latents.prior_means(clusters, delta, lam))


def sample_prior(means: Tensor, per_cluster: int) -> tuple[Tensor, Tensor]:
    """Draw z ~ N(mu_c, I), the same number for every cluster.

    Returns
    -------
    z : Tensor, (K * per_cluster, D)
    c : Tensor, (K * per_cluster,), int64
    """
    clusters, latent = means.shape
    z = means.unsqueeze(1) + torch.randn(clusters, per_cluster, latent, device=means.device)
    c = torch.arange(clusters, device=means.device).unsqueeze(1).expand(clusters, per_cluster)
    return z.view(-1, latent), c.reshape(-1)
