"""The likelihood of pixels, and images beside it, in one call to C, for training on the CPU; `bernoulli` says where it stands back.

Left out: the gradient of what is to be explained, second derivatives, and GPUs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import calls
from .eager import direct_apply, layer_in_c
from .once import first_derivative


class Bernoulli(NamedTuple):
    """What `bernoulli` returns."""

    nll: Tensor
    """() float32, minus the sum of log p(x) over images and pixels, in nats; differentiable."""
    images: Tensor
    """(G, C, H, W) float32, the mean of every pixel of the images that are not explained; differentiable."""


def bernoulli(logits: Tensor, x: Tensor) -> Bernoulli | None:
    """sum log(1 + exp(logits)) - x logits over the first N images, 1 / (1 + exp(-logits)) of the others.

    Parameters
    ----------
    logits : Tensor, (N + G, C, H, W)
        float32 or bfloat16; first those of x. A decoder makes them together.
    x : Tensor, (N, C, H, W)
        float32, from 0 to 1, a constant.

    Returns
    -------
    Bernoulli, or None where torch's own operations are needed: on another device or dtype, where x wants a gradient or the kernel was not
    built, and under torch.compile, torch.func and dispatch modes. A pixel's loss is exact to about 1e-7 of itself and of 1.
    """
    if not (layer_in_c(logits, x) and _fits(logits, x)):
        return None
    way = _layout(logits)
    return Bernoulli(*_bernoulli(logits.contiguous(memory_format=way), x.contiguous(memory_format=way)))


def _fits(logits: Tensor, x: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and not x.requires_grad
        and logits.ndim == x.ndim == 4
        and logits.shape[1:] == x.shape[1:]
        and len(logits) >= len(x)
    )


def _layout(x: Tensor) -> torch.memory_format:
    """The one x has, or is nearer to: a decoder cuts images of an odd size out of larger ones."""
    if x.is_contiguous() or x.stride(1) != 1:
        return torch.contiguous_format
    return torch.channels_last


class _Bernoulli(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, x):
        ctx.save_for_backward(logits, x)
        ctx.set_materialize_grads(False)
        return calls.bernoulli_forward(logits, x)

    @staticmethod
    def backward(ctx, g_nll, g_images):  # pyright: ignore[reportIncompatibleMethodOverride]
        return *first_derivative(_gradient, *ctx.saved_tensors, g_nll, g_images), None


_bernoulli = direct_apply(_Bernoulli)


def _gradient(logits: Tensor, x: Tensor, g_nll: Tensor | None, g_images: Tensor | None) -> tuple[Tensor]:
    way = _layout(logits)  # hooks on what is saved, and whoever makes g_images, may lay it out anew
    logits, x = logits.contiguous(memory_format=way), x.contiguous(memory_format=way)
    return (calls.bernoulli_backward(logits, x, g_nll, None if g_images is None else g_images.contiguous(memory_format=way)),)
