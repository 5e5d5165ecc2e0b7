"""What `mixture_kl` and `dense_mixture_kl` accept: shapes, dtypes and devices, and the words for what does not fit.

Half precision may be mixed with float32 (a network under autocast beside float32 parameters); float64 stands alone.
"""

import torch
from torch import Tensor

Maybe = Tensor | None

HALF = (torch.float16, torch.bfloat16)
REAL = (torch.float32, torch.float64)
LARGEST = 1 << 28
"""Largest size of one axis; with N*K*D at most 2^56, every count of bytes fits the kernel's 64 bits."""


def fits(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None) -> bool:
    """The common case in one expression: float32 or float64 throughout, no weight. `check_mixture` finds the words for all others."""
    dtype, device, samples, clusters = m.dtype, m.device, m.shape, E.shape
    return (
        weight is None
        and dtype in REAL
        and dtype == v.dtype == E.dtype == F.dtype == prior.dtype == logits.dtype
        and device == v.device == E.device == F.device == prior.device == logits.device
        and torch.strided == m.layout == v.layout == E.layout == F.layout == prior.layout == logits.layout
        and len(samples) == len(clusters) == 2
        and samples == v.shape
        and clusters == F.shape == prior.shape
        and logits.shape == (samples[0], clusters[0])
        and samples[1] == clusters[1] > 0
        and 0 < clusters[0] <= LARGEST
        and samples[0] <= LARGEST
        and samples[0] * samples[1] * clusters[0] <= 1 << 56
        and not prior.requires_grad
    )


def check_mixture(m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None) -> None:
    """Raise ValueError unless the factorised inputs fit together."""
    if m.ndim != 2 or E.ndim != 2:
        raise ValueError(f"m must be (N, D) and E (K, D): got m {tuple(m.shape)}, E {tuple(E.shape)}")
    (N, D), K = m.shape, E.shape[0]
    tensors = {"m": m, "v": v, "E": E, "F": F, "prior": prior, "logits": logits}
    _check(tensors, {"v": (N, D), "E": (K, D), "F": (K, D), "prior": (K, D), "logits": (N, K)}, (N, K, D), weight)


def check_dense(mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor, weight: Tensor | None) -> None:
    """Raise ValueError unless the dense inputs fit together."""
    if mu.ndim != 3:
        raise ValueError(f"mu must be (N, K, D): got {tuple(mu.shape)}")
    N, K, D = mu.shape
    tensors = {"mu": mu, "lv": lv, "prior": prior, "logits": logits}
    _check(tensors, {"lv": (N, K, D), "prior": (K, D), "logits": (N, K)}, (N, K, D), weight)


def _check(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], size: tuple[int, int, int], weight: Tensor | None) -> None:
    N, K, D = size
    if K < 1 or D < 1:
        raise ValueError(f"at least one cluster and one latent dimension are needed: got K={K}, D={D}")
    if max(size) > LARGEST or N * K * D > 1 << 56:
        raise ValueError(f"sizes must be at most 2^28 and N*K*D at most 2^56: got N={N}, K={K}, D={D}")
    if weight is not None:
        tensors, shapes = {**tensors, "weight": weight}, {**shapes, "weight": (N,)}
    first, anchor = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if name in shapes and tuple(tensor.shape) != shapes[name]:
            raise ValueError(f"{name} must have shape {shapes[name]} beside {first} {tuple(anchor.shape)}: got {tuple(tensor.shape)}")
        if tensor.device != anchor.device:
            raise ValueError(f"{name} must be on {anchor.device} like {first}: got {tensor.device}")
        if tensor.layout != torch.strided:
            raise ValueError(f"{name} must be an ordinary (strided) tensor: got layout {tensor.layout}; call .to_dense()")
    dtypes = {x.dtype for name, x in tensors.items() if name != "weight"}
    if not dtypes <= {*REAL, *HALF} or len({*dtypes} - {*HALF}) > 1 or (torch.float64 in dtypes and len(dtypes) > 1):
        found = ", ".join(f"{name} {str(x.dtype).removeprefix('torch.')}" for name, x in tensors.items())
        raise ValueError(f"all tensors must share one of float32, float64 (float16 and bfloat16 may stand beside float32): got {found}")
    for name in ("prior", "weight"):
        if name in tensors and tensors[name].requires_grad:
            raise ValueError(f"{name} is a constant of the loss: detach it, its gradient would be dropped")
