"""The fused mixture loss: all-cluster Gaussian KL and soft assignment entropy, and their gradients; and layers on the CPU.

`mixture_kl`, `norm_relu`, `dropout_relu`, `convolved`, `doubled` and `bernoulli` are what the rest of the project uses; they need torch, so
they are imported on first use and this package can be inspected without it. The compiled CPU and CUDA kernels are optional: see
`kernel_status`.
"""

from typing import TYPE_CHECKING

from ._loader import KernelUnavailable, kernel_status

if TYPE_CHECKING:
    from .ops import MixtureKL, bernoulli, convolved, dense_mixture_kl, doubled, dropout_relu, mixture_kl, norm_relu

__all__ = [
    "KernelUnavailable",
    "MixtureKL",
    "bernoulli",
    "convolved",
    "dense_mixture_kl",
    "doubled",
    "dropout_relu",
    "kernel_status",
    "mixture_kl",
    "norm_relu",
]


def __getattr__(name: str):
    if name in __all__:
        from . import ops

        return getattr(ops, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
