"""The loss of one batch: the named terms of the bound, in nats per image, and the weighted sum that trains.

    reconstruction   -E log p(x|z)                                        Bernoulli on pixel intensities
    kl               sum_c q(c|x) KL(q(z|x,c) || p(z|c))                  all clusters in closed form
    neg_entropy      sum_c q(c|x) log q(c|x)                              + log K = KL(q(c|x) || uniform)
    information      CE(logits(decode(z)), c), c ~ U, z ~ N(mu_c, I)      the InfoCatVAE term, without an extra network

The negative ELBO is reconstruction + kl + neg_entropy + log K (section 3 of arXiv 1806.08240); it is reported as such, whatever the weights
that train. `invariance` is no part of the bound: see `view_information`. The published code's deviations are here too, behind ``legacy``.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as nnF
from torch import Tensor

from catvae.kernels import bernoulli, mixture_kl

from ..config import TrainConfig
from ..images.views import ViewPolicy, random_view
from ..machine.ranks import ALONE, Ranks
from .model import CatVAE, Posterior, draw
from .prior import sample_prior
from .view_information import view_information

TINY = 1e-6
"""Least probability that a logarithm is taken of."""
MOST_GENERATED = 2048
"""The most images drawn in one step for the information term, unless there are more clusters than that."""


class Terms(NamedTuple):
    """Scalars () of one batch, in nats per image, unweighted."""

    reconstruction: Tensor
    kl: Tensor
    neg_entropy: Tensor
    information: Tensor
    """Cross-entropy of recognising the cluster of generated images, of views of them if so set; 0 where the objective leaves it out."""
    invariance: Tensor
    """Mutual information between the assignments of an image and of its view, at most log K; 0 without views."""
    auxiliary: Tensor
    """The same for the over-clustering head."""
    elbo: Tensor
    """-(reconstruction + kl + neg_entropy + log K)."""


class MergeTarget(NamedTuple):
    """A merge of over-clusters, which clusters are trained on."""

    membership: Tensor
    """(overclusters, K) one-hot rows: the cluster of each over-cluster."""
    replaces_information: bool
    """Whether clusters are trained on it alone, not on the mutual information of views too, which would make unequal ones equal again."""


class ViewTerms(NamedTuple):
    """How views train, beside the weights of the configuration."""

    target: MergeTarget | None = None
    """The last merge, if there was one."""
    symmetric: bool = True
    """See `view_information`."""


NO_MERGE = ViewTerms()


class BatchLoss(NamedTuple):
    """What one step needs."""

    total: Tensor
    """The weighted sum that is minimised."""
    terms: Terms
    assignment: Tensor
    """(N, K) q(c|x) of the batch, detached."""


def batch_loss(
    model: CatVAE,
    x: Tensor,
    config: TrainConfig,
    policy: ViewPolicy,
    *,
    views: ViewTerms = NO_MERGE,
    views_only: bool = False,
    labelled: tuple[Tensor, Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> BatchLoss:
    """Evaluate the objective on a batch; noise comes from torch's default generator.

    Parameters
    ----------
    model : CatVAE
    x : Tensor, (N, C, H, W)
        Images, float in [0, 1].
    config : TrainConfig
    policy : ViewPolicy
        Makes the views, where the weights ask for them.
    views : ViewTerms
    views_only : bool
        Train on views alone; the terms of the bound are then NaN.
    labelled : (Tensor, Tensor), optional
        Images (n, C, H, W) and the cluster (n,) of each, whose cross-entropy is added with the configured weight.
    ranks : Ranks
        Each holds a part of the batch; all must evaluate the objective at the same time.
    """
    evaluate = _loss_of_views if views_only else _full_loss
    loss = evaluate(model, x, config, policy, views, ranks)
    if labelled is None:
        return loss
    images, c = labelled
    with frozen_statistics(model):  # beside the batch: a few images of one class alone would be normalised to nothing
        logits = model.cluster_logits(torch.cat([images, x]))[: len(images)]
    return loss._replace(total=loss.total + config.label_weight * nnF.cross_entropy(logits, c))


def _full_loss(model: CatVAE, x: Tensor, config: TrainConfig, policy: ViewPolicy, views: ViewTerms, ranks: Ranks) -> BatchLoss:
    n = len(x)
    zero = x.new_zeros(())
    # Images and views go through the trunk together: one set of batch statistics, larger matrix products.
    with_views = config.invariance_weight > 0
    encoded = model.encode(torch.cat([x, random_view(x, policy)]) if with_views else x)
    posterior = Posterior(*(part[:n] for part in encoded)) if with_views else encoded

    divergence = mixture_kl(posterior.m, posterior.v, model.E, model.F, model.prior, posterior.logits)
    kl, neg_entropy = divergence.kl / n, divergence.neg_entropy / n
    trained_neg_entropy = neg_entropy
    if config.legacy:
        a = posterior.logits.softmax(-1)
        trained_neg_entropy = (a * torch.log(a + 0.001)).sum() / n
    z = draw(*model.component(posterior, _decoded_cluster(divergence.assignment, posterior.logits, config.path)))
    information = trained_information = zero
    if config.objective == "infocatvae":
        # Latents of images and of the prior are decoded together: fewer, larger products, and one gradient per weight.
        drawn, c = sample_prior(model.prior, _generated_per_cluster(config, model.spec.clusters, ranks))
        nll, generated = reconstruction(model.decoder(torch.cat([z, drawn])), x)
        information, trained_information = _information(model, generated, c, config, policy)
    else:
        nll, _ = reconstruction(model.decoder(z), x)
    total = nll / n + kl + config.neg_entropy_weight * trained_neg_entropy + config.information_weight * trained_information

    invariance = auxiliary = zero
    if with_views:
        of_views, invariance, auxiliary = _view_terms(encoded, config, views, ranks)
        total = total + of_views
    elbo = -(nll / n + kl + neg_entropy + math.log(model.spec.clusters))
    return BatchLoss(total, Terms(nll / n, kl, neg_entropy, information, invariance, auxiliary, elbo), divergence.assignment)


def reconstruction(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """What is read from a decoder's logits: the likelihood of the batch, and the generated images decoded with it.

    Parameters
    ----------
    logits : Tensor, (N + G, C, H, W)
    x : Tensor, (N, C, H, W)
        The batch.

    Returns
    -------
    nll : Tensor, ()
        -log p(x|z), summed over the batch, in nats, from the first N logits.
    images : Tensor, (G, C, H, W)
        The sigmoids of the others.
    """
    in_c = bernoulli(logits, x)
    return reconstruction_in_torch(logits, x) if in_c is None else in_c


def reconstruction_in_torch(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """As `reconstruction`, where the kernel does not apply."""
    pixels, others = logits.float().split([len(x), len(logits) - len(x)])
    return nnF.binary_cross_entropy_with_logits(pixels, x, reduction="sum"), others.sigmoid()


def _generated_per_cluster(config: TrainConfig, clusters: int, ranks: Ranks) -> int:
    """Images of each cluster that one rank draws; at least two in all, since batch norm knows no variance of one."""
    number = min(config.generated_per_cluster, max(1, MOST_GENERATED // clusters))
    return max(-(-number // ranks.count), 2 if clusters == 1 else 1)


def _loss_of_views(model: CatVAE, x: Tensor, config: TrainConfig, policy: ViewPolicy, views: ViewTerms, ranks: Ranks) -> BatchLoss:
    """The terms of views alone: no latent is drawn and nothing is decoded."""
    n = len(x)
    encoded = model.encode(torch.cat([x, random_view(x, policy)]))
    total, invariance, auxiliary = _view_terms(encoded, config, views, ranks)
    unknown = x.new_full((), math.nan)
    terms = Terms(unknown, unknown, unknown, unknown, invariance, auxiliary, unknown)
    return BatchLoss(total, terms, encoded.logits[:n].detach().softmax(-1))


def _view_terms(encoded: Posterior, config: TrainConfig, views: ViewTerms, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sum that trains, and the mutual information of clusters and of over-clusters; `encoded` holds images, then views."""
    target = views.target
    of_images, of_views = encoded.logits.chunk(2)
    found = view_information(of_images, of_views, config.marginal_weight, ranks, symmetric=views.symmetric)
    invariance, total = found.information, found.information.new_zeros(())
    if target is None or not target.replaces_information:
        total = total - config.invariance_weight * found.trained
    auxiliary = torch.zeros_like(invariance)
    if config.overclusters:
        of_images, of_views = encoded.auxiliary.chunk(2)
        found = view_information(of_images, of_views, config.marginal_weight, ranks, symmetric=views.symmetric)
        auxiliary, total = found.information, total - config.invariance_weight * found.trained
    if target is not None:
        groups = encoded.auxiliary.softmax(-1) @ target.membership
        total = total + config.invariance_weight * _group_cross_entropy(encoded.logits, groups)
    return total, invariance, auxiliary


