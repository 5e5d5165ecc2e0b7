"""The loss as registered torch ops: ``catvae::mixture_kl`` and ``catvae::dense_kl``, each with its ``_backward``.

Each has its fake, autocast and autograd rules, so that torch.compile traces it into one graph and anyone may call it. Eager training does
not come by here: see `mixture`.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import calls
from .checks import HALF

Maybe = Tensor | None

_library = torch.library.Library("catvae", "DEF")
_OUT = "(Tensor kl, Tensor neg_entropy, Tensor assignment, Tensor cluster_kl, Tensor statistics)"
_SAVED = "Tensor assignment, Tensor cluster_kl, Tensor statistics, Tensor? g_kl, Tensor? g_neg_entropy"
_MIXTURE = "Tensor m, Tensor v, Tensor E, Tensor F, Tensor prior, Tensor logits, Tensor? weight"
_DENSE = "Tensor mu, Tensor lv, Tensor prior, Tensor logits, Tensor? weight"


def _fake_mixture(m, v, E, F, prior, logits, weight):
    return _fake_forward(E, logits)


def _fake_dense(mu, lv, prior, logits, weight):
    return _fake_forward(prior, logits)


def _fake_forward(like, logits):
    N, K = logits.shape
    return like.new_empty(()), like.new_empty(()), like.new_empty(N, K), like.new_empty(N, K), like.new_empty(3, N)


def _fake_mixture_backward(m, v, E, F, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy):
    return tuple(x.new_empty(x.shape) for x in (m, v, E, F, logits))


def _fake_dense_backward(mu, lv, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy):
    return tuple(x.new_empty(x.shape) for x in (mu, lv, logits))


def _define(name: str, arguments: str, returns: str, native, fake) -> None:
    _library.define(f"{name}({arguments}) -> {returns}")
    for device in ("CPU", "CUDA"):
        _library.impl(name, native, device)
    torch.library.register_fake(f"catvae::{name}", fake, lib=_library)


def _differentiable(name: str, inputs: int, gradients: tuple[int, ...]) -> None:
    """Autograd and autocast of the op `name` with `inputs` arguments, of which those at `gradients` get one."""

    def remember(ctx, inputs, output):
        ctx.save_for_backward(*inputs, *output[2:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    @once_differentiable
    def backward(ctx, g_kl, g_neg_entropy, *_):
        saved = [x.float() if x is not None and x.dtype in HALF else x for x in ctx.saved_tensors]  # as autocast handed them to forward
        found = getattr(torch.ops.catvae, f"{name}_backward")(*saved, g_kl, g_neg_entropy)
        result: list[Maybe] = [None] * inputs
        for at, gradient in zip(gradients, found, strict=True):
            result[at] = gradient.to(ctx.saved_tensors[at].dtype)
        return tuple(result)

    torch.library.register_autograd(f"catvae::{name}", backward, setup_context=remember, lib=_library)
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(f"catvae::{name}", device, torch.float32, lib=_library)


_define("mixture_kl", _MIXTURE, _OUT, calls.mixture_forward, _fake_mixture)
_define(
    "mixture_kl_backward", f"{_MIXTURE}, {_SAVED}", "(Tensor dm, Tensor dv, Tensor dE, Tensor dF, Tensor dlogits)",
    calls.mixture_backward, _fake_mixture_backward,
)  # fmt: skip
_differentiable("mixture_kl", 7, (0, 1, 2, 3, 5))
_define("dense_kl", _DENSE, _OUT, calls.dense_forward, _fake_dense)
_define(
    "dense_kl_backward", f"{_DENSE}, {_SAVED}", "(Tensor dmu, Tensor dlv, Tensor dlogits)", calls.dense_backward, _fake_dense_backward
)  # fmt: skip
_differentiable("dense_kl", 5, (0, 1, 3))
