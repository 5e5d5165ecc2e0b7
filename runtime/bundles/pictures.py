"""Pictures a bundle can draw, as rows of images: of clusters, of paths between them, and of given images.

A picture is a list of rows (n, H, W, C) with a label each, as `grid` takes them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..images.grid import grid, png_bytes
from ..names import distinct
from .bundle import Bundle, Images
from .latents import interpolate, prior_samples, transfer, walk


class Picture(NamedTuple):
    """Rows of images, bytes or floats in [0, 1], and what each shows."""

    rows: list[NDArray]
    labels: list[str]


def samples(bundle: Bundle, clusters: list[int], *, per_cluster: int, seed: int) -> Picture:
    """New images of each cluster, the prior mean first."""
    rows = []
    for cluster in clusters:
        latents = prior_samples(bundle.means, cluster, per_cluster, seed)
        latents[:1] = bundle.means[cluster]
        rows.append(bundle.decode(latents))
    names = distinct(bundle.names)
    return Picture(rows, [names[cluster] for cluster in clusters])


def preview(bundle: Bundle, names: list[str]) -> bytes:
    """The PNG that a bundle carries: ten images of each cluster, under the given names."""
    rows, _ = samples(bundle, list(range(len(names))), per_cluster=10, seed=0)
    return png_bytes(grid(rows, distinct(names)))


def interpolation(bundle: Bundle, pairs: list[tuple[int, int]], n: int) -> Picture:
    """`n` images on the straight line between two clusters' prior means, a row for each pair."""
    means, names = bundle.means, distinct(bundle.names)
    rows = [bundle.decode(interpolate(means[start], means[end], n)) for start, end in pairs]
    return Picture(rows, [f"{names[start]} to {names[end]}" for start, end in pairs])


def ring(clusters: list[int]) -> list[tuple[int, int]]:
    """Each cluster and the next, the last and the first: the paper's figure of interpolations."""
    return list(zip(clusters, clusters[1:] + clusters[:1], strict=True))


def walks(bundle: Bundle, clusters: list[int], n: int) -> Picture:
    """`n` images from the origin out along each cluster's own subspace: the paper's lambda figure."""
    names = distinct(bundle.names)
    return Picture([bundle.decode(walk(bundle.means, c, n)) for c in clusters], [names[c] for c in clusters])


def reconstructions(bundle: Bundle, images: Images, n: int) -> Picture:
    """Images, and below each what the decoder makes of its posterior mean, `n` to a row."""
    rebuilt = bundle.decode(bundle.transform(images))
    rows, labels = [], []
    for start in range(0, len(images), n):
        rows += [images[start : start + n], rebuilt[start : start + n]]
        labels += ["images", "model"]
    return Picture(rows, labels)


def image_interpolation(bundle: Bundle, images: Images, n: int) -> Picture:
    """From the first image to the second, both as they are at the ends and between them `n` images on the line of their posterior means."""
    start, end = bundle.transform(images)
    path = bundle.decode(interpolate(start, end, n))
    first, last = np.float32(images[:1]) / 255, np.float32(images[1:]) / 255
    names = [bundle.names[c] for c in bundle.predict(images)]
    return Picture([np.concatenate([first, path, last])], [f"{names[0]} to {names[1]}"])


def class_transfer(bundle: Bundle, images: Images) -> Picture:
    """Each image, then its style in every cluster."""
    latents, assignment = bundle.transform(images), bundle.predict_proba(images)
    moved = transfer(latents, assignment, bundle.means)
    rows = [np.concatenate([np.float32(image[None]) / 255, bundle.decode(styled)]) for image, styled in zip(images, moved, strict=True)]
    return Picture(rows, [bundle.names[c] for c in bundle.decide(assignment)[0]])
