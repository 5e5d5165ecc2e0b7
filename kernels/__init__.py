"""The fused mixture loss: all-cluster Gaussian KL and soft assignment entropy, forward and gradients in one pass.

`mixture_kl` is the one call the rest of the project uses; it needs torch, so it is imported on first use and this package can be
inspected without it. The compiled CPU kernel is optional: see `kernel_status`.
"""

from typing import TYPE_CHECKING

from ._loader import KernelUnavailable, kernel_status

if TYPE_CHECKING:
    from .ops import MixtureKL, mixture_kl

__all__ = ["KernelUnavailable", "MixtureKL", "kernel_status", "mixture_kl"]


def __getattr__(name: str):
    if name in ("MixtureKL", "mixture_kl"):
        from . import ops

        return getattr(ops, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
