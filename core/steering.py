"""What happens to the clusters between steps: merges of over-clusters, the choice of K, the collapse guard, the classes of given labels.

Everything is a function of the weights, the position and (seed, step), so a resumed run repeats it exactly.
"""

import numpy as np
import torch

from .checkpoint import Event, Position
from .config import TrainConfig
from .grouping import sizes_and_number
from .guard import said_of, watch
from .head_surgery import Trained, reseed, split_into, take_merge, with_clusters
from .joints import Joints, Sample, estimate_joints
from .labelled import LabelledImages, clusters_of_classes
from .merging import agreement, align, merge
from .objective import Taught
from .views import ViewPolicy

GAIN = 0.005
"""Nats by which neighbours must agree more with a later merge than with the one before for it to be taken."""
MEMORY = 0.95
"""Of the running cluster shares, per step: about the last 20 batches."""
GUARD_EVERY = 50
"""Steps between two looks at the cluster shares."""
PATIENCE = 200
"""Steps that clusters are given to form before the guard acts: from the start, and after each act."""
GUARD_ACTS = 5
"""Acts of the guard in one run; a model that keeps collapsing is reported instead."""


class Steering:
    """Changes a network's clusters while it trains.

    Parameters
    ----------
    config : TrainConfig
    steps : int
        Of the whole run.
    sample : Sample
        The images that decisions are read from.
    policy : ViewPolicy
    labelled : LabelledImages, optional
        A few images whose class is known.
    """

    def __init__(self, config: TrainConfig, steps: int, sample: Sample, policy: ViewPolicy, labelled: LabelledImages | None):
        self.config, self.sample, self.policy, self.labelled = config, sample, policy, labelled
        self.device = sample.images.device
        self.merge_steps = sorted({min(steps - 1, round(share * steps)) for share in config.regroup}) if config.merges else []

    def decides(self, step: int, position: Position) -> bool:
        """Whether what happens before `step` is read from images, which machines may round otherwise."""
        return step in self.merge_steps or self._names(step, position)

    def _names(self, step: int, position: Position) -> bool:
        """Whether the clusters of given classes are looked for."""
        return self.labelled is not None and not position.class_clusters and step >= (self.merge_steps or [0])[0]

    def before(self, step: int, trained: Trained, position: Position) -> Trained:
        """What is due before `step`; the same network, or a new one with the chosen K."""
        if step in self.merge_steps:
            trained = self._merge(step, trained, position)
        elif self.config.guard and step % GUARD_EVERY == 0:
            self._guard(step, trained, position)
        if self.labelled is not None and self._names(step, position):
            position.class_clusters = clusters_of_classes(trained.model, self.labelled)
        return trained

    def taught(self, trained: Trained, position: Position) -> Taught | None:
        """The merge that clusters are taught, if there was one."""
        if not position.group:
            return None
        member = torch.eye(trained.model.spec.clusters, device=self.device)[position.group]
        return Taught(member, alone=position.unequal)

    def observe(self, shares: list[float], position: Position) -> None:
        """Keep running shares of the clusters from those in a batch."""
        before = position.shares if len(position.shares) == len(shares) else shares
        position.shares = [MEMORY * old + (1 - MEMORY) * new for old, new in zip(before, shares, strict=True)]

    def _merge(self, step: int, trained: Trained, position: Position) -> Trained:
        """Merge over-clusters into K, which replace the clusters; at the first merge of ``clusters=auto``, choose K and prune."""
        joints = estimate_joints(trained.model, self.sample, self.policy)
        clusters = trained.model.spec.clusters
        if step == self.merge_steps[0]:
            clusters = self._first_look(step, joints, position)
        group = merge(joints, clusters, unequal=position.unequal)
        last = np.array(position.group)
        if len(last) and not position.unequal and agreement(joints, group, clusters) < agreement(joints, last, clusters) + GAIN:
            return trained  # neighbours hardly prefer it to the last merge: clusters stay as they are
        if clusters == trained.model.spec.clusters:
            rows = torch.from_numpy(align(group, joints.shared)).to(self.device)
            take_merge(trained, rows)
        else:
            rows = torch.from_numpy(group).to(self.device)
            trained = with_clusters(trained, rows, clusters, self.config.learning_rate)
        position.clusters = clusters
        position.group, position.class_clusters = rows.tolist(), []
        position.guard_from = step + PATIENCE
        return trained

    def _first_look(self, step: int, joints: Joints, position: Position) -> int:
        """K, chosen where it is to be; and whether clusters may be of unequal size, decided where it is to be."""
        position.unequal, clusters = sizes_and_number(joints, self.config)
        if self.config.sizes == "auto" and position.unequal:
            what = "groups of unequal size clearly hold together better than equal ones: clusters may be of any size (else: --sizes equal)"
            position.events.append(Event(step=step, what=what))
        if self.config.choose_clusters:
            position.events.append(Event(step=step, what=f"K = {clusters} chosen of at most {self.config.most_clusters}"))
        return clusters

    def _guard(self, step: int, trained: Trained, position: Position) -> None:
        """Act on clusters that collapsed; see `guard`."""
        undecided = self.config.choose_clusters and step <= self.merge_steps[0]
        if step < max(PATIENCE, position.guard_from) or undecided or position.guard_acts >= GUARD_ACTS or not position.shares:
            return
        alarm = watch(np.array(position.shares), unequal=position.unequal and bool(position.group))
        if alarm is None:
            return
        if alarm.kind == "one class":
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
        position.guard_from, position.shares = step + PATIENCE, []
