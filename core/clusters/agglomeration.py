"""Grouping over-clusters by a joint distribution P of them: measures of a grouping, greedy merging, and single moves that improve it.

P_ij is how often an image is in over-cluster i while a view of it, or a neighbour, is in j. Greedy merging by the mutual information that a
merge loses is the Agglomerative Information Bottleneck (Slonim and Tishby, NIPS 1999); moving over-clusters one at a time is its sequential
form (Slonim, Friedman and Tishby, SIGIR 2002). Which P is used, and which grouping is taken, is decided in `merging`.
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
"""The most rounds of moves in `refine`; a handful is usual."""
REMEMBERED = 16
"""Results that `remembered` keeps of each function: a merge asks for four of them, for eight where it also chooses K."""

Path = list[tuple[int, int]]
"""The merges that `merge_path` made, in their order."""
Function = TypeVar("Function", bound=Callable[..., Any])
Cost = Callable[[NDArray[np.float64], NDArray[np.float64] | None], NDArray[np.float64]]


class Partition(NamedTuple):
    """A partition of n over-clusters into K groups."""

    group: NDArray[np.int64]
    """(n,) the group of each over-cluster, 0 to K - 1."""
    information: float
    """Mutual information I(c; c') of the groups, in nats."""


def remembered(function: Function) -> Function:
    """Cache the last results of a function of a joint distribution: each takes O(n^3), and one merge asks for the same ones repeatedly.

    Callers must not change what they get.
    """
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
    """Mutual information of a symmetric joint distribution (n, n), in nats."""
    return float(plogp(joint).sum() - 2 * plogp(joint.sum(1)).sum())


def entropy(joint: NDArray[np.float64]) -> float:
    """Entropy of the marginal of a symmetric joint distribution (n, n), in nats."""
    return float(-plogp(joint.sum(1)).sum())


def uncertainty_coefficient(joint: NDArray[np.float64]) -> float:
    """I / H of a symmetric joint distribution (n, n): how much of a group is known from that of a view or neighbour; 0 where H is 0."""
    own = entropy(joint)
    return mutual_information(joint) / own if own > 0 else 0.0


def least_view_agreement(joint: NDArray[np.float64]) -> float:
    """The smallest share, over groups, of a group's views that are in that same group; 0 where a group is empty.

    Mutual information cannot see this: it is as high where all views of one group are in another group as where they stay.

    Parameters
    ----------
    joint : ndarray, (K, K)
        Symmetric joint distribution of the groups of images and of their views.
    """
    return float((np.diag(joint) / np.maximum(joint.sum(1), np.finfo(np.float64).tiny)).min())


def merge_path(joint: NDArray[np.float64], cost: Cost, *, sums: bool = True) -> Path:
    """Merge the pair of least cost until one group is left, in O(n^3): sums over pairs of rows are updated, not computed anew.

    Parameters
    ----------
    joint : ndarray, (n, n)
    cost : callable
        From a joint distribution and its `pair_sums` to the cost (n, n) of merging each pair, infinite on the diagonal.
    sums : bool
        Whether `cost` needs the sums; without, it is given None.

    Returns
    -------
    list of (int, int)
        n - 1 pairs i < j: the group of over-cluster i absorbed that of j.
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
    """The part of `pair_sums` that one column contributes."""
    return plogp(column[:, None] + column[None])


def grouped(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """Joint distribution (K, K) of groups, from that of over-clusters (n, n) and the group of each, (n,)."""
    member = np.eye(clusters)[group]
    return member.T @ joint @ member


def information(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> float:
    """Mutual information, in nats, of groups (n,) of over-clusters whose joint distribution is (n, n)."""
    return mutual_information(grouped(joint, group, clusters))


def standard_error(joint: NDArray[np.float64], one: NDArray[np.int64], other: NDArray[np.int64], clusters: int, images: int) -> float:
    """Standard error, in nats, of the difference in mutual information between two partitions (n,) of over-clusters.

    To first order, an estimate of mutual information is a mean over images: of log Q_kl / (q_k q_l), k the group of the image and l that of
    its view.

    Parameters
    ----------
    joint : ndarray, (n, n)
    images : int
        Independent images that `joint` was estimated on.
    """
    difference = _pointwise(joint, one, clusters) - _pointwise(joint, other, clusters)
    mean = (joint * difference).sum()
    return math.sqrt(float((joint * (difference - mean) ** 2).sum()) / max(1, images))


def _pointwise(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """log Q_kl / (q_k q_l) for the groups k, l of every two over-clusters, (n, n)."""
    Q = np.maximum(grouped(joint, group, clusters), np.finfo(np.float64).tiny)
    q = Q.sum(1)
    return (np.log(Q) - np.log(q)[:, None] - np.log(q))[np.ix_(group, group)]


def cut(path: Path, clusters: int) -> NDArray[np.int64]:
    """The groups, (n,) in 0..clusters-1, when so many merges of a path are made that `clusters` groups remain."""
    group = np.arange(len(path) + 1)
    for into, taken in path[: len(group) - clusters]:
        group[group == group[taken]] = group[into]
    return np.unique(group, return_inverse=True)[1]


def refine(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> Partition:
    """Move over-clusters, one at a time, to the group where they keep most information, until none moves; no group is emptied.

    Parameters
    ----------
    joint : ndarray, (n, n)
        Symmetric, sums to 1.
    group : ndarray, (n,)
        The partition to begin with, in 0..clusters-1.
    """
    group = group.copy()
    sizes = np.bincount(group, minlength=clusters)
    for _ in range(SWEEPS):
        moved = False
        sums = _GroupSums(joint, group, clusters)  # afresh in each round: updates leave their rounding behind
        for j in range(len(joint)):
            home = group[j]
            if sizes[home] == 1:
                continue
            sums.take_out(j, home)
            gain = sums.gain(j)
            best = int(gain.argmax())
            if gain[best] > gain[home] + 1e-12:
                sizes[home], sizes[best] = sizes[home] - 1, sizes[best] + 1
                group[j], moved = best, True
            sums.put_in(j, group[j])
        if not moved:
            break
    return Partition(group, information(joint, group, clusters))


class _GroupSums:
    """The sums over a partition that a move changes, updated so that a move costs O(n + K^2).

    Q (K, K) is the joint distribution of groups, R (n, K) that of over-clusters and groups, q (K,) the shares of groups, f = Q log Q.
    """

    def __init__(self, joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int):
        member = np.eye(clusters)[group]
        self.joint, self.share = joint, joint.sum(1)
        self.R, self.q = joint @ member, self.share @ member
        self.Q = member.T @ self.R
        self.f = plogp(self.Q)

    def take_out(self, j: int, k: int) -> None:
        """Remove over-cluster j from group k."""
        self._shift(j, k, -1)

    def put_in(self, j: int, k: int) -> None:
        """Add over-cluster j to group k."""
        self._shift(j, k, 1)

    def _shift(self, j: int, k: int, sign: int) -> None:
        before = self.R[j].copy()
        self.R[:, k] += sign * self.joint[:, j]
        self.Q[k] += sign * before
        self.Q[:, k] += sign * self.R[j]
        self.q[k] += sign * self.share[j]
        self.f[k], self.f[:, k] = plogp(self.Q[k]), plogp(self.Q[:, k])

    def gain(self, j: int) -> NDArray[np.float64]:
        """(K,) mutual information gained by putting over-cluster j, which is in no group, into each: row and column k of Q change."""
        r, diagonal = self.R[j], np.diag(self.Q)
        gain = 2 * (plogp(self.Q + r) - self.f).sum(1)
        gain += 2 * (plogp(diagonal) - plogp(diagonal + r)) + plogp(diagonal + 2 * r + self.joint[j, j]) - plogp(diagonal)
        return gain - 2 * (plogp(self.q + self.share[j]) - plogp(self.q))


def exchange_rates(P: NDArray[np.float64], _pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Cost of merging each pair, (n, n): minus P_ij / (p_i p_j), 0 for empty clusters, infinite on the diagonal."""
    share = P.sum(1)
    expected = share[:, None] * share[None]
    rate = -np.divide(P, expected, out=np.zeros_like(P), where=expected > 0)
    np.fill_diagonal(rate, np.inf)
    return rate


def merge_losses(P: NDArray[np.float64], pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Cost of merging each pair, (n, n): the mutual information that is lost, infinite on the diagonal.

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
