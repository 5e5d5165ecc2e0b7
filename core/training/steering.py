"""What is done to the clusters between steps: merges of over-clusters, the choice of K, the collapse guard, naming after given labels.

Everything is a function of the weights, the position and (seed, step), so that a resumed run repeats it exactly.
"""

import numpy as np
import torch

from ..clusters.grouping import sizes_and_number
from ..clusters.guard import said_of, watch
from ..clusters.head_surgery import Trained, reseed, split_into, take_merge, with_clusters
from ..clusters.joints import Joints, Sample, estimate_joints
from ..clusters.merging import align, merge, neighbour_information
from ..config import TrainConfig
from ..images.views import ViewPolicy
from ..vae.objective import MergeTarget
from .checkpoint import Event, Position
from .labelled import LabelledImages, clusters_of_classes

GAIN = 0.005
"""Nats of `neighbour_information` by which a later merge must exceed the one before to replace it."""
MEMORY = 0.95
"""Weight of the past in the running cluster shares: they remember about the last 20 batches."""
GUARD_EVERY = 50
"""Steps between two looks of the guard at the cluster shares."""
GUARD_PATIENCE = 200
"""Steps that clusters are given to form before the guard acts: from the beginning, after a merge, and after each act."""
GUARD_ACTS = 5
"""The most acts of the guard in one run; a model that keeps collapsing is reported instead."""


class Steering:
    """Changes a network's clusters while it trains.

    Parameters
    ----------
    config : TrainConfig
    steps : int
        Length of the run.
    sample : Sample
        The images that decisions are read from.
    policy : ViewPolicy
        Makes the views that decisions are read from.
    labelled : LabelledImages, optional
        A few images whose class is known.
    """

    def __init__(self, config: TrainConfig, steps: int, sample: Sample, policy: ViewPolicy, labelled: LabelledImages | None):
        self.config, self.sample, self.policy, self.labelled = config, sample, policy, labelled
        self.device = sample.images.device
        self.merge_steps = sorted({min(steps - 1, round(share * steps)) for share in config.regroup}) if config.merges else []

    def before(self, step: int, trained: Trained, position: Position) -> tuple[Trained, bool]:
        """Do what is due before `step`.

        Returns
        -------
        Trained
            The network that goes on: the same one, or a new one with the chosen K.
        bool
            Whether anything was decided by looking at images or shares, which machines may round differently.
        """
        decided = False
        if step in self.merge_steps:
            trained, decided = self._merge(step, trained, position), True
        elif self.config.guard and step % GUARD_EVERY == 0:
            decided = self._guard(step, trained, position)
        if self.labelled is not None and not position.class_clusters and step >= (self.merge_steps or [0])[0]:
            position.class_clusters, decided = clusters_of_classes(trained.model, self.labelled), True
        return trained, decided

    def merge_target(self, trained: Trained, position: Position) -> MergeTarget | None:
        """The last merge as a target for the clusters, if there was one."""
        if not position.group:
            return None
        membership = torch.eye(trained.model.spec.clusters, device=self.device)[position.group]
        return MergeTarget(membership, replaces_information=position.unequal)

    def observe(self, shares: list[float], position: Position) -> None:
        """Update the running shares of the clusters with those in a batch, (K,)."""
        before = position.shares if len(position.shares) == len(shares) else shares
        position.shares = [MEMORY * old + (1 - MEMORY) * new for old, new in zip(before, shares, strict=True)]

    def _merge(self, step: int, trained: Trained, position: Position) -> Trained:
        """Merge the over-clusters into K groups, which replace the clusters; at the first merge, decide what is still open before."""
        joints = estimate_joints(trained.model, self.sample, self.policy)
        clusters = trained.model.spec.clusters
        if step == self.merge_steps[0]:
            clusters = self._decide_sizes_and_number(step, joints, position)
        group = merge(joints, clusters, unequal=position.unequal)
        last = np.array(position.group)
        if (
            len(last)
            and not position.unequal
            and neighbour_information(joints, group, clusters) < neighbour_information(joints, last, clusters) + GAIN
        ):
            return trained  # hardly better than the last merge: clusters stay as they are
        if clusters == trained.model.spec.clusters:
            rows = torch.from_numpy(align(group, joints.shared)).to(self.device)
            take_merge(trained, rows)
        else:
            rows = torch.from_numpy(group).to(self.device)
            trained = with_clusters(trained, rows, clusters, self.config.learning_rate)
        position.clusters = clusters
        position.group, position.class_clusters = rows.tolist(), []
        position.guard_from = step + GUARD_PATIENCE
        return trained

    def _decide_sizes_and_number(self, step: int, joints: Joints, position: Position) -> int:
        """Decide, where the configuration leaves it open, whether clusters may be of unequal size, and K, which is returned."""
        position.unequal, clusters = sizes_and_number(joints, self.config)
        if self.config.sizes == "auto" and position.unequal:
            what = "groups of unequal size clearly hold together better than equal ones: clusters may be of any size (else: --sizes equal)"
            position.events.append(Event(step=step, what=what))
        if self.config.chooses_clusters:
            position.events.append(Event(step=step, what=f"K = {clusters} chosen of at most {self.config.most_clusters}"))
        return clusters

    def _guard(self, step: int, trained: Trained, position: Position) -> bool:
        """Act on clusters that collapsed, see `guard`; returns whether it did."""
        undecided = self.config.chooses_clusters and step <= self.merge_steps[0]
        if step < max(GUARD_PATIENCE, position.guard_from) or undecided or position.guard_acts >= GUARD_ACTS or not position.shares:
            return False
        alarm = watch(np.array(position.shares), unequal=position.unequal and bool(position.group))
        if alarm is None:
            return False
        if alarm.kind == "one cluster":
            reseed(trained)
            position.rewarm, position.group = step, []
            what = f"cluster {alarm.clusters[0]} held nearly every image: cluster outputs drawn anew, learning rate warmed up again"
        elif position.group:
            take_merge(trained, torch.tensor(position.group, device=self.device))
            what = f"{said_of(alarm.clusters, 'was', 'were')} empty: taken back to their merge"
        else:
            split_into(trained, int(np.argmax(position.shares)), alarm.clusters)
            what = f"{said_of(alarm.clusters, 'was', 'were')} empty: given a part of the largest"
        position.events.append(Event(step=step, what=what))
        position.guard_acts += 1
        position.guard_from, position.shares = step + GUARD_PATIENCE, []
        return True
