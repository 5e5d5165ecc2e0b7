"""The bound and the likelihood of a trained model, in true units, whatever weights trained it.

    ELBO(x)  = sum_c q(c|x) (E_q(z|x,c) log p(x|z) - KL_c) - KL(q(c|x) || uniform)       c enumerated, one z drawn for each
    log p(x) ~ log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x)                                  z_s ~ q(z|x), both mixtures over c

p(z) = 1/K sum_c N(mu_c, I) and q(z|x) = sum_c q(c|x) q(z|x,c) (importance weighting: Burda et al., arXiv 1509.00519). Pixels are
intensities in training, which is no likelihood of 8-bit data; `nll` is therefore given for pixels drawn once as Bernoulli variables, the
form that published figures have. The posterior always sees the image itself: any proposal gives a valid estimate.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from torch import Tensor

from catvae.kernels import mixture_kl
from catvae.runtime.sampling import scattered

from ..images.pieces import to_float
from .model import CatVAE, Posterior

LOG_2PI = math.log(2 * math.pi)
DECODED = 4096
"""Latents whose draws are held at a time."""
PIXELS = 2**22
"""Pixels decoded at a time: with what the decoder holds in between some 2 GB."""
IMAGES, FEWEST = 500, 100
"""Images that are looked at: of 28 x 28 grey pixels, and of any larger ones at least; each is decoded a hundred times."""


class Likelihood(NamedTuple):
    """Means over images, in nats per image; the standard error is over images."""

    elbo: float
    """On pixel intensities: the objective that `metrics.csv` follows, without its sampling of c."""
    reconstruction: float
    kl: float
    neg_entropy: float
    nll: float
    """Importance-weighted estimate of -log p(x), pixels binarised: an upper bound that falls as draws are added."""
    nll_error: float
    images: int
    draws: int


@torch.no_grad()
def likelihood(model: CatVAE, images: NDArray[np.uint8], *, draws: int = 100, at_most: int | None = None, seed: int = 0) -> Likelihood:
    """Bound and likelihood over at most so many of the images; when left out, fewer the larger they are.

    Parameters
    ----------
    model : CatVAE
    images : ndarray, (N, H, W, C), uint8
    draws : int
        S, of the importance-weighted estimate.
    seed : int
        Of latents and of the binarisation, drawn by numpy: the same on every device, whatever the batch.
    """
    model.eval()
    device = model.prior.device
    at_most = at_most or min(IMAGES, max(FEWEST, IMAGES * 28 * 28 // math.prod(images.shape[1:])))
    chosen = images[scattered(len(images), at_most)]
    of_bound, of_pixels, of_draws = (np.random.default_rng([seed, stream]) for stream in range(3))
    sums = torch.zeros(4, dtype=torch.float64)
    nll: list[Tensor] = []
    clusters, latent = model.prior.shape
    batch = max(1, DECODED // max(clusters, draws))
    for start in range(0, len(chosen), batch):
        x = to_float(torch.from_numpy(np.ascontiguousarray(chosen[start : start + batch])).to(device))
        posterior = model.encode(x)
        noise = torch.from_numpy(of_bound.standard_normal((len(x) * clusters, latent), dtype=np.float32)).to(device)
        sums += _bound_terms(model, x, posterior, noise).cpu()
        binary = (torch.from_numpy(of_pixels.random(tuple(x.shape), dtype=np.float32)).to(device) < x).float()
        nll.append(_importance_weighted(model, binary, posterior, draws, of_draws))
    reconstruction, kl, neg_entropy, count = sums.tolist()
    terms = [value / count for value in (reconstruction, kl, neg_entropy)]
    values = torch.cat(nll)
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else 0.0
    elbo = -sum(terms) - math.log(clusters)
    return Likelihood(elbo, terms[0], terms[1], terms[2], float(values.mean()), error, len(chosen), draws)


def _bound_terms(model: CatVAE, x: Tensor, posterior: Posterior, noise: Tensor) -> Tensor:
    """Sums over the batch of reconstruction, kl, neg_entropy, and the number of images, (4,), every cluster decoded."""
    n = len(x)
    mean, log_variance = _components(model, posterior)
    error = -_log_likelihood(model, x, mean + torch.exp(0.5 * log_variance) * noise.view_as(mean))
    loss = mixture_kl(posterior.m, posterior.v, model.E, model.F, model.prior, posterior.logits)
    return torch.stack([(loss.assignment * error).sum(), loss.kl, loss.neg_entropy, error.new_tensor(n)]).double()


def _importance_weighted(model: CatVAE, x: Tensor, posterior: Posterior, draws: int, rng: np.random.Generator) -> Tensor:
    """-log p(x) of each image of a batch, (N,)."""
    n = len(x)
    mean, log_variance = _components(model, posterior)
    log_q = posterior.logits.log_softmax(-1)
    cumulative = log_q.exp().cumsum(1).cpu().numpy()
    c = (rng.random((n, draws))[:, :, None] > cumulative[:, None, :-1]).sum(-1)  # (N, S), inverse of the distribution function
    c = torch.from_numpy(c).to(x.device)
    noise = torch.from_numpy(rng.standard_normal((n, draws, mean.shape[-1]), dtype=np.float32)).to(x.device)
    rows = torch.arange(n, device=x.device)[:, None]
    z = mean[rows, c] + torch.exp(0.5 * log_variance[rows, c]) * noise  # (N, S, D)
    log_likelihood = _log_likelihood(model, x, z)
    zero = torch.zeros_like(model.prior)
    log_prior = _log_mixture(z, torch.full_like(log_q, -math.log(log_q.shape[1])), model.prior.expand(n, -1, -1), zero.expand(n, -1, -1))
    weight = log_likelihood + log_prior - _log_mixture(z, log_q, mean, log_variance)
    return (math.log(draws) - weight.logsumexp(1)).cpu()


def _log_likelihood(model: CatVAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z), (N, S), of images (N, C, H, W) and S latents for each, (N, S, D); as many at a time as memory holds."""
    n, count = z.shape[:2]
    at_once = max(1, PIXELS // x[0].numel())
    owner = torch.arange(n, device=x.device).repeat_interleave(count)
    parts = [
        nnF.binary_cross_entropy_with_logits(model.decode(latents), x[rows], reduction="none").flatten(1).sum(1)
        for latents, rows in zip(z.flatten(0, 1).split(at_once), owner.split(at_once), strict=True)
    ]
    return -torch.cat(parts).view(n, count)


def _components(model: CatVAE, posterior: Posterior) -> tuple[Tensor, Tensor]:
    """Means and log-variances (N, K, D) of q(z|x,c) for every cluster."""
    return posterior.m[:, None] + model.E, posterior.v[:, None] + model.F


def _log_mixture(z: Tensor, log_weight: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log sum_c weight_c N(z; mean_c, exp log_variance_c), (N, S), of z (N, S, D), weights (N, K), components (N, K, D)."""
    parts = []
    for k in range(mean.shape[1]):  # (N, S, K, D) at once would be K times the latents
        difference = z - mean[:, k, None]
        exponent = (difference.square() * torch.exp(-log_variance[:, k, None]) + log_variance[:, k, None] + LOG_2PI).sum(-1)
        parts.append(log_weight[:, k, None] - 0.5 * exponent)
    return torch.stack(parts, -1).logsumexp(-1)
