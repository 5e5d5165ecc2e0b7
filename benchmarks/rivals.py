"""Other ways to compute the mixture loss, for comparison: the published code's loop, the broadcast form, the matrix-product form.

All take the inputs of `mixture_kl` (or of `dense_mixture_kl`) and return (kl, neg_entropy), summed over the samples.
"""

import torch
from torch import Tensor

from catvae.kernels import dense_mixture_kl, mixture_kl
from catvae.kernels.ops import mixture
from catvae.kernels.ops.plain import plain_dense_kl, plain_mixture_kl

Pair = tuple[Tensor, Tensor]


def published_loop(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """The authors' loss (own transcription): means and variances stacked cluster by cluster, then one cluster after the other.

    As there, each cluster is an index into the stacked (K, N, D) tensors, whose gradient is a tensor of that size for every cluster.
    Only their log(a + 0.001) is left out, so that all rows compute the same number. Their encoder's K linear layers are `step`'s matter.
    """
    N, D = m.shape
    clusters = range(E.shape[0])
    a = torch.softmax(logits, dim=1)
    all_mu, all_lv = torch.stack([m + E[k] for k in clusters]), torch.stack([v + F[k] for k in clusters])
    total = m.new_zeros(())
    for k in clusters:
        mu, lv = all_mu[k, :, :], all_lv[k, :, :]
        divergence = -0.5 * (1 + lv - (mu - prior[k].repeat(N, 1)).pow(2) - lv.exp())
        total = total + torch.sum(torch.t(a[:, k].repeat(D, 1)) * divergence)
    return total, torch.sum(a * torch.log_softmax(logits, dim=1))


def broadcast(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """All clusters at once with tensors of N*K*D elements."""
    return plain_dense_kl(m[:, None] + E, v[:, None] + F, prior, logits)[:2]


def products(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """The factorised form in eager torch: two products forward, four backward."""
    return plain_mixture_kl(m, v, E, F, prior, logits)[:2]


def dense(mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """The dense form in eager torch."""
    return plain_dense_kl(mu, lv, prior, logits)[:2]


def six_products(m: Tensor, E: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    """The matrix products of the factorised form alone, forward and backward: the floor for large K*D."""
    return m @ E.T, m @ E.T, logits @ E, logits @ E, logits.T @ m, logits.T @ m


def from_python(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """Ours through an autograd function in Python, as wherever the C++ node was not compiled."""
    with _without_node():
        return mixture_kl(m, v, E, F, prior, logits)[:2]


def dense_from_python(mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor) -> Pair:
    """The same of the dense form."""
    with _without_node():
        return dense_mixture_kl(mu, lv, prior, logits)[:2]


class _without_node:
    """A context manager as a class: a generator's would be seen in the times."""

    def __enter__(self) -> None:
        self.node, mixture.node = mixture.node, lambda: None

    def __exit__(self, *_: object) -> None:
        mixture.node = self.node


class NothingDone(torch.autograd.Function):
    """A custom function of the same inputs that computes nothing: what torch's own machinery costs a step."""

    @staticmethod
    def forward(ctx, *inputs):
        ctx.save_for_backward(*inputs)
        return inputs[0].new_zeros(()), inputs[0].new_zeros(())

    @staticmethod
    def backward(ctx, g_kl, g_neg_entropy):  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(torch.empty_like(x) if x.requires_grad else None for x in ctx.saved_tensors)


def nothing(*inputs: Tensor) -> Pair:
    """`NothingDone` applied."""
    return NothingDone.apply(*inputs)  # pyright: ignore[reportReturnType]
