"""Layers of the networks that use the compiled kernels where those apply, and torch's own operations everywhere else."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from catvae.kernels import convolved, doubled, dropout_relu, norm_relu
from catvae.kernels.ops.doubling import MOST_CHANNELS
from catvae.kernels.ops.eager import traced, transformed


class DropoutReLU(nn.Module):
    """ReLU with dropout before it: while training, each element is zeroed with probability `p`, the others are scaled by 1 / (1 - p).

    torch's own dropout draws its mask number by number on the CPU (`benchmarks/layers.py`). There this is one operation
    (`catvae.kernels.dropout_relu`); elsewhere one 64-bit draw decides four elements, 16 bits each: `p` is rounded to a multiple of 2^-16.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return torch.relu(x)
        done = dropout_relu(x, self.p)
        if done is not None:
            return done
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None).view(torch.int16)
        kept = bits[: x.numel()].view(x.shape) >= round(self.p * 65536) - 32768
        return torch.relu(x * (kept * (1 / (1 - self.p))).to(x.dtype))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(nn.Flatten):
    """Flattening whose gradient keeps the memory layout of the images: the layers before it take far longer over a mixture of layouts."""

    def forward(self, input: Tensor) -> Tensor:
        if input.requires_grad and not torch.compiler.is_compiling() and input.is_contiguous(memory_format=torch.channels_last):
            input.register_hook(_as_channels_last)
        return super().forward(input)


def _as_channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


class NormReLU2d(nn.BatchNorm2d):
    """Batch norm with the ReLU behind it, in training on the CPU as one operation (`catvae.kernels.norm_relu`)."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return _norm_relu(self, input, super().forward)


class NormReLU1d(nn.BatchNorm1d):
    """Batch norm of vectors (N, C) with the ReLU behind it, as `NormReLU2d`."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return _norm_relu(self, input, super().forward)


def _norm_relu(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
    mean, variance, batches = layer.running_mean, layer.running_var, layer.num_batches_tracked
    averaged = layer.track_running_stats and layer.momentum is not None
    if not (layer.training and averaged and mean is not None and variance is not None and batches is not None):
        return norm(x).relu_()
    done = norm_relu(x, layer.weight, layer.bias, layer.eps)
    if done is None:
        return norm(x).relu_()
    if layer.momentum:  # 0 leaves the averages as they are
        count = x.numel() // x.shape[1]
        mean.lerp_(done.mean, layer.momentum)
        variance.lerp_(done.variance * (count / (count - 1)), layer.momentum)
    batches.add_(1)
    return done.y


class Convolution(nn.Conv2d):
    """A 3x3 convolution. On the CPU in bfloat16 its weights' gradient is computed without threads that wait in loops
    (`catvae.kernels.convolved`)."""

    def __init__(self, before: int, after: int, stride: int = 1, *, bias: bool = True):
        super().__init__(before, after, 3, stride, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        x, weight = _cast(input, self.weight)
        done = convolved(x, weight, self.bias, stride=self.stride[0])
        return self._conv_forward(x, weight, self.bias) if done is None else done


def _cast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Input and weights in the type that autocast, which does not see our own operations, would give to torch's."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or x.dtype == torch.float64:
        return x, weight
    dtype = torch.get_autocast_dtype("cpu")
    return x.to(dtype), weight.to(dtype)


class UpConvolution(nn.ConvTranspose2d):
    """Twice the size, by a transposed 4x4 convolution.

    The gradient of the bias is a sum of its own: with oneDNN's the layer takes 0.9 to 1.8 times as long. To the one or three channels of an
    image the layer is a matrix product and a call to C (`catvae.kernels.doubled`, `benchmarks/layers.py`).
    """

    def __init__(self, before: int, after: int):
        super().__init__(before, after, 4, 2, 1)

    def forward(self, input: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] - of one size alone
        x, weight = _cast(input, self.weight)
        done = None
        if self.bias is not None and self.out_channels <= MOST_CHANNELS:
            done = doubled(x, weight, self.bias)
        if done is None:
            done = convolved(x, weight, self.bias, stride=2, transposed=True)
        if done is not None:
            return done
        if self.bias is None or not torch.is_grad_enabled() or traced(x) or transformed() or x.ndim != 4:
            return nn.functional.conv_transpose2d(x, weight, self.bias, 2, 1)
        return _BiasAdded.apply(nn.functional.conv_transpose2d(x, weight, self.bias.detach(), 2, 1), self.bias)  # pyright: ignore[reportReturnType]


class _BiasAdded(torch.autograd.Function):
    """Returns x (N, C, H, W), which the bias (C,) was already added to, and gives the bias its gradient."""

    @staticmethod
    def forward(ctx, x, bias):
        ctx.mark_dirty(x)  # else what comes back is a view, which no ReLU may overwrite
        return x

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[1] else None
