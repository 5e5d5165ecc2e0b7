"""The mixture loss in ordinary torch operations: any device, autograd's own gradients, nothing to compile.

What runs where no library was built, and one of the rivals the compiled kernel is measured against.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class MixtureKL(NamedTuple):
    """What `mixture_kl` and `dense_mixture_kl` return."""

    kl: Tensor
    """() sum over samples of w sum_k a KL_k, in nats; differentiable."""
    neg_entropy: Tensor
    """() sum over samples of w sum_k a log a, in nats; differentiable."""
    assignment: Tensor
    """(N, K) a = q(c|x); rows sum to 1; not differentiable."""
    cluster_kl: Tensor
    """(N, K) KL of each cluster's posterior to its prior mode, in nats; not differentiable."""


def plain_mixture_kl(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None = None) -> MixtureKL:
    """The factorised loss as matrix products.

    The expanded square sum_d m^2 + 2 m C + C^2 cancels where ``|m|`` is large beside the distance to the mode: absolute error grows
    with ``|m|^2 * 1e-7``. The compiled kernel finds such entries and squares the difference itself.
    """
    m, v = zero_where_masked(m, weight), zero_where_masked(v, weight)
    C, G = E - prior, F.exp()  # (K, D)
    square = (m * m).sum(-1, keepdim=True) + 2 * m @ C.T + (C * C).sum(-1)  # (N, K)
    spread = v.exp() @ G.T - v.sum(-1, keepdim=True) - F.sum(-1) - m.shape[1]  # (N, K)
    return _assigned(0.5 * (square + spread), logits, weight)


def plain_dense_kl(mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None = None) -> MixtureKL:
    """The dense loss: mean and log-variance (N, K, D) of their own for every cluster."""
    mu, lv = zero_where_masked(mu, weight), zero_where_masked(lv, weight)
    return _assigned(0.5 * ((mu - prior).square() + torch.expm1(lv) - lv).sum(-1), logits, weight)


def zero_where_masked(x: Tensor, weight: Tensor | None) -> Tensor:
    """Means or log-variances (N, D) or (N, K, D), 0 in samples of weight 0, where they may be anything."""
    return x if weight is None else x.masked_fill((weight == 0).view(-1, *[1] * (x.ndim - 1)), 0.0)


def _assigned(cluster_kl: Tensor, logits: Tensor, weight: Tensor | None) -> MixtureKL:
    log_a = torch.log_softmax(logits, -1)
    a = log_a.exp()
    empty = a == 0  # 0 log 0 and 0 * inf count as 0, in the gradients too
    kl = (a * cluster_kl.masked_fill(empty, 0.0)).sum(-1)
    neg_entropy = (a * log_a.masked_fill(empty, 0.0)).sum(-1)
    if weight is not None:
        kl, neg_entropy = weight * kl, weight * neg_entropy
    return MixtureKL(kl.sum(), neg_entropy.sum(), a.detach(), cluster_kl.detach())
