"""Convolutions whose weights learn by patches and a matrix product; `convolved` says where that does not apply.

The library's own gradient of weights lets its threads wait for one another in loops that never give the processor away. Beside any other
program that is busy, each such wait lasts until the system takes the processor from the one that waits (`benchmarks/together.py`). Left
out: second derivatives, and GPUs.
"""

import torch
from torch import Tensor

from . import calls
from .eager import direct_apply, layer_in_c
from .once import first_derivative

PATCHES = 1 << 21
"""Numbers of patches that are taken or made at once, of one image at least: they stay in the cache until they are used up."""


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, transposed: bool = False) -> Tensor | None:
    """`conv2d` or `conv_transpose2d` with a padding of 1.

    Parameters
    ----------
    x : Tensor, (N, I, H, W)
        bfloat16; copied where it is not channels last.
    weight : Tensor, (O, I, k, k), or (I, O, k, k) where `transposed`
        bfloat16; k is 2 to 16.
    bias : Tensor, (O,), optional
        float32.
    stride : int
        Pixels from one patch to the next.
    transposed : bool
        Whether it is `conv_transpose2d`.

    Returns
    -------
    Tensor, (N, O, h, w), as torch's, or None where its own operation is needed throughout: on another device or dtype, for no images,
    kernels that are not square, without a compiled kernel, where gradients are off, under torch.compile, torch.func and dispatch
    modes, and for patches of one channel, where the library's gradient was faster and not seen to wait.
    """
    given = (x, weight) if bias is None else (x, weight, bias)
    if not (torch.is_grad_enabled() and layer_in_c(*given) and _fits(x, weight, transposed)):
        return None
    return _convolved(x, weight, bias, stride, transposed)


def _fits(x: Tensor, weight: Tensor, transposed: bool) -> bool:
    return (
        x.dtype == weight.dtype == torch.bfloat16
        and x.ndim == weight.ndim == 4
        and x.numel() > 0
        and weight.shape[0 if transposed else 1] == x.shape[1]
        and 2 <= weight.shape[2] == weight.shape[3] <= 16
        and weight.shape[1] > 1  # of the images that patches are taken from, either way round
    )


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, stride, transposed):
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.transposed = stride, transposed
        layer = torch.conv_transpose2d if transposed else torch.conv2d
        return layer(x, weight, None if bias is None else bias.to(x.dtype), stride, 1)

    @staticmethod
    def backward(ctx, dy):  # pyright: ignore[reportIncompatibleMethodOverride]
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        dy = dy.contiguous(memory_format=torch.channels_last)
        options = ctx.stride, ctx.transposed, need_x, need_weight
        dx, dweight = first_derivative(lambda dy, x, weight: convolution_gradients(dy, x, weight, *options), dy, *ctx.saved_tensors)
        return dx, dweight, bias_gradient(dy) if need_bias else None, None, None


_convolved = direct_apply(_Convolved)


def bias_gradient(dy: Tensor) -> Tensor:
    """(C,) sums of (N, C, H, W) over images and positions, added in float32, rounded to the dtype of dy, and float32.

    Asked for float32, torch would first copy all of dy.
    """
    return dy.sum((0, 2, 3)).float()


def convolution_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, stride: int, transposed: bool, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx and dweight, None where it is not needed, of a convolution with a padding of 1; dy is channels last."""
    x = x.contiguous(memory_format=torch.channels_last)  # hooks on what is saved may lay it out anew
    by_patches = need_weight and _fits(x, weight, transposed)
    shape = [stride, stride], [1, 1], [1, 1], transposed, [0, 0], 1  # stride, padding, dilation, transposed, output padding, groups
    wanted = [need_x, need_weight and not by_patches, False]
    dx = dweight = None
    if any(wanted):
        dx, dweight, _ = torch.ops.aten.convolution_backward(dy, x, weight, None, *shape, wanted)
    if by_patches:
        dweight = of_patches(*((dy, x) if transposed else (x, dy)), weight.shape[2], stride)
    return dx, dweight


def of_patches(wide: Tensor, narrow: Tensor, k: int, stride: int) -> Tensor:
    """Sum over images and positions of ``narrow`` (N, A, h, w) times the patch (B, k, k) of ``wide`` (N, B, H, W) there: (A, B, k, k).

    Both are channels last; the products of a few images each are rounded to their dtype, and added in float32.
    """
    (N, A, h, w), B = narrow.shape, wide.shape[1]
    images = max(1, min(N, PATCHES // (h * w * k * k * B)))
    patches = wide.new_empty((images * h * w, k * k * B))
    positions = narrow.permute(0, 2, 3, 1).reshape(N * h * w, A)
    total: Tensor | None = None
    for first in range(0, N, images):
        part = wide[first : first + images]
        taken = patches[: len(part) * h * w]
        calls.take_patches(part, k, stride, taken)
        product = taken.T @ positions[first * h * w : first * h * w + len(taken)]  # the other way round is slower
        total = product if total is None else total.float().add_(product)
    assert total is not None  # images were counted before
    return total.to(wide.dtype).view(k, k, B, A).permute(3, 2, 0, 1)
