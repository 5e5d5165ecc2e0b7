"""`mixture_kl` for torch: checks, the compiled op with its gradients, and the plain-torch form where nothing was compiled.

The op ``catvae::mixture_kl`` computes values and gradients in one call; an `autograd.Function` outside it scales the saved gradients
by the two upstream scalars (registering autograd on the op itself costs 10 us more per step, a sixth of the kernel's own time at the
published size). Left out: double backward, and gradients with respect to ``prior`` and ``weight``, which are constants here.
"""

import functools
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _loader

_COMPILED = _loader.available()  # a plain constant, so that torch.compile need not trace the loader
_PLAIN = (Tensor, torch.nn.Parameter)
_REAL = (torch.float32, torch.float64)
_HALF = (torch.float16, torch.bfloat16)


class MixtureKL(NamedTuple):
    """What `mixture_kl` returns."""

    kl: Tensor
    """() sum over samples of w sum_k a KL_k, in nats; differentiable."""
    neg_entropy: Tensor
    """() sum over samples of w sum_k a log a, in nats; differentiable."""
    assignment: Tensor
    """(N, K) a = q(c|x); rows sum to 1; not differentiable."""
    cluster_kl: Tensor
    """(N, K) KL of each cluster's posterior to its prior mode, in nats; not differentiable."""


def mixture_kl(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None = None) -> MixtureKL:
    """All-cluster KL and assignment entropy of a posterior with K Gaussian components (DESIGN: sum_c q(c|x) KL_c and -H(q(c|x))).

    Parameters
    ----------
    m, v : Tensor, (N, D)
        Mean and log-variance shared by the clusters.
    E, F : Tensor, (K, D)
        Offsets of each cluster: q(z|x, c) = N(m + E_c, diag exp(v + F_c)).
    prior : Tensor, (K, D)
        Means of the prior modes, a constant.
    logits : Tensor, (N, K)
        q(c|x) = softmax(logits).
    weight : Tensor, (N,), optional
        Known sample weights, a constant; ones when left out.

    Returns
    -------
    MixtureKL
        Sums over the samples; divide by N for a mean.

    Raises
    ------
    ValueError
        On shapes, dtypes or devices that do not fit together, with what was found and what was expected.
    """
    _check(m, v, E, F, prior, logits, weight)
    if m.dtype in _HALF or logits.dtype in _HALF or torch.is_autocast_enabled(m.device.type):
        # The loss is a small difference of large sums: half precision inputs are widened, gradients come back in their own dtype.
        with torch.autocast(m.device.type, enabled=False):
            widened = [x.float() if x.dtype in _HALF else x for x in (m, v, E, F, prior, logits)]
            return _dispatch(*widened, weight)  # pyright: ignore[reportCallIssue]
    return _dispatch(m, v, E, F, prior, logits, weight)


def _dispatch(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None) -> MixtureKL:
    if weight is not None:
        weight = weight.to(m.dtype)
    if m.device.type == "cpu" and _COMPILED:
        return MixtureKL(*_MixtureKL.apply(m, v, E, F, prior, logits, weight))
    if m.device.type == "cpu":
        _warn_once(_loader.kernel_status())
    return plain_mixture_kl(m, v, E, F, prior, logits, weight)


def plain_mixture_kl(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None = None) -> MixtureKL:
    """The same loss in ordinary torch operations, in the factorised matrix-product form; any device, autograd's own gradients.

    The expanded square sum_d m^2 + 2 m C + C^2 cancels where ``|m|`` is large beside the distance to the mode: absolute error grows
    with ``|m|^2 * 1e-7``. The compiled kernel squares the difference itself.
    """
    C, G = E - prior, F.exp()  # (K, D)
    square = (m * m).sum(-1, keepdim=True) + 2 * m @ C.T + (C * C).sum(-1)  # (N, K)
    spread = v.exp() @ G.T - v.sum(-1, keepdim=True) - F.sum(-1) - m.shape[1]  # (N, K)
    cluster_kl = 0.5 * (square + spread)
    log_a = torch.log_softmax(logits, -1)
    a = log_a.exp()
    empty = a == 0
    kl = torch.where(empty, 0.0, a * cluster_kl).sum(-1)
    neg_entropy = (a * log_a.masked_fill(empty, 0.0)).sum(-1)
    if weight is not None:
        kl, neg_entropy = weight * kl, weight * neg_entropy
    return MixtureKL(kl.sum(), neg_entropy.sum(), a.detach(), cluster_kl.detach())


