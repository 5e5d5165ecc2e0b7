"""Merging many small clusters into K by what views and neighbours say of them: the information bottleneck, without labels.

A view sometimes lands in another small cluster than its image; clusters that exchange views belong together. From the joint distribution
P of an image's and its view's small cluster, two partitions into K groups are sought:

- the most informative: pairs are merged greedily, by loss of the mutual information I(c; c') (Slonim and Tishby, Agglomerative Information
  Bottleneck, NIPS 1999) and by rate of exchange, then small clusters change groups one by one while that gains information (Slonim,
  Friedman and Tishby, SIGIR 2002). Information prefers equal groups: among ten rare and frequent classes it halves the frequent ones.
- the most apart: pairs are merged by `separation`, the loss over what it would be if the two exchanged no views, whatever their sizes.

The first is the default, and `merge_by_neighbours` says on which distributions. The second is for rare classes, where the user says so:
where kinds shade into each other it grows one large blob and picks crumbs off it. `unequal_is_clearer` says when it is worth a try. A K-way
head trained on the same information settles in worse places than either: it cuts through classes, because nothing ties together what lies
on one side of its cut.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catvae.runtime.matching import match_counts

from .joints import Joints

SWEEPS = 50
"""Rounds of moves at most; a handful is usual."""
UNEVEN = 0.955
"""Share of K below which the perplexity of equal groups says enough: information makes groups equal where it can, to 0.99 where classes are
all alike, if rarely no further than 0.95 for few images; 0.89 to 0.97 where half of the classes are at 1/3 or 1/10."""
CLEARLY = 2.0
"""Mean separation from the nearest group that unequal groups must gain for every unit of evenness above `UNEVEN`: they gain 0.04 to 0.19
where classes differ by 10:1, and up to 0.055 where they are all alike and equal groups even, to 0.998, which asks for 0.086."""
KEPT = 0.88
"""Share of their own entropy that unequal groups must keep through a view: 0.88 to 0.98 on handwriting, 0.81 to 0.85 on garments, whose
kinds shade into each other and where merging by separation grows one large blob."""
GAP = -0.01
"""By how much every two unequal groups must be further apart than the halves of any one, but for noise: -0.01 to 0.18 at 10:1 on
handwriting, down to -0.23 on garments."""
STAYS = 0.5
"""Share of every unequal group that a view must leave in it: 0.7 and more on handwriting. Small clusters that swap through a view, as
mirrored things may, look far apart and are no kinds."""
CRUMB = 0.25
"""Of an equal share of the small clusters, below which one counts as a crumb."""
TIE = 0.003
"""Nats of information within which two merges say the same: crossed sevens lie with the sevens or with the twos at equal information."""


Path = list[tuple[int, int]]
"""Merges of a greedy path, see `merge_path`."""


class Merge(NamedTuple):
    """A partition of the small clusters."""

    group: NDArray[np.int64]
    """(overclusters,) in 0..K-1."""
    information: float
    """I(c; c') of the groups, in nats."""


def mutual_information(joint: NDArray[np.float64]) -> float:
    """I of a symmetric joint distribution, in nats."""
    return float(_plogp(joint).sum() - 2 * _plogp(joint.sum(1)).sum())


def merge_by_neighbours(joints: Joints, clusters: int, *, unequal: bool = False) -> Merge:
    """The merge to take: the one that says most about the small clusters of an image's nearest neighbours in the hidden layer.

    Greedy merging ends in different places from different joint distributions; each place is refined on the neighbours. Of merges that tie,
    the one that says most about neighbours by pixels. `unequal` merges by separation under views instead: see `merge_clusters`.
    """
    if unequal:
        merge = merge_clusters(joints.overclusters, clusters, unequal=True)
        return merge._replace(information=mutual_information(grouped(joints.neighbours, merge.group, clusters)))
    views, neighbours, pixels = joints.overclusters, joints.neighbours, joints.pixels
    sources = (views, neighbours, (views + neighbours) / 2, (views + pixels) / 2)
    places = [merge_clusters(source, clusters).group for source in sources]
    merges = [refine(neighbours, place, clusters) for place in places]
    merges += [Merge(place, mutual_information(grouped(neighbours, place, clusters))) for place in places]
    most = max(merge.information for merge in merges)
    tied = [merge for merge in merges if merge.information >= most - TIE]
    return max(tied, key=lambda merge: mutual_information(grouped(pixels, merge.group, clusters)))


def agreement(joints: Joints, group: NDArray[np.int64], clusters: int) -> float:
    """Nats that groups share with those of nearest neighbours, the mean of those in the hidden layer and those by pixels; at most log K.

    What compares different networks, and different times of one: in its own hidden layer a network finds near what it has put together, by
    pixels nothing follows it. Three of six MNIST starts put crossed sevens with the twos; the hidden layer alone would go on with one.
    """
    return sum(mutual_information(grouped(joint, group, clusters)) for joint in (joints.neighbours, joints.pixels)) / 2


def merge_clusters(joint: NDArray[np.float64], clusters: int, *, unequal: bool = False) -> Merge:
    """The most informative partition, or, `unequal`, the most apart one.

    Parameters
    ----------
    joint : ndarray, (overclusters, overclusters)
        Symmetric, sums to 1.
    clusters : int
        K, at most the number of small clusters.
    """
    if unequal:
        group = most_apart(joint, clusters)
        return Merge(group, mutual_information(grouped(joint, group, clusters)))
    return merge_along(joint, information_paths(joint), clusters)


def information_paths(joint: NDArray[np.float64]) -> list[Path]:
    """Greedy merges by lost information and by rate of exchange: the places that `merge_along` refines, for every K."""
    return [merge_path(joint, _merge_losses), merge_path(joint, _exchange_rates, sums=False)]


def merge_along(joint: NDArray[np.float64], paths: list[Path], clusters: int) -> Merge:
    """The most informative partition that refining the paths' cuts at K = `clusters` leads to."""
    return max((refine(joint, cut(path, clusters), clusters) for path in paths), key=lambda merge: merge.information)


class Signs(NamedTuple):
    """What tells at a merge whether groups may be of unequal size."""

    evenness: float
    """Perplexity of equal groups over K; see `UNEVEN`."""
    further: float
    """Mean separation from the nearest group that unequal groups gain; see `CLEARLY`."""
    kept: float
    """Share of their own entropy that unequal groups keep through a view, 0 where all is in one; see `KEPT`."""
    gap: float
    """How much every two unequal groups are further apart than the halves of any one; see `GAP`."""
    stays: float
    """Smallest share of an unequal group that a view leaves in it; see `STAYS`."""


def unequal_signs(joint: NDArray[np.float64], clusters: int) -> Signs:
    """The signs of a joint distribution (overclusters, overclusters) for K >= 2."""
    equal = grouped(joint, merge_clusters(joint, clusters).group, clusters)
    group = most_apart(joint, clusters)
    apart = grouped(joint, group, clusters)
    shares = apart.sum(1)
    entropy = -_plogp(shares).sum()
    return Signs(
        float(np.exp(-_plogp(equal.sum(1)).sum())) / clusters,
        _mean_nearest(apart) - _mean_nearest(equal),
        float(mutual_information(apart) / entropy) if entropy > 0 else 0.0,
        float(separations(apart).min() - inner_separations(joint, group, clusters).max()),
        float((np.diag(apart) / np.maximum(shares, np.finfo(np.float64).tiny)).min()),
    )


def unequal_is_clearer(joint: NDArray[np.float64], clusters: int) -> bool:
    """Whether all signs say that groups of unequal size are what the images show."""
    if clusters < 2:
        return False
    signs = unequal_signs(joint, clusters)
    needed = max(0.0, CLEARLY * (signs.evenness - UNEVEN))
    return signs.further >= needed and signs.kept >= KEPT and signs.gap >= GAP and signs.stays >= STAYS


def most_apart(joint: NDArray[np.float64], clusters: int) -> NDArray[np.int64]:
    """Groups (n,) left by merging what is least apart."""
    return cut(separation_path(joint), clusters)


def separation_path(joint: NDArray[np.float64]) -> Path:
    """Greedy merges of what is least apart; crumbs, too rare to be told from noise, are merged before anything else."""
    crumb = CRUMB / len(joint)

    def cost(P: NDArray[np.float64], pairs: NDArray[np.float64] | None) -> NDArray[np.float64]:
        rare = P.sum(1) < crumb
        return separations(P, pairs) - 2.0 * (rare[:, None] | rare[None])

    return merge_path(joint, cost)


Cost = Callable[[NDArray[np.float64], NDArray[np.float64] | None], NDArray[np.float64]]


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
            pairs[i] = pairs[:, i] = _plogp(P + P[i]).sum(1)
    return path


def _without(matrix: NDArray[np.float64], j: int) -> NDArray[np.float64]:
    return np.delete(np.delete(matrix, j, 0), j, 1)


def pair_sums(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum over l of f(P_il + P_jl), (n, n), with f(p) = p log p."""
    return np.stack([_plogp(P + row).sum(1) for row in P])  # row by row: all at once would need n^3 numbers


def _column_share(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """What one column adds to `pair_sums`."""
    return _plogp(column[:, None] + column[None])


def grouped(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """Joint distribution (K, K) of groups."""
    member = np.eye(clusters)[group]
    return member.T @ joint @ member


def separations(joint: NDArray[np.float64], pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """How far apart every two clusters are, (n, n): the information merging them loses over the most it could lose, 0 to 1.

    Infinite on the diagonal; 0 for a cluster that nothing falls into.
    """
    share = joint.sum(1)
    together = share[:, None] + share[None]
    most = _plogp(together) - _plogp(share)[:, None] - _plogp(share)[None]  # (p_i + p_j) times the entropy of i against j
    apart = np.divide(_merge_losses(joint, pairs), most, out=np.zeros_like(joint), where=most > 1e-15)
    np.fill_diagonal(apart, np.inf)
    return apart


def inner_separations(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int, smallest: float = 0.0) -> NDArray[np.float64]:
    """How far apart the two halves of each group are that are furthest apart, (clusters,); 0 where a half would hold less than `smallest`.

    Parameters
    ----------
    smallest : float
        Share of the images; at least that of a crumb counts.
    """
    smallest = max(smallest, CRUMB / len(joint))
    found = np.zeros(clusters)
    for k in range(clusters):
        rows = np.flatnonzero(group == k)
        inside = joint[np.ix_(rows, rows)]
        if len(rows) < 2 or inside.sum() <= 0:
            continue
        inside, share = inside / inside.sum(), inside.sum()
        for halves in (most_apart(inside, 2), cut(merge_path(inside, _merge_losses), 2)):
            two = grouped(inside, halves, 2)
            if two.sum(1).min() * share >= smallest:
                found[k] = max(found[k], separations(two)[0, 1])
    return found


def _mean_nearest(joint: NDArray[np.float64]) -> float:
    """Mean separation of a cluster from the one nearest to it."""
    return float(separations(joint).min(1).mean())


def cut(path: Path, clusters: int) -> NDArray[np.int64]:
    """Groups (n,) in 0..clusters-1 that are left when `clusters` remain of a path's n."""
    group = np.arange(len(path) + 1)
    for into, taken in path[: len(group) - clusters]:
        group[group == group[taken]] = group[into]
    return np.unique(group, return_inverse=True)[1]


def refine(joint: NDArray[np.float64], group: NDArray[np.int64], clusters: int) -> Merge:
    """Move small clusters, one at a time, to the group where they keep most information, until none moves; no group empties.

    Taking j out of its group leaves Q between groups and r_l = sum of P_ij over i in l; giving it to k changes row and column k alone.
    Both are kept up to date, so that a move costs O(n + K^2).
    """
    group = group.copy()
    sizes = np.bincount(group, minlength=clusters)
    share = joint.sum(1)
    for _ in range(SWEEPS):
        moved = False
        member = np.eye(clusters)[group]
        R, q = joint @ member, share @ member  # made anew each round: what is added and taken away leaves its rounding behind
        Q = member.T @ R
        for j in range(len(joint)):
            home = group[j]
            if sizes[home] == 1:
                continue
            _shift(Q, R, q, joint, share, j, home, -1)
            r, diagonal = R[j], np.diag(Q)
            gain = 2 * (_plogp(Q + r) - _plogp(Q)).sum(1)
            gain += 2 * (_plogp(diagonal) - _plogp(diagonal + r)) + _plogp(diagonal + 2 * r + joint[j, j]) - _plogp(diagonal)
            gain -= 2 * (_plogp(q + share[j]) - _plogp(q))
            best = int(gain.argmax())
            if gain[best] > gain[home] + 1e-12:
                sizes[home], sizes[best] = sizes[home] - 1, sizes[best] + 1
                group[j], moved = best, True
            _shift(Q, R, q, joint, share, j, group[j], 1)
        if not moved:
            break
    return Merge(group, mutual_information(grouped(joint, group, clusters)))


def _shift(
    Q: NDArray[np.float64], R: NDArray[np.float64], q: NDArray[np.float64],
    joint: NDArray[np.float64], share: NDArray[np.float64], j: int, k: int, sign: int,
) -> None:  # fmt: skip
    """Put small cluster j into group k (`sign` 1) or take it out (-1): Q (K, K) of groups, R (n, K) of small ones and groups, q (K,)."""
    before = R[j].copy()
    R[:, k] += sign * joint[:, j]
    Q[k] += sign * before
    Q[:, k] += sign * R[j]
    q[k] += sign * share[j]


def _exchange_rates(P: NDArray[np.float64], _pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Minus P_ij / (p_i p_j), (n, n), infinite on the diagonal; empty clusters exchange nothing."""
    share = P.sum(1)
    expected = share[:, None] * share[None]
    rate = -np.divide(P, expected, out=np.zeros_like(P), where=expected > 0)
    np.fill_diagonal(rate, np.inf)
    return rate


def _merge_losses(P: NDArray[np.float64], pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(n, n) information lost by merging each pair; infinite on the diagonal.

    With f(p) = p log p, I = sum f(P_ij) - 2 sum f(p_i): only rows, columns and marginals of the pair change.
    """
    n = len(P)
    f, diagonal, share = _plogp(P), np.diag(P), P.sum(1)
    rows = f.sum(1)
    own_i = _plogp(diagonal[:, None] + P)  # column i of the merged row: P_ii + P_ji
    own_j = own_i.T  # P is symmetric
    before = 2 * (rows[:, None] + rows[None]) - np.diag(f)[:, None] - np.diag(f)[None] - 2 * f
    pairs = pair_sums(P) if pairs is None else pairs
    after = 2 * (pairs - own_i - own_j) + _plogp(diagonal[:, None] + diagonal[None] + 2 * P)
    marginals = _plogp(share)[:, None] + _plogp(share)[None] - _plogp(share[:, None] + share[None])
    loss = before - after - 2 * marginals
    loss[np.arange(n), np.arange(n)] = np.inf
    return loss


def _plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p log p, 0 for 0."""
    found = np.maximum(p, np.finfo(np.float64).tiny)
    np.log(found, found)
    found *= p
    return found


def align(group: NDArray[np.int64], shared: NDArray[np.float64]) -> NDArray[np.int64]:
    """Renumber groups so that they overlap most with the clusters they replace: decoder and offsets keep their blocks.

    Parameters
    ----------
    group : ndarray, (overclusters,)
    shared : ndarray, (overclusters, K)
        Joint distribution of small cluster and present cluster.
    """
    clusters = shared.shape[1]
    overlap = np.zeros((clusters, clusters))
    np.add.at(overlap, group, shared)
    return match_counts(overlap)[group]
