"""The loss as registered torch ops: ``catvae::mixture_kl`` and ``catvae::dense_kl``, each with its ``_backward``.

Each has its fake, autocast and autograd rules, so that torch.compile traces it into one graph and anyone may call it, on any device: where
there is no compiled kernel it computes the same in ordinary torch operations. Eager training does not come by here: see `mixture`.
"""

import torch
from torch import Tensor

from . import calls, unbuilt
from .checks import HALF, REAL, Maybe, check_dense, check_mixture
from .eager import kernel_runs
from .once import first_derivative

_library = torch.library.Library("catvae", "DEF")
_OUT = "(Tensor kl, Tensor neg_entropy, Tensor assignment, Tensor cluster_kl, Tensor statistics)"
_SAVED = "Tensor assignment, Tensor cluster_kl, Tensor statistics, Tensor? g_kl, Tensor? g_neg_entropy"
_MIXTURE = "Tensor m, Tensor v, Tensor E, Tensor F, Tensor prior, Tensor logits, Tensor? weight"
_DENSE = "Tensor mu, Tensor lv, Tensor prior, Tensor logits, Tensor? weight"


def _fake_mixture(m, v, E, F, prior, logits, weight):
    _check_mixture(m, v, E, F, prior, logits, weight)
    return _fake_forward(E, logits)


def _fake_dense(mu, lv, prior, logits, weight):
    _check_dense(mu, lv, prior, logits, weight)
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
    _library.impl(name, native, "CompositeExplicitAutograd")
    torch.library.register_fake(f"catvae::{name}", fake, lib=_library)


def _differentiable(name: str, inputs: int, gradients: tuple[int, ...]) -> None:
    """Autograd and autocast of the op `name` with `inputs` arguments, of which those at `gradients` get one."""

    def remember(ctx, inputs, output):
        ctx.save_for_backward(*inputs, *output[2:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    def backward(ctx, g_kl, g_neg_entropy, *_):
        found = first_derivative(getattr(torch.ops.catvae, f"{name}_backward"), *ctx.saved_tensors, g_kl, g_neg_entropy)
        result: list[Maybe] = [None] * inputs
        for at, gradient in zip(gradients, found, strict=True):
            result[at] = gradient
        return tuple(result)

    torch.library.register_autograd(f"catvae::{name}", backward, setup_context=remember, lib=_library)
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(f"catvae::{name}", device, torch.float32, lib=_library)


def _mixture_forward(m, v, E, F, prior, logits, weight):
    _check_mixture(m, v, E, F, prior, logits, weight)
    return _form(m).mixture_forward(m, v, E, F, prior, logits, weight)


def _dense_forward(mu, lv, prior, logits, weight):
    _check_dense(mu, lv, prior, logits, weight)
    return _form(mu).dense_forward(mu, lv, prior, logits, weight)


def _mixture_backward(m, v, E, F, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy):
    _check_mixture(m, v, E, F, prior.detach(), logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy)
    _check_saved(logits, assignment, cluster_kl, statistics, g_kl, g_neg_entropy)
    return _form(m).mixture_backward(m, v, E, F, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy)


def _dense_backward(mu, lv, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy):
    _check_dense(mu, lv, prior.detach(), logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy)
    _check_saved(logits, assignment, cluster_kl, statistics, g_kl, g_neg_entropy)
    return _form(mu).dense_backward(mu, lv, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy)


def _form(x: Tensor):
    """The module that computes on the device of `x`."""
    return calls if kernel_runs(x.device.type, x.device.index) else unbuilt


def _check_mixture(m, v, E, F, prior, logits, weight, *saved: Maybe) -> None:
    check_mixture(m, v, E, F, prior, logits, weight)
    _check_types((m, v, logits), (E, F, prior, weight, *saved))


def _check_dense(mu, lv, prior, logits, weight, *saved: Maybe) -> None:
    check_dense(mu, lv, prior, logits, weight)
    _check_types((mu, lv, logits), (prior, weight, *saved))


def _check_types(samples: tuple[Tensor, ...], others: tuple[Maybe, ...]) -> None:
    """The op converts nothing: one type for what belongs to samples, possibly a half, and one of float32 and float64 for the rest."""
    narrow, wide = {x.dtype for x in samples}, {x.dtype for x in others if x is not None}
    if len(narrow) > 1 or len(wide) > 1 or not wide <= {*REAL} or not (narrow == wide or (narrow <= {*HALF} and wide == {torch.float32})):
        found = f"{sorted(map(str, narrow))} beside {sorted(map(str, wide))}"
        raise ValueError(f"m, v and logits must share one type, all others float32, or float64 with them: got {found}; use mixture_kl")


def _check_saved(logits: Tensor, assignment: Tensor, cluster_kl: Tensor, statistics: Tensor, *upstream: Maybe) -> None:
    shape = logits.shape
    if not (assignment.shape == cluster_kl.shape == shape and tuple(statistics.shape) == (3, shape[0])):
        raise ValueError(f"assignment and cluster_kl must be {tuple(shape)} and statistics (3, {shape[0]}), as forward returned them")
    given = [gradient for gradient in upstream if gradient is not None]
    if any(gradient.numel() != 1 for gradient in given):
        raise ValueError(f"g_kl and g_neg_entropy must be one number each: got {[tuple(gradient.shape) for gradient in given]}")
    devices = {x.device for x in (logits, assignment, cluster_kl, statistics, *given)}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device: got {', '.join(sorted(map(str, devices)))}")


_define("mixture_kl", _MIXTURE, _OUT, _mixture_forward, _fake_mixture)
_define(
    "mixture_kl_backward", f"{_MIXTURE}, {_SAVED}", "(Tensor dm, Tensor dv, Tensor dE, Tensor dF, Tensor dlogits)",
    _mixture_backward, _fake_mixture_backward,
)  # fmt: skip
_differentiable("mixture_kl", 7, (0, 1, 2, 3, 5))
_define("dense_kl", _DENSE, _OUT, _dense_forward, _fake_dense)
_define(
    "dense_kl_backward", f"{_DENSE}, {_SAVED}", "(Tensor dmu, Tensor dlv, Tensor dlogits)", _dense_backward, _fake_dense_backward
)  # fmt: skip
_differentiable("dense_kl", 5, (0, 1, 3))
