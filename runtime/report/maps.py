"""Latent points (N, D) on paper: the plane of most variance, and UMAP's where umap-learn is installed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST = 3
"""Points a map needs; UMAP needs `NEIGHBOURS` more than that."""
NEIGHBOURS = 15


class Map(NamedTuple):
    """Points in the plane."""

    how: str
    """Said under the picture."""
    points: NDArray[np.float64]
    """(N, 2)."""


def maps_of(points: NDArray) -> list[Map]:
    """Every map there is of `points` (N, D); none of fewer than `LEAST`."""
    if len(points) < LEAST:
        return []
    maps = [Map("posterior means along their two principal axes", principal_plane(points))]
    neighbours = umap_plane(points) if len(points) > LEAST + NEIGHBOURS else None
    if neighbours is not None:
        maps.insert(0, Map("posterior means by UMAP: neighbours stay together, distances between groups mean little", neighbours))
    return maps


def principal_plane(points: NDArray) -> NDArray[np.float64]:
    """Coordinates (N, 2) along the two directions of most variance."""
    centred = points.astype(np.float64) - points.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2] * np.where(directions[:2].sum(1, keepdims=True) < 0, -1.0, 1.0)  # a direction's sign is arbitrary
    plane = centred @ directions.T
    return plane if plane.shape[1] == 2 else np.column_stack([plane[:, 0], np.zeros(len(plane))])


def umap_plane(points: NDArray) -> NDArray[np.float64] | None:
    """UMAP's layout (N, 2) (arXiv 1802.03426), the same for the same points; None where umap-learn is not installed or fails."""
    try:
        import umap  # pyright: ignore[reportMissingImports]

        layout = np.asarray(umap.UMAP(n_neighbors=NEIGHBOURS, random_state=0, n_jobs=1).fit_transform(points), np.float64)
    except Exception:  # a second picture is not worth a finished run's report, whatever that package or one it needs says
        return None
    return layout if layout.shape == (len(points), 2) and np.isfinite(layout).all() else None
