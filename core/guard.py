"""Is this clustering sound? Collapse noticed without labels, while training (`watch`) and at its end (`verdict`).

    one class   one cluster holds nearly every image, and clusters were not allowed to be that unequal
    dead        a cluster holds less than a fiftieth of an equal share
    accidental  half of the images or more change cluster with a view
    merged      the halves of a cluster are further apart than the two nearest clusters
    split       two clusters exchange views as one cluster would

How far apart two groups are is in `separation`. What training does about the first two is in `steering`; the last two are repaired by
merging (`merging`), and reported if they remain.
"""

from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from catvae.runtime.wording import counted

from .grouping import unequal_is_clearer
from .joints import Joints
from .metrics import Health
from .separation import inner_separations, separations

ONE_CLASS = 0.9
"""Share of the images in one cluster from which on the model has collapsed."""
DEAD = 0.02
"""Of an equal share, below which a cluster counts as dead: rare classes stay far above."""
HALF = 0.3
"""Of an equal share, that each half of a merged cluster holds."""
MORE = 0.02
"""By how much the halves of a merged cluster are further apart than the nearest clusters."""
TOGETHER = 0.6
"""Separation below which two clusters may be one thing."""
KEEPS = 0.5
"""Share of the images that must keep their cluster through a view: 0.93 and more on the sets of `benchmarks/quality.py`."""
RETURN = 0.8
"""Share of drawings that must be sorted into the cluster they were drawn from: one in five that is not shows in every row of pictures."""
BORDERS = 0.6
"""Of clusters told by the images' borders alone (`borders`), from which on they may be backgrounds: 0.83 and more where grounds were sorted
(`benchmarks/photographs.py`), 0.4 of the classes of 8 x 8 digits, less of others (`benchmarks/symmetry.py`)."""
FEW_PAIRS = 3
"""Pairs of clusters that may be one, named one by one."""
CERTAIN = 0.5
"""Mean confidence below which clusters are not separated."""
FEW_STEPS = 500
"""Steps below which bad clusters say little about the images: the shortest run by default takes a thousand."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` and the terminal say of a finished run."""

    status: Literal["healthy", "degenerate"]
    reasons: tuple[str, ...] = ()
    """Why it is degenerate, and what to do."""
    notes: tuple[str, ...] = ()
    """What a healthy run's user should look at: clusters that may be one, or two."""


class Alarm(NamedTuple):
    """What is wrong while training."""

    kind: Literal["one class", "dead"]
    clusters: list[int]


def watch(shares: NDArray[np.float64], *, unequal: bool = False) -> Alarm | None:
    """Collapse in running cluster shares (K,), if any; where they may be `unequal`, one with nearly all is none while others live."""
    if len(shares) < 2:
        return None
    dead = np.flatnonzero(shares < DEAD / len(shares)).tolist()
    if shares.max() > ONE_CLASS and (not unequal or len(dead) == len(shares) - 1):
        return Alarm("one class", [int(shares.argmax())])
    return Alarm("dead", dead) if dead else None