def _group_cross_entropy(logits: Tensor, groups: Tensor) -> Tensor:
    """Cross-entropies, in both directions, of clusters (N, K logits) and groups of over-clusters (N, K probabilities), nats per image.

    Clusters learn the groups, and over-clusters stay in theirs. Without the second, a small over-cluster grows by taking what belongs
    elsewhere, and clusters learn that too: with it an MNIST run reached 0.988 instead of 0.979.
    """
    clusters_to_groups = nnF.cross_entropy(logits, groups.detach())
    groups_to_clusters = -(logits.detach().softmax(-1) * groups.clamp_min(TINY).log()).sum(1).mean()
    return clusters_to_groups + groups_to_clusters


def _decoded_cluster(assignment: Tensor, logits: Tensor, path: str) -> Tensor:
    """The cluster whose z is decoded: indices (N,) for a draw, weights (N, K) for a mixture.

    `sample` draws c ~ q(c|x): an unbiased value of the bound; q(c|x) learns from the other terms alone. `gumbel` is the reparametrised
    categorical draw (arXiv 1611.01144), one-hot forward, soft backward. `soft` mixes the offsets, as the published code does.
    """
    if path == "sample":
        # What torch.multinomial draws, without its checks: what is no number is left to the step, which notices.
        return (assignment / torch.empty_like(assignment).exponential_()).argmax(-1)
    if path == "gumbel":
        return nnF.gumbel_softmax(logits, tau=1.0, hard=True)
    return logits.softmax(-1)


