"""The loss of one batch: the named terms of the bound, in nats per image, and the weighted sum that trains.

    reconstruction   -E log p(x|z)                                        Bernoulli on pixel intensities
    kl               sum_c q(c|x) KL(q(z|x,c) || p(z|c))                  all clusters in closed form
    neg_entropy      sum_c q(c|x) log q(c|x)                              + log K = KL(q(c|x) || uniform)
    information      CE(logits(decode(z)), c), c ~ U, z ~ N(mu_c, I)      the InfoCatVAE term, no extra network

The negative ELBO is reconstruction + kl + neg_entropy + log K (section 3 of arXiv 1806.08240), reported whatever weights train.
`invariance` is no part of the bound: see `views`. The published code's deviations live here too, behind ``legacy``.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from catvae.kernels import mixture_kl

from .config import TrainConfig
from .model import CatVAE, Posterior, draw
from .prior import sample_prior
from .views import ViewPolicy, random_view, view_information


class Terms(NamedTuple):
    """Scalars () of one batch, in nats per image, unweighted."""

    reconstruction: Tensor
    kl: Tensor
    neg_entropy: Tensor
    information: Tensor
    """Cross-entropy on generated images; 0 where the objective leaves it out."""
    invariance: Tensor
    """Mutual information between the assignments of an image and of its view, at most log K; 0 without views."""
    auxiliary: Tensor
    """The same for the over-clustering head."""
    elbo: Tensor
    """-(reconstruction + kl + neg_entropy + log K)."""


class BatchLoss(NamedTuple):
    """What one step needs."""

    total: Tensor
    """The weighted sum that is minimised."""
    terms: Terms
    head_information: Tensor
    """(heads,) mutual information of every candidate head, detached; empty without views."""
    assignment: Tensor
    """(N, K) q(c|x) of the batch, detached."""


def batch_loss(model: CatVAE, x: Tensor, config: TrainConfig, policy: ViewPolicy, *, warm: bool = False) -> BatchLoss:
    """Evaluate the objective on images.

    Parameters
    ----------
    model : CatVAE
    x : Tensor, (N, C, H, W)
        Float in [0, 1].
    config : TrainConfig
    policy : ViewPolicy
        Of the views, when the invariance weight asks for them.
    warm : bool
        Train on the mutual information alone, over every candidate head: no decoder runs, the terms of the bound are 0.

    Noise comes from torch's default generator.
    """
    n = len(x)
    # Images and views go through the trunk together: one set of batch statistics, larger matrix products.
    with_views = config.invariance_weight > 0
    encoded = model.encode(torch.cat([x, random_view(x, policy)]) if with_views else x)
    invariance, auxiliary, shared, per_head = _invariance(encoded, n, config, all_heads=warm)
    if warm:
        zero = x.new_zeros(())
        terms = Terms(zero, zero, zero, zero, invariance, auxiliary, zero)
        return BatchLoss(-config.invariance_weight * shared, terms, per_head, encoded.logits[:n].detach().softmax(-1))

    posterior = Posterior(*(part[:n] for part in encoded))
    divergence = mixture_kl(posterior.m, posterior.v, model.E, model.F, model.prior, posterior.logits)
    kl, neg_entropy = divergence.kl / n, divergence.neg_entropy / n
    if config.legacy:
        a = posterior.logits.softmax(-1)
        neg_entropy = (a * torch.log(a + 0.001)).sum() / n
    pixels = model.decode(draw(*model.component(posterior, _decoded_cluster(posterior.logits, config.path))))
    reconstruction = nnF.binary_cross_entropy_with_logits(pixels, x, reduction="sum") / n
    information = _information(model, config) if config.objective == "infocatvae" else x.new_zeros(())
    total = (
        reconstruction
        + kl
        + config.neg_entropy_weight * neg_entropy
        + config.information_weight * information
        - config.invariance_weight * shared
    )
    elbo = -(reconstruction + kl + neg_entropy + math.log(model.spec.clusters))
    terms = Terms(reconstruction, kl, neg_entropy, information, invariance, auxiliary, elbo)
    return BatchLoss(total, terms, per_head, divergence.assignment)


def _invariance(encoded: Posterior, n: int, config: TrainConfig, *, all_heads: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Information of the kept head and of the over-clustering head, the weighted sum that is trained, and information per head."""
    zero = encoded.m.new_zeros(())
    if not config.invariance_weight:
        return zero, zero, zero, encoded.m.new_empty(0)
    heads = encoded.heads if all_heads else encoded.heads[:, :1]
    found = view_information(heads[:n], heads[n:], config.marginal_weight)
    auxiliary, trained = zero, found.trained.mean()
    if config.overclusters:
        over = view_information(encoded.auxiliary[:n, None], encoded.auxiliary[n:, None], config.marginal_weight)
        auxiliary, trained = over.information[0], trained + over.trained[0]
    return found.information[0], auxiliary, trained, found.information.detach()


def _decoded_cluster(logits: Tensor, path: str) -> Tensor:
    """The cluster whose z is decoded: indices (N,) for a draw, weights (N, K) for a mixture.

    `sample` draws c ~ q(c|x): an unbiased value of the bound; q(c|x) learns from the other terms alone. `gumbel` is the reparametrised
    categorical draw (arXiv 1611.01144), one-hot forward, soft backward. `soft` mixes the offsets, as the published code does.
    """
    if path == "sample":
        return torch.multinomial(logits.detach().softmax(-1), 1).squeeze(1)
    if path == "gumbel":
        return nnF.gumbel_softmax(logits, tau=1.0, hard=True)
    return logits.softmax(-1)


def _information(model: CatVAE, config: TrainConfig) -> Tensor:
    """CE of recognising the cluster an image was generated from (section 4 of the paper), gradient through decoder and encoder."""
    z, c = sample_prior(model.prior, config.generated_per_cluster)
    with frozen_statistics(model):
        logits = model.encode(model.decode(z).sigmoid()).logits
    if config.legacy:
        logits = logits.softmax(-1)  # the published code hands probabilities to a loss that takes logits: its floor is 1.46 nats at K=10
    return nnF.cross_entropy(logits, c)


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep batch norm's running averages as they are: generated images must not blur what inference normalises real ones with."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