class _MixtureKL(torch.autograd.Function):
    """Gradients are made in forward, where the data is in cache, and only scaled in backward."""

    @staticmethod
    def forward(ctx, m, v, E, F, prior, logits, weight):
        wanted = any(x.requires_grad for x in (m, v, E, F, logits))
        # Outside a graph being traced, the registered op would only add its dispatch: 10 us, half of the kernel at the published size.
        call = torch.ops.catvae.mixture_kl if _traced(m, v, E, F, prior, logits) else _cpu
        sums, assignment, cluster_kl, *gradients = call(m, v, E, F, prior, logits, weight, wanted)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(assignment, cluster_kl)
        kl, neg_entropy = sums.to(m.dtype).unbind()
        return kl, neg_entropy, assignment, cluster_kl

    @staticmethod
    @once_differentiable
    def backward(ctx, g_kl, g_entropy, _assignment, _cluster_kl):  # pyright: ignore[reportIncompatibleMethodOverride]
        dm, dv, dE, dF, dlogits_kl, dlogits_entropy = ctx.saved_tensors
        dm, dv, dE, dF, dlogits = torch._foreach_mul([dm, dv, dE, dF, dlogits_kl], g_kl)  # pyright: ignore[reportPrivateImportUsage]
        return dm, dv, dE, dF, None, torch.addcmul(dlogits, dlogits_entropy, g_entropy), None


def _traced(*inputs: Tensor) -> bool:
    """Whether these tensors stand for others: while torch.compile looks on, or as fake tensors and other subclasses."""
    return torch.compiler.is_compiling() or any(type(x) not in _PLAIN for x in inputs)


def _fits(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None) -> bool:
    """The common case in one expression: same dtype and device, shapes that fit, no weight. `_check` finds the words for the others."""
    return (
        weight is None
        and m.dtype in _REAL
        and m.dtype == v.dtype == E.dtype == F.dtype == prior.dtype == logits.dtype
        and m.device == v.device == E.device == F.device == prior.device == logits.device
        and m.ndim == E.ndim == 2
        and v.shape == m.shape
        and F.shape == prior.shape == E.shape
        and logits.shape == (m.shape[0], E.shape[0])
        and E.shape[1] == m.shape[1]
        and min(E.shape) > 0
        and not prior.requires_grad
    )


def _check(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None) -> None:
    if _fits(m, v, E, F, prior, logits, weight):
        return
    if m.ndim != 2 or E.ndim != 2:
        raise ValueError(f"m must be (N, D) and E (K, D): got m {tuple(m.shape)}, E {tuple(E.shape)}")
    N, D = m.shape
    K = E.shape[0]
    if K < 1 or D < 1:
        raise ValueError(f"at least one cluster and one latent dimension are needed: got K={K}, D={D}")
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "v": (v, (N, D)),
        "E": (E, (K, D)),
        "F": (F, (K, D)),
        "prior": (prior, (K, D)),
        "logits": (logits, (N, K)),
    }
    if weight is not None:
        expected["weight"] = (weight, (N,))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape} beside m {(N, D)}: got {tuple(tensor.shape)}")
        if tensor.device != m.device:
            raise ValueError(f"{name} must be on {m.device} like m: got {tensor.device}")
    dtypes = {x.dtype for x in (m, v, E, F, prior, logits)}
    if not dtypes <= {*_REAL, *_HALF} or len(dtypes - set(_HALF)) > 1:
        raise ValueError(
            f"all tensors must share one of float32, float64 (float16 and bfloat16 are widened): got {sorted(map(str, dtypes))}"
        )
    if prior.requires_grad or (weight is not None and weight.requires_grad):
        raise ValueError("prior and weight are constants of mixture_kl: detach them, their gradient would be dropped")


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(f"catvae loss runs in {message}", stacklevel=4)


