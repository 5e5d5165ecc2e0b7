"""The verdict on a finished run, without labels: reasons why its clusters are degenerate, notes on what to look at where they are healthy.

    one cluster  it holds nearly every image, and clusters were not allowed to be that unequal        degenerate
    dead         a cluster is nearly empty                                                             degenerate
    uncertain    confidence is less than 45 % of the way from even to certain                          degenerate
    accidental   how many images keep their cluster through a view is so between chance and all        degenerate
    backgrounds  the images' borders alone predict the clusters                                        note
    merged       the halves of a cluster are further apart than the two nearest clusters               note
    split        two clusters exchange views as one cluster would                                      note

How far apart clusters are is measured in `separation`.
"""

from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from catvae.runtime.wording import counted

from ..clusters.grouping import unequal_is_clearer
from ..clusters.guard import said_of, watch
from ..clusters.joints import Joints
from ..clusters.metrics import Health
from ..clusters.separation import inner_separations, separations

LEAST_HALF = 0.3
"""Part of an equal share that each half of a merged cluster must hold."""
FURTHER = 0.02
"""By how much the halves of a merged cluster are further apart than the nearest clusters."""
TOGETHER = 0.6
"""Separation below which two clusters may be one thing."""
LEAST_VIEW_AGREEMENT = 0.45
"""How often images must keep their cluster through a view, beyond chance (Cohen's kappa): 0.9 and more on the sets of
`benchmarks/quality.py`. Of ten equal clusters a half of the images is 0.44."""
LEAST_RETURN = 0.8
"""Share of drawings that must be sorted into the cluster they were drawn from: one in five that is not shows in every row of pictures."""
BORDERS = 0.6
"""How well the images' borders may predict the clusters, see `borders`, before these may be backgrounds: 0.83 and more where backgrounds
were sorted (`benchmarks/photographs.py`), 0.4 for the classes of 8 x 8 digits, less for others (`benchmarks/symmetry.py`)."""
FEW_PAIRS = 3
"""Up to so many pairs of clusters that may be one are named one by one."""
LEAST_CONFIDENCE = 0.45
"""Mean confidence, beyond the 1 / K of even assignments, below which clusters are not separated; of ten clusters 0.5 is 0.44."""
FEW_STEPS = 500
"""Steps below which bad clusters say little about the images: the shortest run by default takes a thousand."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` and the terminal say of a finished run."""

    status: Literal["healthy", "degenerate"]
    reasons: tuple[str, ...] = ()
    """Why it is degenerate, and what to do."""
    notes: tuple[str, ...] = ()
    """What the user of a healthy run should look at: clusters that may be one, or two."""


class Evidence(NamedTuple):
    """What a verdict is based on."""

    health: Health
    joints: Joints | None = None
    """Where views were used: they show merged and split clusters."""
    unequal: bool = False
    """Whether clusters were allowed to be of unequal size."""
    chosen: bool = False
    """Whether K was chosen from the images, not given."""
    steps: int | None = None
    """Steps that the network was trained for, where that is known."""
    returned: float = 1.0
    """Share of drawings that are sorted into the cluster they were drawn from."""
    by_borders: float = 0.0
    """How well the images' borders predict their clusters, see `borders.predicted_by_borders`."""
    may_ignore_colours: bool = True
    """Whether ``--colours ignore`` is left to be tried."""
    merges: bool = True
    """Whether over-clusters were merged, by equal or unequal groups."""


def verdict(seen: Evidence) -> Verdict:
    """Judge the clusters of a finished run."""
    short = []
    if seen.steps is not None and seen.steps < FEW_STEPS:
        short = [f"trained for {counted(seen.steps, 'step')} only, where a thousand are usual: leave out --epochs, or raise it"]
    if len(seen.health.shares) == 1:
        kinds = "if there are kinds to tell apart, give -k or train longer" if seen.chosen else "-k 1 asked for no more"
        notes = (f"everything is in one cluster: nothing was separated; {kinds}", *short)
        return Verdict(status="healthy", notes=notes)
    if reasons := _reasons(seen):
        return Verdict(status="degenerate", reasons=(*short, *reasons))
    return Verdict(status="healthy", notes=(*_note_on_borders(seen), *short, *_notes_on_clusters(seen), *_note_on_drawings(seen)))


