"""The trunks: image to hidden vector, and latent to pixel logits, for images of any size with 1 or 3 channels.

`mlp` is the paper's (one hidden layer each way); `conv` halves the image with stride-2 convolutions until 4 pixels are left, at least
three layers. Their layers are in `layers`; the heads that read q(c|x) and q(z|x,c) from the hidden vector are in `model`.
"""

import math

import torch
from torch import Tensor, nn

from .layers import Convolution, DropoutReLU, Flatten, NormReLU1d, NormReLU2d, UpConvolution

WIDTHS = (32, 64, 128)
"""Channels of the first convolutions; deeper ones stay at the last width."""
SMALLEST = 4
"""Halving stops once the longer side is at most this many pixels."""


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
        Share of its own mean over the image that each channel keeps on its way in. With all of it, networks first learn the light and the
        tint of the background, which fill the image and survive every view, and clusters follow them. With a tenth, images that differ in
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
                self.steps.append(UpConvolution(_width(i), out))

    def forward(self, z: Tensor) -> Tensor:
        x = self.expand(z)
        for i, (layer, (height, width)) in enumerate(zip(self.steps, self.sizes, strict=True)):
            x = layer(x)
            if x.shape[2:] != (height, width):
                x = x[:, :, :height, :width]  # doubling an odd size's half gives one row and column too many
            if i + 1 < len(self.steps):
                x = torch.relu(x)
        return x