# --- the op -------------------------------------------------------------------------------------------------------------------------

_library = torch.library.Library("catvae", "DEF")
_library.define(
    "mixture_kl(Tensor m, Tensor v, Tensor E, Tensor F, Tensor prior, Tensor logits, Tensor? weight, bool gradients)"
    " -> (Tensor sums, Tensor assignment, Tensor cluster_kl, Tensor dm, Tensor dv, Tensor dE, Tensor dF,"
    " Tensor dlogits_kl, Tensor dlogits_entropy)"
)


def _outputs(m: Tensor, E: Tensor, gradients: bool) -> list[Tensor]:
    """Fresh, contiguous outputs; the gradients are empty when nobody wants them."""
    N, D = m.shape
    K = E.shape[0]
    shapes = [(N, D), (N, D), (K, D), (K, D), (N, K), (N, K)] if gradients else [(0,)] * 6
    return [m.new_empty(2, dtype=torch.float64), m.new_empty(N, K), m.new_empty(N, K), *(m.new_empty(shape) for shape in shapes)]


@functools.cache
def _types() -> dict[str, Any]:
    """cffi's pointer types, looked up once: parsing "float *" for every pointer costs more than the call."""
    ffi, _ = _loader.load()
    return {name: ffi.typeof(f"{name} *") for name in ("float", "double", "void")}


@functools.cache
def _entry(dtype: torch.dtype) -> tuple[Any, Any]:
    """Pointer type and entry point of a precision."""
    _, lib = _loader.load()
    if dtype == torch.float32:
        return _types()["float"], lib.catvae_mixture_kl_f32
    return _types()["double"], lib.catvae_mixture_kl_f64


def _cpu(m, v, E, F, prior, logits, weight, gradients):
    ffi, lib = _loader.load()
    N, D = m.shape
    K = E.shape[0]
    # Bound to names before their pointers are taken: a temporary would be freed before the call.
    inputs = [x.contiguous() for x in (m, v, E, F, prior, logits)]
    weight = None if weight is None else weight.contiguous()
    out = _outputs(m, E, gradients)
    if N == 0:  # torch gives empty tensors a null pointer, which the C side reads as "not wanted"
        return tuple(x.zero_() for x in out)
    threads = _loader.usable_threads(torch.get_num_threads())
    real, function = _entry(m.dtype)
    bytes_needed = lib.catvae_mixture_kl_workspace(N, K, D, m.element_size(), gradients, threads)
    if bytes_needed < 0:
        raise ValueError(f"mixture_kl: {ffi.string(lib.catvae_status_string(bytes_needed)).decode()}: got N={N}, K={K}, D={D}")
    workspace = torch.empty(bytes_needed, dtype=torch.uint8)

    def pointer(x: Tensor | None):
        return ffi.NULL if x is None else ffi.cast(real, x.data_ptr())

    status = function(
        N,
        K,
        D,
        *map(pointer, inputs),
        pointer(weight),
        ffi.cast(_types()["double"], out[0].data_ptr()),
        *(pointer(x) for x in out[1:3]),
        *(pointer(x if gradients else None) for x in out[3:]),
        ffi.cast(_types()["void"], workspace.data_ptr()),
        threads,
        -1,
    )
    if status != 0:
        raise RuntimeError(f"mixture_kl: {ffi.string(lib.catvae_status_string(status)).decode()}: got N={N}, K={K}, D={D}")
    return tuple(out)


def _fake(m, v, E, F, prior, logits, weight, gradients):
    return tuple(_outputs(m, E, gradients))


_library.impl("mixture_kl", _cpu, "CPU")
torch.library.register_fake("catvae::mixture_kl", _fake, lib=_library)