def _reasons(seen: Evidence) -> list[str]:
    """Why clusters are degenerate; none where they are sound."""
    shares = np.array(seen.health.shares)
    alarm = watch(shares, unequal=seen.unequal)
    collapsed = alarm is not None and alarm.kind == "one cluster"
    reasons = []
    if alarm and collapsed:
        another = "another --seed" if seen.joints is None else "another --seed or --augment"
        reasons.append(f"cluster {alarm.clusters[0]} holds {shares.max():.0%} of the images: {another} may separate them")
    elif alarm:
        fewer = len(shares) - len(alarm.clusters)
        reasons.append(f"{said_of(alarm.clusters, 'is', 'are')} nearly empty: fewer clusters (-k {fewer}) may fit better")
    confidence = seen.health.mean_confidence
    if _beyond(confidence, 1 / len(shares)) < LEAST_CONFIDENCE:
        chance = f"{1 / len(shares):.2f} where nothing is known"
        reasons.append(f"assignments are uncertain (mean confidence {confidence:.2f}, {chance}): clusters are not separated")
    # Of a collapsed model it says nothing: what is in one cluster has no other to go to.
    by_chance = float((shares**2).sum())
    if seen.joints is not None and not collapsed and _beyond(seen.joints.view_agreement, by_chance) < LEAST_VIEW_AGREEMENT:
        reasons.append(
            f"only {seen.joints.view_agreement:.0%} of the images keep their cluster when they are slightly moved or changed,"
            f" {by_chance:.0%} would by chance: clusters follow accidents; fewer clusters (-k), more images or another --augment may help"
        )
    return reasons


def _beyond(share: float, chance: float) -> float:
    """A share, rescaled so that 0 is what chance gives and 1 is all."""
    return (share - chance) / (1 - chance) if chance < 1 else 1.0


def _note_on_borders(seen: Evidence) -> list[str]:
    if seen.by_borders < BORDERS:
        return []
    otherwise = "If outlines tell the kinds apart, try --colours ignore; else crop" if seen.may_ignore_colours else "Crop"
    return [
        f"the images' borders alone tell {seen.by_borders:.0%} of their clusters: these may be backgrounds;"
        f" look at the cards of the report. {otherwise} to the things, or put them on one plain background"
    ]


def _notes_on_clusters(seen: Evidence) -> list[str]:
    """On clusters that may be two, or one, or of the wrong sizes."""
    if seen.joints is None:
        return []
    notes = []
    merged, split = merged_clusters(seen.joints), split_clusters(seen.joints.clusters)
    if merged:
        two_groups = "two groups that are further apart than the nearest clusters: more clusters may fit better"
        notes.append(f"{said_of(merged, 'holds', 'hold')} {two_groups}")
    if seen.merges and not seen.unequal and unequal_is_clearer(seen.joints, len(seen.health.shares)):
        notes.append("groups of unequal size hold together better than these: if some kinds of image are rare, try --sizes unequal")
    if len(split) > FEW_PAIRS:
        first, second = split[0]
        notes.append(f"{len(split)} pairs of clusters exchange views, {first} and {second} among them: try fewer clusters (-k)")
    else:
        notes += [f"clusters {i} and {j} exchange views: they may be one; look at both before merging them" for i, j in split]
    return notes


def _note_on_drawings(seen: Evidence) -> list[str]:
    if seen.returned >= LEAST_RETURN:
        return []
    return [f"only {seen.returned:.0%} of the images drawn from a cluster are sorted into it: do not rely on what drawings show"]


def split_clusters(joint: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of clusters that are hardly apart, by their joint distribution (K, K)."""
    K, apart = len(joint), separations(joint)
    return [(i, j) for i in range(K) for j in range(i + 1, K) if joint[i, j] > 0 and apart[i, j] < TOGETHER]


def merged_clusters(joints: Joints) -> list[int]:
    """Clusters with two halves, each of `LEAST_HALF` of an equal share or more, further apart than the two nearest clusters."""
    K = len(joints.clusters)
    if K < 2 or not len(joints.overclusters):
        return []
    inside = inner_separations(joints.overclusters, joints.shared.argmax(1), K, LEAST_HALF / K)
    return np.flatnonzero(inside > separations(joints.clusters).min() + FURTHER).tolist()
