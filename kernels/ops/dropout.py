"""Dropout and the ReLU behind it in one call to C, for training on the CPU; `dropout_relu` says where it does not apply.

Left out: second derivatives, and GPUs, where the layers run as they are.
"""

import torch
from torch import Tensor

from . import calls
from .eager import direct_apply, layer_in_c
from .norm import CHANNELS
from .once import first_derivative


def dropout_relu(x: Tensor, p: float) -> Tensor | None:
    """max(0, x) / (1 - p), or 0 with probability p, element by element.

    Parameters
    ----------
    x : Tensor
        float32 or bfloat16, of any shape.
    p : float
        0 <= p < 1, taken to 32 bits.

    Returns
    -------
    Tensor, or None where torch's own operations are needed: on another device, dtype or memory layout than row by row, where the elements
    are no multiple of 16 or the kernel was not built, and under torch.compile, torch.func and dispatch modes. Noise comes from torch's
    default generator, one number a call, and is the same for every number of threads.

    Raises
    ------
    ValueError
        On another p.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p must be at least 0 and less than 1: got {p}")
    if not layer_in_c(x) or not x.is_contiguous() or x.numel() % CHANNELS:
        return None
    return _dropout_relu(x, p)


class _DropoutReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):
        seed = int(torch.empty((), dtype=torch.int64, device=x.device).random_(-(2**63), None))
        y = calls.dropout_relu_forward(x, min(round(p * 2**32), 2**32 - 1), 1 / (1 - p), seed)
        ctx.save_for_backward(y)
        ctx.scale = 1 / (1 - p)
        return y

    @staticmethod
    def backward(ctx, dy):  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        return *first_derivative(_gradient, dy, y, ctx.scale), None


_dropout_relu = direct_apply(_DropoutReLU)


def _gradient(dy: Tensor, y: Tensor, scale: float) -> tuple[Tensor]:
    return (calls.dropout_relu_backward(dy.contiguous(), y.contiguous(), scale),)  # hooks on what is saved may lay it out anew
