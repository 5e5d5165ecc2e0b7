"""Other ways to compute the mixture loss, for comparison: the published code's loop, the broadcast form, the matrix-product form.

All take the factorised inputs of `mixture_kl` and return (kl, neg_entropy), summed over the samples.
"""

import torch
from torch import Tensor

from catvae.kernels.ops.plain import plain_mixture_kl

Pair = tuple[Tensor, Tensor]


def published_loop(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """One cluster after the other with repeated tensors, as the authors' code adds up its divergence (own transcription)."""
    N, D = m.shape
    a = torch.softmax(logits, dim=1)
    total = m.new_zeros(())
    for k in range(E.shape[0]):
        mu, log_variance = m + E[k], v + F[k]
        divergence = -0.5 * (1 + log_variance - (mu - prior[k].repeat(N, 1)).pow(2) - log_variance.exp())
        total = total + torch.sum(torch.t(a[:, k].repeat(D, 1)) * divergence)
    return total, torch.sum(a * torch.log_softmax(logits, dim=1))


def broadcast(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """All clusters at once with tensors of N*K*D elements."""
    mean, log_variance = m[:, None] + (E - prior), v[:, None] + F
    cluster_kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    log_a = logits.log_softmax(-1)
    a = log_a.exp()
    return (a * cluster_kl).sum(), (a * log_a).sum()


def matmul_form(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """The factorised form in eager torch: two products forward, four backward."""
    return plain_mixture_kl(m, v, E, F, prior, logits)[:2]


def six_products(m: Tensor, E: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    """The matrix products of the factorised form alone, forward and backward: the floor for large K*D."""
    return m @ E.T, m @ E.T, logits @ E, logits @ E, logits.T @ m, logits.T @ m
