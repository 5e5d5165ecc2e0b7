"""Random views of images: how far they may stray, which kind suits a pile, and how they are made.

Views are made for a whole batch at once, on the images' own device, without Python loops. The size of a change is relative to the
image, so one policy serves 8x8 and 224x224. What training does with views is in `view_information`.
"""

import math
from collections.abc import Callable

import msgspec
import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from torch import Tensor

from ..config import Colours
from .edges import background_of
from .symmetry import MIRRORED, flip_correlation, lie_at_any_angle

VARIED = {"brightness": 0.5, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
"""Changes to colour images of objects. They hide how a thing was lit and which one of its kind it is, but not its colour: red does not
become green. About SimCLR's for small images (arXiv 2002.05709, appendix B.9), without its greyscale."""
IGNORED = {**VARIED, "saturation": 0.9, "hue": 0.5, "negative": 0.5}
"""Changes that leave only outlines as they are: a background may take any colour, and be lighter or darker than the thing on it."""
ROUND_GREY = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
"""Generator of the rotation of (red, green, blue) around the axis of greys."""


class ViewPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How far a view may differ from its image."""

    name: str
    rotation: float = 0.0
    """Degrees, either way."""
    shift: float = 0.0
    """Share of the side, either way and in both directions."""
    scale: float = 0.0
    """Relative change of size, either way."""
    stretch: float = 0.0
    """Width times exp(s), height times exp(-s), for s up to this, either way."""
    shear: float = 0.0
    """Sideways shift per unit of height, either way: slant."""
    mirror: bool = False
    """Half of the images are mirrored left to right."""
    brightness: float = 0.0
    """Relative change of brightness, either way."""
    contrast: float = 0.0
    """Relative change of the distance of colours from the image's mean light, either way; this and the next two act on colour images
    only."""
    saturation: float = 0.0
    """Relative change of the distance of colours from grey, either way."""
    hue: float = 0.0
    """Rotation of the circle of hues, in turns, either way."""
    negative: float = 0.0
    """Share of the views that are negatives: light and dark change places."""
    noise: float = 0.0
    """Standard deviation of Gaussian pixel noise, for images in [0, 1]."""
    least_steps: int = 1000
    """Steps that a network needs to learn what these views have in common, however few the images."""
    background: float = 0.0
    """Grey level, in [0, 1], of pixels from beyond the border of a grey image."""

    @property
    def moves(self) -> bool:
        """Whether pixels change place."""
        return bool(self.rotation or self.shift or self.scale or self.stretch or self.shear or self.mirror)


POLICIES = {
    policy.name: policy
    for policy in (
        ViewPolicy(name="digits", rotation=10, shift=2 / 28, scale=0.1, stretch=0.1, shear=0.25),
        ViewPolicy(name="objects", rotation=10, shift=0.2, scale=0.3, mirror=True, brightness=0.3, least_steps=2500),
        ViewPolicy(name="any-angle", rotation=180, shift=0.2, scale=0.2, mirror=True, brightness=0.3, least_steps=2500),
        ViewPolicy(name="none", noise=0.1),
    )
}


def choose_policy(augment: str, images: NDArray[np.uint8], colours: Colours = "vary") -> ViewPolicy:
    """The policy of a given name; `auto` chooses one by the symmetry of the images.

    Mirroring helps with things that look alike in the mirror (garments, cells, parts) and harms writing. The mean correlation between an
    image and its mirror image tells the two apart without labels; colour images are always taken for objects. Things seen from above,
    through a microscope or on a belt, lie at any angle: nobody could say which way up such images belong.

    Parameters
    ----------
    augment : str
        ``digits``, ``objects``, ``any-angle``, ``none`` or ``auto``.
    images : ndarray, (N, H, W, C), uint8
    colours : str
        ``keep`` changes only brightness, a little; ``vary`` changes the colours of colour images of objects; ``ignore`` those of all
        images, and makes half of the views negatives.
    """
    if augment == "auto":
        mirrored = flip_correlation(images, axis=2)
        augment = "objects" if images.shape[-1] == 3 or mirrored >= MIRRORED else "digits"
        augment = "any-angle" if lie_at_any_angle(images, mirrored) else augment
    policy = POLICIES[augment]
    if colours == "ignore" and policy.moves:
        policy = msgspec.structs.replace(policy, **IGNORED)
    elif colours == "vary" and images.shape[-1] == 3 and policy.brightness:
        policy = msgspec.structs.replace(policy, **VARIED)
    return msgspec.structs.replace(policy, background=background_of(images))


def random_view(x: Tensor, policy: ViewPolicy) -> Tensor:
    """One random view of every image; `x` and the result are float (N, C, H, W) in [0, 1]."""
    with torch.autocast(x.device.type, enabled=False):  # bfloat16 would place pixels to an eighth of one at 64 a side, to two at 1024
        return _viewed(x, policy)


def _viewed(x: Tensor, policy: ViewPolicy) -> Tensor:
    n, device = len(x), x.device

    def uniform(bound: float) -> Tensor:
        return (torch.rand(n, device=device) * 2 - 1) * bound

    if policy.moves:
        grid = nnF.affine_grid(_random_affine(x, policy, uniform), list(x.shape), align_corners=False)
        # Corners that come into view are background on grey images; colour photographs have none that holds for all of them, nor has a
        # pile on any background.
        padding, beyond = ("border", 0.0) if x.shape[1] == 3 or policy.negative else ("zeros", policy.background)
        x = nnF.grid_sample(x - beyond, grid, mode="bilinear", padding_mode=padding, align_corners=False) + beyond
    if x.shape[1] == 3 and (policy.contrast or policy.saturation or policy.hue):
        x = _recoloured(x, policy, uniform)
    if policy.negative:
        x = torch.where((torch.rand(n, device=device) < policy.negative).view(n, 1, 1, 1), 1 - x, x)
    if policy.brightness:
        x = x * (1 + uniform(policy.brightness)).view(n, 1, 1, 1)
    if policy.noise:
        x = x + policy.noise * torch.randn_like(x)
    return x.clamp(0, 1)


def _recoloured(x: Tensor, policy: ViewPolicy, uniform: Callable[[float], Tensor]) -> Tensor:
    """One linear map of colours (N, 3, H, W) per image: hues turned, distances from grey and from the mean light scaled."""
    contrast, saturation, hue = (
        part[:, None, None] for part in (1 + uniform(policy.contrast), 1 + uniform(policy.saturation), uniform(2 * math.pi * policy.hue))
    )
    light = torch.full((3, 3), 1 / 3, device=x.device)
    colour = torch.eye(3, device=x.device) - light
    maps = contrast * (light + saturation * (hue.cos() * colour + hue.sin() * ROUND_GREY.to(x.device)))
    mean = x.mean((1, 2, 3)).view(-1, 1, 1, 1)
    return torch.einsum("nij,njhw->nihw", maps, x) + (1 - contrast[..., None]) * mean


def _random_affine(x: Tensor, policy: ViewPolicy, uniform: Callable[[float], Tensor]) -> Tensor:
    """(N, 2, 3) maps from output to input coordinates in [-1, 1]: rotation, zoom, stretch, shear, mirror, shift."""
    n = len(x)
    angle, zoom = uniform(math.radians(policy.rotation)), 1 + uniform(policy.scale)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    wide, slant = uniform(policy.stretch).exp(), uniform(policy.shear)
    flip = torch.where(torch.rand(n, device=x.device) < 0.5, -1.0, 1.0) if policy.mirror else torch.ones(n, device=x.device)
    aspect = x.shape[2] / x.shape[3]  # the matrix acts on pixels, not on a stretched square
    rows = [
        cos * wide * flip, (cos * slant - sin / wide) * flip * aspect, uniform(2 * policy.shift),
        sin * wide / aspect, sin * slant + cos / wide, uniform(2 * policy.shift),
    ]  # fmt: skip
    return torch.stack(rows, 1).view(n, 2, 3)
