"""The trunks: image -> hidden vector, and latent -> pixel logits, for images of any size with 1 or 3 channels.

`mlp` is the paper's (one hidden layer each way); `conv` halves the image with stride-2 convolutions until 4 pixels are left, at least
three layers. Heads that read q(c|x) and q(z|x,c) from the hidden vector belong to `model`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from catvae.kernels import convolved, doubled, dropout_relu, norm_relu
from catvae.kernels.ops.doubling import MOST_CHANNELS
from catvae.kernels.ops.eager import traced, transformed

WIDTHS = (32, 64, 128)
"""Channels of the first convolutions; deeper ones stay at the last width."""
SMALLEST = 4
"""Halving stops once the longer side is at most this many pixels."""


class DropoutReLU(nn.Module):
    """ReLU of the elements, of which while training each is zeroed with probability `p`, the others scaled by 1 / (1 - p).

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
    """Whose gradient comes back in the layout the images have: over two layouts, what is before it takes far longer."""

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
    """The same of vectors."""

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
    """A 3x3 convolution, whose weights learn in bfloat16 on the CPU without threads that wait (`catvae.kernels.convolved`)."""

    def __init__(self, before: int, after: int, stride: int = 1, *, bias: bool = True):
        super().__init__(before, after, 3, stride, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        x, weight = _cast(input, self.weight)
        done = convolved(x, weight, self.bias, stride=self.stride[0])
        return self._conv_forward(x, weight, self.bias) if done is None else done


def _cast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Input and weights of a layer as autocast, which does not see our own operations, would give them to torch's."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or x.dtype == torch.float64:
        return x, weight
    dtype = torch.get_autocast_dtype("cpu")
    return x.to(dtype), weight.to(dtype)


class Doubling(nn.ConvTranspose2d):
    """Twice the size, by a transposed 4x4 convolution. Its bias learns from a sum of its own: with oneDNN's the layer takes
    0.9 to 1.8 times as long; to the one or three channels of an image it is a product and a call to C (`benchmarks/layers.py`)."""

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
    """(N, C, H, W) as it is, with the gradient of the bias (C,) that it holds already."""

    @staticmethod
    def forward(ctx, x, bias):
        ctx.mark_dirty(x)  # else what comes back is a view, which no ReLU may overwrite
        return x

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[1] else None


class MLPEncoder(nn.Module):
    """(N, C, H, W) -> (N, hidden): one linear layer, dropout before the ReLU as published."""

    def __init__(self, shape: tuple[int, int, int], hidden: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), hidden), DropoutReLU(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MLPDecoder(nn.Module):
    """(N, D) -> (N, C, H, W) logits of the Bernoulli pixels."""

    def __init__(self, latent: int, shape: tuple[int, int, int], hidden: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent, hidden),
            DropoutReLU(dropout),
            nn.Identity(),  # weights keep the names they had when the ReLU was a layer of its own
            nn.Linear(hidden, math.prod(shape)),
            nn.Unflatten(1, shape),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def conv_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Feature map sizes from the image to the smallest one; at least three steps, the last may keep their size."""
    sizes = [(height, width)]
    while len(sizes) <= len(WIDTHS) or max(sizes[-1]) > SMALLEST:
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2) if max(h, w) > SMALLEST else (h, w))
    return sizes


def _width(layer: int) -> int:
    return WIDTHS[min(layer, len(WIDTHS) - 1)]


class ConvEncoder(nn.Module):
    """(N, C, H, W) -> (N, hidden): 3x3 convolutions with batch norm, then one linear layer.

    Parameters
    ----------
    tone : float
        Share of its own mean over the image that each channel keeps on its way in. With all of it, networks learn the light and the tint
        of the background first, and clusters follow them: they fill the image, and survive every view. With a tenth, images that differ in
        nothing else are still told apart by them.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: int, tone: float = 1.0):
        super().__init__()
        self.tone = tone
        channels, height, width = shape
        sizes = conv_sizes(height, width)
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
            stride = 1 if before == after else 2
            layers += [Convolution(channels, _width(i), stride, bias=False), NormReLU2d(_width(i))]
            channels = _width(i)
        flat = channels * math.prod(sizes[-1])
        layers += [Flatten(), nn.Linear(flat, hidden, bias=False), NormReLU1d(hidden)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.tone != 1:
            # not x.mean(): its node would be called like an output of the encoder's graph, which the exporter does not see
            x = x - (1 - self.tone) * nn.functional.avg_pool2d(x, x.shape[2:])
        return self.layers(x)


class ConvDecoder(nn.Module):
    """(N, D) -> (N, C, H, W) logits: the encoder's sizes in reverse. No batch norm, so that one image never depends on its batch."""

    def __init__(self, latent: int, shape: tuple[int, int, int], hidden: int):
        super().__init__()
        channels, height, width = shape
        sizes = conv_sizes(height, width)
        steps = len(sizes) - 1
        smallest = (_width(steps - 1), *sizes[-1])
        self.expand = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, math.prod(smallest)), nn.ReLU(), nn.Unflatten(1, smallest)
        )
        self.steps = nn.ModuleList()
        self.sizes = sizes[-2::-1]
        for i in range(steps - 1, -1, -1):
            out = _width(i - 1) if i else channels
            if sizes[i] == sizes[i + 1]:
                self.steps.append(Convolution(_width(i), out))
            else:
                self.steps.append(Doubling(_width(i), out))

    def forward(self, z: Tensor) -> Tensor:
        x = self.expand(z)
        for i, (layer, (height, width)) in enumerate(zip(self.steps, self.sizes, strict=True)):
            x = layer(x)
            if x.shape[2:] != (height, width):
                x = x[:, :, :height, :width]  # doubling an odd size's half gives one row and column too many
            if i + 1 < len(self.steps):
                x = torch.relu(x)
        return x
