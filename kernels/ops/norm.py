"""Batch norm and the ReLU behind it in one call to C, for training on the CPU; `norm_relu` says where it does not apply.

Left out: running averages, which are the layer's own, second derivatives, and GPUs, where cuDNN does this.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import calls
from .eager import direct_apply, layer_in_c
from .once import first_derivative

CHANNELS = 16
"""C is a multiple of this: no vector holds channels of two positions."""


class NormReLU(NamedTuple):
    """What `norm_relu` returns."""

    y: Tensor
    """Shape, dtype and layout of x; differentiable."""
    mean: Tensor
    """(C,) float32, of x over all but its channels."""
    variance: Tensor
    """(C,) float32, divided by the number of positions."""


def norm_relu(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> NormReLU | None:
    """max(0, (x - mean) / sqrt(variance + eps) * weight + bias), channel by channel, with the moments of this batch.

    Parameters
    ----------
    x : Tensor, (N, C) or (N, C, H, W)
        float32 or bfloat16.
    weight, bias : Tensor, (C,)
        float32.
    eps : float

    Returns
    -------
    NormReLU, or None where torch's own operations are needed: on another device, dtype or memory layout than channels last, where C is no
    multiple of 16 or the kernel was not built, and under torch.compile, torch.func and dispatch modes.
    """
    if not (layer_in_c(x, weight, bias) and _fits(x, weight, bias)):
        return None
    y, statistics = _norm_relu(x, weight, bias, eps)
    return NormReLU(y, *statistics.unbind())


def _fits(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    channels = weight.numel()
    return (
        weight.dtype == bias.dtype == torch.float32
        and channels > 0
        and channels % CHANNELS == 0
        and weight.shape == bias.shape == x.shape[1:2]
        and x.numel() >= 2 * channels
        and _rows_of_channels(x)
    )


def _rows_of_channels(x: Tensor) -> bool:
    """Whether x lies in memory as (positions, C)."""
    if x.ndim == 4:
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.ndim == 2 and x.is_contiguous()


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        y, statistics = calls.norm_relu_forward(x, weight.contiguous(), bias.contiguous(), eps)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.eps = eps
        ctx.mark_non_differentiable(statistics)
        return y, statistics

    @staticmethod
    def backward(ctx, dy, _):  # pyright: ignore[reportIncompatibleMethodOverride]
        return *first_derivative(_gradients, *ctx.saved_tensors, dy, ctx.eps), None


_norm_relu = direct_apply(_NormReLU)


def _gradients(x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, dy: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    way = torch.channels_last if dy.ndim == 4 else torch.contiguous_format
    x, dy = x.contiguous(memory_format=way), dy.contiguous(memory_format=way)  # hooks on what is saved may lay it out anew
    return calls.norm_relu_backward(x, dy, weight.contiguous(), bias.contiguous(), eps, statistics.contiguous())