def verdict(
    state: Health,
    joints: Joints | None = None,
    *,
    unequal: bool = False,
    chosen: bool = False,
    steps: int | None = None,
    returned: float = 1.0,
    by_borders: float = 0.0,
    by_outlines: bool = False,
) -> Verdict:
    """Judge final clusters.

    Parameters
    ----------
    state : Health
    joints : Joints, optional
        Where views were used: shows merged and split clusters.
    unequal : bool
        Clusters were allowed to be of unequal size.
    chosen : bool
        K was not given but chosen from the images.
    steps : int, optional
        That the network was trained for.
    returned : float
        Share of drawings that are sorted into the cluster they were drawn from.
    by_borders : float
        How much of the clusters the images' borders alone tell.
    by_outlines : bool
        Views left nothing but outlines to sort by.
    """
    shares = np.array(state.shares)
    K = len(shares)
    short = ""
    if steps is not None and steps < FEW_STEPS:
        short = f"trained for {counted(steps, 'step')} only, where a thousand are usual: leave out --epochs"
    if K == 1:
        kinds = "if there are kinds to tell apart, give -k or train longer" if chosen else "-k 1 asked for no more"
        notes = f"everything is in one cluster: nothing was separated; {kinds}", *([short] if short else [])
        return Verdict(status="healthy", notes=notes)
    reasons, notes = [], []
    alarm = watch(shares, unequal=unequal)
    if alarm and alarm.kind == "one class":
        reasons.append(f"cluster {alarm.clusters[0]} holds {shares.max():.0%} of the images: another --seed or --augment may separate them")
    elif alarm:
        reasons.append(f"{said_of(alarm.clusters, 'is', 'are')} nearly empty: fewer clusters (-k {K - len(alarm.clusters)}) may fit better")
    if state.mean_confidence < CERTAIN:
        reasons.append(f"assignments are uncertain (mean confidence {state.mean_confidence:.2f}): clusters are not separated")
    collapsed = alarm is not None and alarm.kind == "one class"  # what is in one cluster has no other to go to
    if joints is not None and not collapsed and joints.kept < KEEPS:
        reasons.append(
            f"only {joints.kept:.0%} of the images keep their cluster when they are slightly moved or changed: clusters follow accidents;"
            " fewer clusters (-k), more images or another --augment may help"
        )
    if short and reasons:
        reasons = [short, *reasons]
    elif short:
        notes.append(short)
    if joints is not None and not reasons:
        merged, split = merged_clusters(joints), split_clusters(joints.clusters)
        if merged:
            notes.append(
                f"{said_of(merged, 'holds', 'hold')} two groups that are further apart than the"
                " nearest clusters: more clusters may fit better"
            )
        if not unequal and len(joints.overclusters) and unequal_is_clearer(joints, K):
            notes.append("groups of unequal size hold together better than these: if some kinds of image are rare, try --sizes unequal")
        if len(split) > FEW_PAIRS:
            notes.append(
                f"{len(split)} pairs of clusters exchange views, {split[0][0]} and {split[0][1]} among them: try fewer clusters (-k)"
            )
        else:
            notes += [f"clusters {i} and {j} exchange views: they may be one" for i, j in split]
    if not reasons and returned < RETURN:
        notes.append(f"only {returned:.0%} of the images drawn from a cluster are sorted into it: do not rely on what drawings show")
    if not reasons and by_borders >= BORDERS:
        otherwise = "Crop" if by_outlines else "If outlines tell the kinds apart, try --colours ignore; else crop"
        notes.insert(
            0,
            f"the images' borders alone tell {by_borders:.0%} of their clusters: these may be backgrounds; look at the cards of the report."
            f" {otherwise} to the things, or put them on one plain background",
        )
    return Verdict(status="degenerate" if reasons else "healthy", reasons=tuple(reasons), notes=tuple(notes))


def split_clusters(joint: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of clusters that are hardly apart."""
    K, apart = len(joint), separations(joint)
    return [(i, j) for i in range(K) for j in range(i + 1, K) if joint[i, j] > 0 and apart[i, j] < TOGETHER]


def merged_clusters(joints: Joints) -> list[int]:
    """Clusters whose halves, each of `HALF` of an equal share or more, are further apart than the two nearest clusters."""
    K = len(joints.clusters)
    if K < 2 or not len(joints.overclusters):
        return []
    inside = inner_separations(joints.overclusters, joints.shared.argmax(1), K, HALF / K)
    return np.flatnonzero(inside > separations(joints.clusters).min() + MORE).tolist()


def said_of(clusters: list[int], one: str, several: str) -> str:
    """``cluster 3 is`` or ``clusters 3, 4 are``."""
    return f"cluster {clusters[0]} {one}" if len(clusters) == 1 else f"clusters {', '.join(map(str, clusters))} {several}"
