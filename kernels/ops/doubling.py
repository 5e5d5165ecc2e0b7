"""A transposed convolution to few channels as a matrix product and one call to C; `doubled` says where it does not apply.

Left out: layers with more channels, which are `convolving`'s, second derivatives, and GPUs.
"""

import torch
from torch import Tensor

from . import calls
from .convolving import PATCHES, bias_gradient, convolution_gradients
from .eager import direct_apply, layer_in_c
from .once import first_derivative

MOST_CHANNELS = 4
MOST_NUMBERS = 8192
"""Of a row of the result and one more position to either side; PATCHES_ROW in cpu/plan.h."""


def doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor | None:
    """The transposed convolution of stride 2 and padding 1, which makes images twice as high and wide.

    Parameters
    ----------
    x : Tensor, (N, I, h, w)
        float32 or bfloat16, channels last.
    weight : Tensor, (I, C, 4, 4)
        Of the same dtype.
    bias : Tensor, (C,)
        float32.

    Returns
    -------
    Tensor, (N, C, 2h, 2w), channels last, or None where torch's own operations are needed: on another device, dtype or memory layout, with
    more than 4 channels, rows of more than 8,192 numbers, no images, or no compiled kernel, and under torch.compile, torch.func and
    dispatch modes. In bfloat16 the four products that a pixel is the sum of are rounded before they are added, in float32.
    """
    if not (layer_in_c(x, weight, bias) and _fits(x, weight, bias)):
        return None
    return _doubled(x, weight, bias)


def _fits(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    return (
        x.dtype == weight.dtype
        and bias.dtype == torch.float32
        and x.ndim == weight.ndim == 4
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and weight.shape[0] == x.shape[1]
        and weight.shape[2:] == (4, 4)
        and bias.shape == weight.shape[1:2]
        and weight.shape[1] <= MOST_CHANNELS
        and 2 * (x.shape[3] + 1) * weight.shape[1] <= MOST_NUMBERS
    )


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        (N, before, h, w), C = x.shape, len(bias)
        columns, bias = weight.permute(0, 2, 3, 1).reshape(before, -1), bias.contiguous()
        y = x.new_empty((N, 2 * h, 2 * w, C))
        images = max(1, PATCHES // (h * w * 16 * C))
        with torch.autocast("cpu", enabled=False):  # which would make a product of float32 one of bfloat16
            for part, out in zip(x.permute(0, 2, 3, 1).split(images), y.split(images), strict=True):
                calls.overlap(part.reshape(-1, before) @ columns, bias, out)
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, dy):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dweight = first_derivative(
            lambda dy, x, weight: convolution_gradients(dy, x, weight, 2, True, need_x, need_weight), dy, x, weight
        )
        return dx, dweight, bias_gradient(dy) if need_bias else None


_doubled = direct_apply(_Doubled)
