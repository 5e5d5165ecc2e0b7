"""Groups of small clusters from a joint distribution P of them: what groups say of each other, greedy merging, moves that improve it.

P tells how often an image and a view of it, or a neighbour, lie in which two small clusters. Greedy merging by the information that a merge
loses is the Agglomerative Information Bottleneck (Slonim and Tishby, NIPS 1999), moving small clusters one at a time its sequential form
(Slonim, Friedman and Tishby, SIGIR 2002). Which distributions are asked, and which groups are taken, is decided in `merging`.
"""

import math
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.files import sha256

SWEEPS = 50
"""Rounds of moves at most; a handful is usual."""
REMEMBERED = 16
"""Results of each function that `remembered` keeps: one look at the small clusters asks for four, eight where it also chooses K."""

Path = list[tuple[int, int]]
"""Merges of a greedy path, see `merge_path`."""
Function = TypeVar("Function", bound=Callable[..., Any])
Cost = Callable[[NDArray[np.float64], NDArray[np.float64] | None], NDArray[np.float64]]


class Merge(NamedTuple):
    """A partition of the small clusters."""

    group: NDArray[np.int64]
    """(overclusters,) in 0..K-1."""
    information: float
    """I(c; c') of the groups, in nats."""


def remembered(function: Function) -> Function:
    """Keep the last results, to be read only, of a function of a joint distribution: one look asks for the same n^3 operations again."""
    known: dict[tuple[object, ...], object] = {}
    changing = threading.Lock()

    @wraps(function)
    def look_up(joint: NDArray[np.float64], *others: int) -> object:
        key = sha256(joint.tobytes()), *others
        with changing:
            if key in known:
                return known[key]
        found = function(joint, *others)
        with changing:
            known[key] = found
            while len(known) > REMEMBERED:
                del known[next(iter(known))]
        return found

    return look_up  # pyright: ignore[reportReturnType] - a function like the one it was given


def mutual_information(joint: NDArray[np.float64]) -> float:
    """I of a symmetric joint distribution, in nats."""
    return float(plogp(joint).sum() - 2 * plogp(joint.sum(1)).sum())


def entropy(joint: NDArray[np.float64]) -> float:
    """H of the marginal of a symmetric joint distribution, in nats."""
    return float(-plogp(joint.sum(1)).sum())


def kept_share(joint: NDArray[np.float64]) -> float:
    """I / H: the share of their own entropy that groups share with those of views or neighbours; 0 where all is in one."""
    own = entropy(joint)
    return mutual_information(joint) / own if own > 0 else 0.0


def least_staying(joint: NDArray[np.float64]) -> float:
    """Of a joint distribution of groups, the smallest share of a group that views leave in it; 0 where one is empty.

    Information knows of no sameness: a group that views lead into another one as a whole tells as much of it as one that they leave alone.
    """
    return float((np.diag(joint) / np.maximum(joint.sum(1), np.finfo(np.float64).tiny)).min())


def merge_path(joint: NDArray[np.float64], cost: Cost, *, sums: bool = True) -> Path:
    """Merge the pair of least cost until one group is left, in O(n^3): sums over pairs of rows are kept up to date, not made anew.

    Parameters
    ----------
    joint : ndarray, (n, n)
    cost : callable
        From a joint distribution and its `pair_sums` to the cost (n, n) of merging each pair, infinite on the diagonal.
    sums : bool
        Whether it looks at the sums; otherwise it is given None.

    Returns
    -------
    list of (int, int)
        n - 1 pairs i < j: the group of cluster i took in that of cluster j.
    """
    P, pairs = joint.copy(), pair_sums(joint) if sums else None
    names = list(range(len(P)))
    path = []
    while len(P) > 1:
        i, j = sorted(divmod(int(cost(P, pairs).argmin()), len(P)))
        path.append((names[i], names.pop(j)))
        if pairs is not None:
            pairs -= _column_share(P[:, i]) + _column_share(P[:, j])
        P[i] += P[j]
        P[:, i] += P[:, j]
        P = _without(P, j)
        if pairs is not None:
            pairs = _without(pairs, j) + _column_share(P[:, i])
            pairs[i] = pairs[:, i] = plogp(P + P[i]).sum(1)
    return path


def _without(matrix: NDArray[np.float64], j: int) -> NDArray[np.float64]:
    return np.delete(np.delete(matrix, j, 0), j, 1)


