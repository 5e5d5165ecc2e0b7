"""`mixture_kl` and `dense_mixture_kl` for torch: the compiled operations with their gradients, or the plain form where nothing was built.

Forward returns the two sums; backward is told both upstream gradients and makes every gradient in one call. Eager calls go straight to
the library, through the C++ node where it was compiled: the dispatcher and autograd's registration cost 25 us a step, more than the kernel
at the published size, and a function in Python doubles the time of a call there. Under torch.compile
the registered ops of `registered` stand in; under torch.func and forward-mode differentiation the plain form does. Left out: second
derivatives, and gradients of ``prior`` and ``weight``, constants here.
"""

import contextlib
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .. import _loader
from . import calls, registered  # noqa: F401 - registering is what the import is for
from .checks import HALF, Maybe, check_dense, check_mixture, fits
from .eager import direct_apply, kernel_runs, traced, transformed
from .node import node
from .once import first_derivative
from .plain import MixtureKL, plain_dense_kl, plain_mixture_kl


def mixture_kl(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Maybe = None) -> MixtureKL:
    """All-cluster KL and assignment entropy of a posterior with K Gaussian components: sum_c q(c|x) KL_c and -H(q(c|x)).

    Section 3 of arXiv 1806.08240. Nothing of N*K*D elements exists, forward or backward; what is kept for backward is the inputs and
    2 N K + 3 N numbers.

    Parameters
    ----------
    m, v : Tensor, (N, D)
        Mean and log-variance shared by the clusters.
    E, F : Tensor, (K, D)
        Offsets of each cluster: q(z|x, c) = N(m + E_c, diag exp(v + F_c)). In float32, |v| and |F| up to 80: exp(v) and exp(F) are
        computed apart.
    prior : Tensor, (K, D)
        Means of the prior modes, a constant.
    logits : Tensor, (N, K)
        q(c|x) = softmax(logits).
    weight : Tensor, (N,), optional
        Known sample weights, a constant; ones when left out. A sample of weight 0 is masked: its v may be anything.

    Returns
    -------
    MixtureKL
        Sums over the samples; divide by N for a mean. float32, or float64 where all inputs are.

    Raises
    ------
    ValueError
        On shapes, dtypes or devices that do not fit together, with what was found and what was expected.
    """
    if (found := _in_one_call("mixture_kl", m, v, E, F, prior, logits, weight)) is not None:
        return found
    if not fits(m, v, E, F, prior, logits, weight):
        check_mixture(m, v, E, F, prior, logits, weight)
        m, v, logits = _one_dtype(m, v, logits)
        E, F, prior = _widened(E), _widened(F), _widened(prior)
        weight = None if weight is None else weight.to(E.dtype)
    if _compiled(m):
        inputs = m, v, E, F, prior, logits, weight
        if traced(*inputs):
            return MixtureKL(*torch.ops.catvae.mixture_kl(*inputs)[:4])
        if not transformed():
            return _joined(calls.mixture_forward(*inputs), calls.mixture_backward, inputs, (m, v, E, F, logits))
    with _full_precision(m):
        return plain_mixture_kl(_widened(m), _widened(v), E, F, prior, _widened(logits), weight)


def dense_mixture_kl(mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor, weight: Maybe = None) -> MixtureKL:
    """The same loss for encoders that do not factorise: q(z|x, c) = N(mu_c, diag exp(lv_c)).

    Parameters
    ----------
    mu, lv : Tensor, (N, K, D)
        Mean and log-variance of every cluster's posterior.
    prior, logits, weight, and what is returned and raised
        As for `mixture_kl`.
    """
    if (found := _in_one_call("dense_mixture_kl", mu, lv, prior, logits, weight)) is not None:
        return found
    check_dense(mu, lv, prior, logits, weight)
    mu, lv, logits = _one_dtype(mu, lv, logits)
    prior = _widened(prior)
    weight = None if weight is None else weight.to(prior.dtype)
    if _compiled(mu):
        inputs = mu, lv, prior, logits, weight
        if traced(*inputs):
            return MixtureKL(*torch.ops.catvae.dense_kl(*inputs)[:4])
        if not transformed():
            return _joined(calls.dense_forward(*inputs), calls.dense_backward, inputs, (mu, lv, logits))
    with _full_precision(mu):
        return plain_dense_kl(_widened(mu), _widened(lv), prior, _widened(logits), weight)


def _in_one_call(name: str, *inputs: Maybe) -> MixtureKL | None:
    """What the compiled node says of an ordinary call: plain tensors that fit, on the CPU, nothing tracing or transforming."""
    if torch.compiler.is_compiling() or (compiled := node()) is None:
        return None
    found = getattr(compiled, name)(*inputs)
    return None if found is None else MixtureKL(*found)


def _one_dtype(first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Halves stay halves only where all three are the same: the kernel widens on load, at half the memory traffic."""
    if first.dtype == second.dtype == third.dtype:
        return first, second, third
    return _widened(first), _widened(second), _widened(third)


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALF else x


def _compiled(x: Tensor) -> bool:
    device = x.device.type
    if kernel_runs(device, x.device.index):
        return True
    if device in ("cpu", "cuda") and not torch.compiler.is_compiling():
        _warn_once(device)
    return False


def _full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    """Autocast off, on devices that have it."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else contextlib.nullcontext()


_warned: set[str] = set()


def _warn_once(device: str) -> None:
    if device not in _warned:
        _warned.add(device)
        warnings.warn(f"catvae loss on {device} runs in {_loader.kernel_status(device)}", stacklevel=4)


def _joined(out: tuple[Tensor, ...], backward: Callable, inputs: tuple[Maybe, ...], differentiable: tuple[Tensor, ...]) -> MixtureKL:
    """The outputs of a forward call, the two sums tied to the inputs that want a gradient."""
    kl, neg_entropy, assignment, cluster_kl, statistics = out
    if torch.is_grad_enabled() and True in [x.requires_grad for x in differentiable]:
        saved = *inputs, assignment, cluster_kl, statistics
        kl, neg_entropy = _join((kl, neg_entropy), backward, saved, *differentiable)
    return MixtureKL(kl, neg_entropy, assignment, cluster_kl)


class _Join(torch.autograd.Function):
    """Gives the sums of a finished forward call their gradients: ``backward(*saved, g_kl, g_neg_entropy)``, one for each input."""

    @staticmethod
    def forward(ctx, sums, backward, saved, *differentiable):
        ctx.save_for_backward(*saved)
        ctx.call = backward
        ctx.set_materialize_grads(False)
        return sums

    @staticmethod
    def backward(ctx, g_kl, g_neg_entropy):  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None, None, *first_derivative(ctx.call, *ctx.saved_tensors, g_kl, g_neg_entropy)


_join = direct_apply(_Join)
