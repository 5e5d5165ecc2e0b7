"""Clusters and classes: matched so that most images agree, one-to-one (Hungarian method) or many-to-one; and which one an image is given.

The runtime has no scipy; a shortest-augmenting-path solver is thirty lines.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def contingency(clusters: NDArray[np.int64], labels: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """How many of N images are in each cluster and of each class, of `shape` (K, classes).

    Parameters
    ----------
    clusters, labels : ndarray, (N,), int
        Cluster and class of each image.
    """
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (clusters, labels), 1)
    return counts


def match_counts(counts: ArrayLike) -> NDArray[np.int64]:
    """The class of each cluster, one-to-one, with the largest total count; -1 for clusters left over.

    Parameters
    ----------
    counts : (K, classes)
        Images, or weight, of each class in each cluster.
    """
    table = np.asarray(counts, dtype=np.float64)
    clusters, classes = table.shape
    matched = np.full(clusters, -1, dtype=np.int64)
    if clusters <= classes:
        matched[:] = _assign(-table)
    else:
        matched[_assign(-table.T)] = np.arange(classes)
    return matched


def most_frequent(counts: ArrayLike) -> NDArray[np.int64]:
    """The class most images of a cluster have, several clusters for one class allowed; -1 for clusters without any, or with a tie."""
    table = np.asarray(counts, dtype=np.float64)
    best = table.argmax(1)
    decided = (table == table.max(1, keepdims=True)).sum(1) == 1
    return np.where(decided & (table.max(1) > 0), best, -1)


def _assign(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column of each row, (n,), at least total cost; `cost` is (n, m) with n <= m.

    Rows are added one at a time; each ends a shortest path over reduced costs that frees one column (Kuhn and Munkres, with potentials).
    """
    n, m = cost.shape
    row_of = np.full(m + 1, -1)  # column m stands for the row being added
    u, v = np.zeros(n), np.zeros(m + 1)
    for row in range(n):
        row_of[m], column = row, m
        shortest, before, done = np.full(m, np.inf), np.full(m, m), np.zeros(m + 1, dtype=bool)
        while row_of[column] >= 0:
            done[column] = True
            at = row_of[column]
            reduced = cost[at] - u[at] - v[:m]
            open_ = ~done[:m]
            nearer = open_ & (reduced < shortest)
            shortest[nearer], before[nearer] = reduced[nearer], column
            nearest = int(np.where(open_, shortest, np.inf).argmin())
            step = shortest[nearest]
            u[row_of[done]] += step
            v[done] -= step
            shortest[open_] -= step
            column = nearest
        while column != m:
            row_of[column] = row_of[before[column]]
            column = before[column]
        row_of[m] = -1
    columns = np.empty(n, dtype=np.int64)
    used = np.flatnonzero(row_of[:m] >= 0)
    columns[row_of[used]] = used
    return columns


def winners(assignment: NDArray[np.float32], groups: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The cluster and its confidence, (N,) each, from assignments (N, K).

    Parameters
    ----------
    groups : sequence of int
        Per cluster, the first one of its class: shares of a class are added, and the likeliest cluster of the winning class is the answer.
    """
    rows, first = np.arange(len(assignment)), np.array(groups)
    if (first == np.arange(len(first))).all():
        clusters = assignment.argmax(1)
        return clusters, assignment[rows, clusters]
    summed = np.zeros_like(assignment)
    np.add.at(summed.T, first, assignment.T)
    group = summed.argmax(1)
    within = np.where(first[None] == group[:, None], assignment, -1)
    return within.argmax(1), summed[rows, group]