def pair_sums(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum over l of f(P_il + P_jl), (n, n), with f(p) = p log p."""
    return np.stack([plogp(P + row).sum(1) for row in P])  # row by row: all at once would need n^3 numbers


def _column_share(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """What one column adds to `pair_sums`."""
    return plogp(column[:, None] + column[None])


def grouped(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """Joint distribution (K, K) of groups."""
    member = np.eye(clusters)[group]
    return member.T @ joint @ member


def information(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> float:
    """I of groups of small clusters, in nats."""
    return mutual_information(grouped(joint, group, clusters))


def standard_error(joint: NDArray[np.float64], one: NDArray[np.int64], other: NDArray[np.int64], clusters: int, images: int) -> float:
    """Of the difference between what two partitions say, in nats, where `joint` was estimated on so many independent images.

    To first order an estimate of information is a mean over images, of log Q_kl / (q_k q_l) for the groups k, l of image and view.
    """
    difference = _pointwise(joint, one, clusters) - _pointwise(joint, other, clusters)
    mean = (joint * difference).sum()
    return math.sqrt(float((joint * (difference - mean) ** 2).sum()) / max(1, images))


def _pointwise(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """log Q_kl / (q_k q_l) of the groups of every two small clusters, (n, n)."""
    Q = np.maximum(grouped(joint, group, clusters), np.finfo(np.float64).tiny)
    q = Q.sum(1)
    return (np.log(Q) - np.log(q)[:, None] - np.log(q))[np.ix_(group, group)]


def cut(path: Path, clusters: int) -> NDArray[np.int64]:
    """Groups (n,) in 0..clusters-1 that are left when `clusters` remain of a path's n."""
    group = np.arange(len(path) + 1)
    for into, taken in path[: len(group) - clusters]:
        group[group == group[taken]] = group[into]
    return np.unique(group, return_inverse=True)[1]


def refine(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> Merge:
    """Move small clusters, one at a time, to the group where they keep most information, until none moves; no group empties.

    Taking j out of its group leaves Q between groups and r_l = sum of P_ij over i in l; giving it to k changes row and column k alone.
    They and what is summed over them are kept up to date, so that a move costs O(n + K^2).
    """
    group = group.copy()
    sizes = np.bincount(group, minlength=clusters)
    share = joint.sum(1)
    for _ in range(SWEEPS):
        moved = False
        member = np.eye(clusters)[group]
        R, q = joint @ member, share @ member  # made anew each round: what is added and taken away leaves its rounding behind
        Q = member.T @ R
        f = plogp(Q)
        for j in range(len(joint)):
            home = group[j]
            if sizes[home] == 1:
                continue
            _shift(Q, R, q, f, joint, share, j, home, -1)
            r, diagonal = R[j], np.diag(Q)
            gain = 2 * (plogp(Q + r) - f).sum(1)
            gain += 2 * (plogp(diagonal) - plogp(diagonal + r)) + plogp(diagonal + 2 * r + joint[j, j]) - plogp(diagonal)
            gain -= 2 * (plogp(q + share[j]) - plogp(q))
            best = int(gain.argmax())
            if gain[best] > gain[home] + 1e-12:
                sizes[home], sizes[best] = sizes[home] - 1, sizes[best] + 1
                group[j], moved = best, True
            _shift(Q, R, q, f, joint, share, j, group[j], 1)
        if not moved:
            break
    return Merge(group, information(joint, group, clusters))


def _shift(
    Q: NDArray[np.float64], R: NDArray[np.float64], q: NDArray[np.float64], f: NDArray[np.float64],
    joint: NDArray[np.float64], share: NDArray[np.float64], j: int, k: int, sign: int,
) -> None:  # fmt: skip
    """Put small cluster j into group k (`sign` 1) or take it out (-1).

    Q (K, K) is of groups, R (n, K) of small clusters and groups, q (K,) of groups alone, f = Q log Q.
    """
    before = R[j].copy()
    R[:, k] += sign * joint[:, j]
    Q[k] += sign * before
    Q[:, k] += sign * R[j]
    q[k] += sign * share[j]
    f[k], f[:, k] = plogp(Q[k]), plogp(Q[:, k])


def exchange_rates(P: NDArray[np.float64], _pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Minus P_ij / (p_i p_j), (n, n), infinite on the diagonal; empty clusters exchange nothing."""
    share = P.sum(1)
    expected = share[:, None] * share[None]
    rate = -np.divide(P, expected, out=np.zeros_like(P), where=expected > 0)
    np.fill_diagonal(rate, np.inf)
    return rate


def merge_losses(P: NDArray[np.float64], pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(n, n) information lost by merging each pair; infinite on the diagonal.

    With f(p) = p log p, I = sum f(P_ij) - 2 sum f(p_i): only rows, columns and marginals of the pair change.
    """
    n = len(P)
    f, diagonal, share = plogp(P), np.diag(P), P.sum(1)
    rows = f.sum(1)
    own_i = plogp(diagonal[:, None] + P)  # column i of the merged row: P_ii + P_ji
    own_j = own_i.T  # P is symmetric
    before = 2 * (rows[:, None] + rows[None]) - np.diag(f)[:, None] - np.diag(f)[None] - 2 * f
    pairs = pair_sums(P) if pairs is None else pairs
    after = 2 * (pairs - own_i - own_j) + plogp(diagonal[:, None] + diagonal[None] + 2 * P)
    marginals = plogp(share)[:, None] + plogp(share)[None] - plogp(share[:, None] + share[None])
    loss = before - after - 2 * marginals
    loss[np.arange(n), np.arange(n)] = np.inf
    return loss


def plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p log p, 0 for 0."""
    found = np.maximum(p, np.finfo(np.float64).tiny)
    np.log(found, found)
    found *= p
    return found
