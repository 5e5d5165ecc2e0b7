"""What the registered ops compute on devices without a compiled library: the functions of `calls` in ordinary torch operations.

The gradients are written out, because autograd does not look into an op. Left out: everything about speed; `mixture_kl` and
`dense_mixture_kl` do not come by here, they take the forms in `plain`.
"""

import torch
from torch import Tensor

from .checks import Maybe
from .plain import MixtureKL, plain_dense_kl, plain_mixture_kl


def mixture_forward(
    m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Maybe
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `calls.mixture_forward`; the statistics, which are the compiled backward's, are zeros."""
    return _with_statistics(plain_mixture_kl(m.to(E.dtype), v.to(E.dtype), E, F, prior, logits.to(E.dtype), weight))


def mixture_backward(
    m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Maybe,
    assignment: Tensor, cluster_kl: Tensor, statistics: Tensor, g_kl: Maybe, g_neg_entropy: Maybe,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `calls.mixture_backward`, by the equations of docs/kernel.md."""
    s, dlogits = _through_assignment(logits, weight, assignment, cluster_kl, g_kl, g_neg_entropy)
    of_samples, of_clusters = s.sum(1, keepdim=True), s.sum(0)[:, None]
    means, spread = (torch.where(of_samples == 0, 0.0, x) for x in (m.to(E.dtype), v.to(E.dtype).exp()))  # they may be infinite
    C, G = E - prior, F.exp()
    dm = of_samples * means + s @ C
    dv = 0.5 * (spread * (s @ G) - of_samples)
    dE = s.T @ means + of_clusters * C
    dF = 0.5 * (G * (s.T @ spread) - of_clusters)
    return dm.to(m.dtype), dv.to(v.dtype), dE, dF, dlogits


def dense_forward(mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor, weight: Maybe) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `calls.dense_forward`; the statistics are zeros."""
    return _with_statistics(plain_dense_kl(mu.to(prior.dtype), lv.to(prior.dtype), prior, logits.to(prior.dtype), weight))


def dense_backward(
    mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor, weight: Maybe,
    assignment: Tensor, cluster_kl: Tensor, statistics: Tensor, g_kl: Maybe, g_neg_entropy: Maybe,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As `calls.dense_backward`."""
    s, dlogits = _through_assignment(logits, weight, assignment, cluster_kl, g_kl, g_neg_entropy)
    share = s[..., None]
    dmu = torch.where(share == 0, 0.0, share * (mu - prior))
    dlv = torch.where(share == 0, 0.0, 0.5 * share * torch.expm1(lv.to(prior.dtype)))
    return dmu.to(mu.dtype), dlv.to(lv.dtype), dlogits


def _with_statistics(found: MixtureKL) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kl, neg_entropy, assignment, cluster_kl = found
    return kl, neg_entropy, assignment, cluster_kl, assignment.new_zeros(3, len(assignment))


def _through_assignment(
    logits: Tensor, weight: Maybe, assignment: Tensor, cluster_kl: Tensor, g_kl: Maybe, g_neg_entropy: Maybe
) -> tuple[Tensor, Tensor]:
    """(s, dlogits), both (N, K): the gradient that reaches each cluster's KL, s = g_kl w a, and that of the logits."""
    weighted = assignment if weight is None else weight[:, None] * assignment
    empty = assignment == 0  # 0 log 0 and 0 * inf count as 0
    dlogits = torch.zeros_like(assignment)
    for g, term in ((g_kl, cluster_kl), (g_neg_entropy, torch.log_softmax(logits.to(assignment.dtype), -1))):
        if g is not None:
            kept, scale = term.masked_fill(empty, 0.0), g.reshape(()) * weighted
            dlogits += torch.where(scale == 0, 0.0, scale * (kept - (assignment * kept).sum(1, keepdim=True)))
    s = torch.zeros_like(weighted) if g_kl is None else g_kl.reshape(()) * weighted
    return s, dlogits.to(logits.dtype)
