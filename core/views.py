"""Random views of images, and the information their assignments share: what lets clusters form by content (arXiv 1807.06653).

Views are made for a whole batch at once, on the images' own device, without Python loops. The size of a change is relative to the
image, so one policy serves 8x8 and 224x224.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from torch import Tensor

from .config import Colours
from .edges import background_of
from .ranks import ALONE, Ranks
from .symmetry import MIRRORED, flip_correlation, lie_at_any_angle

AT_A_TIME_PIXELS = 56 * 56
"""Values per image up to which a full batch is encoded at a time: about 300 MB of activations at 1024."""

VARIED = {"brightness": 0.5, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
"""Of colour images of objects: changes that hide how a thing was lit, or which of its kind it is, yet not what colour it has: red does not
become green. About SimCLR's for small images (arXiv 2002.05709, appendix B.9), without its greyscale."""
IGNORED = {**VARIED, "saturation": 0.9, "hue": 0.5, "negative": 0.5}
"""Changes that leave outlines alone: a background is as well any other, and lighter or darker than the thing on it."""
ROUND_GREY = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
"""Generator of the turn of (red, green, blue) around the axis of greys."""


class ViewPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How far a view may stray from its image."""

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
    """Left-right, for half of the images."""
    brightness: float = 0.0
    """Relative change of brightness, either way."""
    contrast: float = 0.0
    """Relative change of how far colours are from the image's mean light, either way; this and the next two of colour images alone."""
    saturation: float = 0.0
    """Relative change of how far colours are from grey, either way."""
    hue: float = 0.0
    """Turn of the circle of hues, either way."""
    negative: float = 0.0
    """Share of the views in which light and dark change places."""
    noise: float = 0.0
    """Standard deviation of Gaussian pixel noise, for images in [0, 1]."""
    least_steps: int = 1000
    """In which a network learns what these views keep, of however few images."""
    background: float = 0.0
    """Grey level, in [0, 1], of what comes into view from beyond the border of a grey image."""

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
    """The policy of a name; `auto` decides by symmetry.

    Mirroring, the step that separates writing from objects, is harmless only for things that look alike in the mirror (garments, cells,
    parts), and harmful for writing. The mean correlation between an image and its mirror image tells them apart without labels; colour
    images are always taken for objects. Things seen from above, through a microscope or on a belt, lie at any angle: nobody can tell which
    way up their images are, whatever the colours.

    Parameters
    ----------
    augment : str
        ``digits``, ``objects``, ``any-angle``, ``none`` or ``auto``.
    images : ndarray, (N, H, W, C), uint8
    colours : str
        ``keep`` leaves colours as they are but for a little brightness, ``vary`` changes them on colour images of objects, ``ignore`` on
        all images, and makes half of the views negatives.
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


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, H, W, C) to float (N, C, H, W) in [0, 1], stored channels last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def at_a_time(images: Tensor | NDArray[np.uint8], at_most: int) -> int:
    """How many of images (N, ...) go through the encoder at a time: `at_most` of 56 x 56 in grey, fewer of larger ones."""
    return max(1, min(at_most, at_most * AT_A_TIME_PIXELS // max(1, math.prod(images.shape[1:]))))


def in_pieces(images: NDArray[np.uint8], device: torch.device, at_most: int = 1024) -> Iterator[Tensor]:
    """Images (N, H, W, C) as float (n, C, H, W), as many as `at_a_time` says; where there are none, one empty piece of that shape."""
    size = at_a_time(images, at_most)
    for start in range(0, max(1, len(images)), size):
        piece = np.require(images[start : start + size], requirements=["C", "W"])  # torch warns of arrays it may not write into
        yield to_float(torch.from_numpy(piece).to(device))


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


class ViewInformation(NamedTuple):
    """Two readings of one joint distribution."""

    information: Tensor
    """() mutual information in nats: at most log K, reached when assignments are certain, balanced and equal in both views."""
    trained: Tensor
    """() the same with the marginal entropies weighted, which is what is maximised."""


def view_information(
    logits: Tensor, other: Tensor, marginal_weight: float, ranks: Ranks = ALONE, *, ordered: bool = False
) -> ViewInformation:
    """Mutual information between the assignments of images and of their views, estimated on the batch.

    With P = 1/N sum_n a_n a'_n^T: I = sum P log P - w sum P (log P_i + log P_j), w = 1 for the information itself.

    Parameters
    ----------
    logits, other : Tensor, (N, K)
        Of the images and of their views.
    marginal_weight : float
        w; above 1 weighs the entropy of the cluster shares, which keeps clusters from emptying.
    ranks : Ranks
        That hold parts of the batch: P is that of the whole.
    ordered : bool
        P stays as it is. Else it is symmetrised, as in arXiv 1807.06653: then a cluster of images alone and one of their views say as much
        as two kinds do. Networks that tell one from the other, by the blur of a turned image, say, learn that way faster, but half of their
        clusters are of no image.
    """
    a, b = logits.float().softmax(-1), other.float().softmax(-1)
    with torch.autocast(a.device.type, enabled=False):  # a joint in bfloat16 would round away the differences that are trained
        joint = ranks.mean(a.T @ b / len(a))
    joint = (joint if ordered else (joint + joint.T) / 2).clamp_min(1e-12)
    joint = joint / joint.sum()
    negative_joint_entropy = (joint * joint.log()).sum()
    marginal_entropies = -sum((share * share.log()).sum() for share in (joint.sum(1), joint.sum(0)))
    return ViewInformation(
        negative_joint_entropy + marginal_entropies,
        negative_joint_entropy + marginal_weight * marginal_entropies,
    )
