"""Pictures of a run, as grids: generated images, real images per cluster, reconstructions."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catvae.runtime.images.grid import grid
from catvae.runtime.sampling import evenly, scattered

from ..images.data import ImageData
from ..vae.model import CatVAE
from .evaluation import draw_samples, reconstruct


def picture_samples(model: CatVAE, names: list[str], seed: int = 0) -> Image.Image:
    """A row of generated images per cluster, the prior mean first."""
    return grid(list(draw_samples(model, seed=seed)), names)


def picture_clusters(assignment: NDArray[np.float32], data: ImageData, names: list[str], per_cluster: int = 12) -> Image.Image:
    """Real images per cluster, evenly spaced from the most to the least confident."""
    clusters = assignment.argmax(1)
    blank = np.zeros((0, *data.preprocess.shape), np.uint8)
    rows = []
    for i in range(assignment.shape[1]):
        members = np.flatnonzero(clusters == i)
        members = members[np.argsort(-assignment[members, i], kind="stable")]
        picked = members[evenly(len(members), per_cluster)]
        rows.append(data.images[picked] if len(picked) else blank)
    return grid(rows, names)


def picture_reconstructions(model: CatVAE, data: ImageData, count: int = 12) -> Image.Image:
    """Some of the images above their reconstructions."""
    picked = data.images[scattered(len(data.images), count)]
    return grid([picked, reconstruct(model, picked)], ["image", "model"])