def _information(model: CatVAE, images: Tensor, c: Tensor, config: TrainConfig, policy: ViewPolicy) -> tuple[Tensor, Tensor]:
    """Cross-entropy of recognising the cluster `c` (G,) that images (G, C, H, W) were generated from, section 4 of the paper: in nats, and
    as it is trained. The gradient passes through encoder and decoder."""
    if config.information_views:
        images = random_view(images, policy)
    with frozen_statistics(model), frozen_encoder(model) if config.information_trains == "decoder" else contextlib.nullcontext():
        logits = model.cluster_logits(images)
    value = nnF.cross_entropy(logits, c)
    # The published code hands probabilities to a loss that takes logits: its floor is 1.46 nats at K=10.
    return value, nnF.cross_entropy(logits.softmax(-1), c) if config.legacy else value


@contextlib.contextmanager
def frozen_encoder(model: CatVAE) -> Iterator[None]:
    """Inside, the weights of encoder and output layer get no gradient; it still passes through them to the images."""
    parameters = [*model.encoder.parameters(), *model.head.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def frozen_statistics(model: CatVAE) -> Iterator[None]:
    """Keep batch norm's running averages as they are: generated images must not blur what inference normalises real ones with."""
    momenta = [layer.momentum for layer in model.norms]
    for layer in model.norms:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(model.norms, momenta, strict=True):
            layer.momentum = momentum
