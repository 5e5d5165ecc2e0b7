"""Ingredients that were tried and are no part of the recipe, each as a trainer that differs from ours in one thing.

They live here and not in `core`, since none earned its place: `python -m benchmarks.ablations` reads them beside the recipe. Left out:
whatever is a setting of `catvae-train` already.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnF
from sklearn.cluster import SpectralClustering
from torch import Tensor, nn

from catvae.core.clusters.joints import CROWD, averaged, nearest
from catvae.core.images.pieces import to_float
from catvae.core.images.views import random_view
from catvae.core.runs import session
from catvae.core.training import steps
from catvae.core.training.trainer import Trainer
from catvae.core.vae import objective
from catvae.core.vae.model import CatVAE
from catvae.core.vae.networks import ConvEncoder
from catvae.core.vae.objective import BatchLoss
from catvae.core.vae.view_information import view_information

LOOKS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Shares of the steps at which nearest neighbours are looked for."""
FADE = 0.4
"""Share of the steps over which what only helps to begin fades away: up to the first merge of over-clusters."""


class Plain(Trainer):
    """Ours, with the places where the others differ: the second view of a batch, what is added to its loss, what happens after a step."""

    rows: Tensor
    """Of the images in the present batch."""

    def second_view(self, x: Tensor) -> Tensor:
        return random_view(x, self.policy)

    def added(self, x: Tensor, loss: BatchLoss) -> Tensor | float:
        return 0.0

    def after_step(self) -> None:
        pass

    @property
    def gone(self) -> float:
        """Share of the steps that are done."""
        return self.position.step / self.steps

    def step(self) -> BatchLoss:
        with _replaced(objective, "random_view", self._view), _replaced(steps, "batch_loss", self._loss_with_added):
            loss = super().step()
        self.after_step()
        return loss

    def _view(self, x: Tensor, policy: Any) -> Tensor:
        return self.second_view(x) if x is self._x else random_view(x, policy)

    def batch(self, step: int) -> Tensor:
        self.rows, self._x = self.batches.rows_at(step, self._seed(self.position.start)), super().batch(step)
        return self._x

    def _loss_with_added(self, model: CatVAE, x: Tensor, *arguments: Any, **options: Any) -> BatchLoss:
        loss = _batch_loss(model, x, *arguments, **options)
        return loss._replace(total=loss.total + self.added(x, loss))


class AveragedWeights(Plain):
    """The result is an exponential average of the weights over about the last hundred steps (EMA)."""

    average: nn.Module | None = None

    def after_step(self) -> None:
        if self.average is None or [p.shape for p in self.average.parameters()] != [p.shape for p in self.model.parameters()]:
            self.average = copy.deepcopy(self.model)
        with torch.no_grad():
            for old, new in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                old.lerp_(new, 0.01) if old.is_floating_point() else old.copy_(new)
        if self.finished:
            self.model.load_state_dict(self.average.state_dict())


class Adversarial(Plain):
    """The second view is the image, changed where that changes its clusters most (VAT, arXiv 1704.03976; IMSAT, arXiv 1702.08720)."""

    reach: Tensor | None = None
    """(N, 1, 1, 1) a quarter of the distance to the tenth neighbour, as IMSAT has it."""

    def second_view(self, x: Tensor) -> Tensor:
        if self.reach is None:
            flat = to_float(self.batches.images).flatten(1)
            tenth = nearest(flat, 10)[:, -1]
            self.reach = 0.25 * (flat - flat[tenth]).norm(dim=1).view(-1, 1, 1, 1)
        model = self.model
        with torch.no_grad():
            expected = model.encode(x).logits.softmax(-1)
        step = _unit(torch.randn_like(x)).requires_grad_()
        with objective.frozen_statistics(model):
            found = model.encode(x + 0.1 * step).logits.log_softmax(-1)
        (worst,) = torch.autograd.grad(nnF.kl_div(found, expected, reduction="batchmean"), step)
        return (x + self.reach[self.rows] * _unit(worst)).clamp(0, 1)


class Neighbours(Plain):
    """The second view of every other image is a view of one of its five nearest by pixels, later in the hidden layer (SCAN, 2005.12320)."""

    neighbours: Tensor | None = None
    looks = 0

    def second_view(self, x: Tensor) -> Tensor:
        if self.looks < sum(self.gone >= part for part in LOOKS):
            self.looks += 1
            self.neighbours = self._look(in_hidden_layer=self.looks > 1)
        assert self.neighbours is not None
        near = self.neighbours[self.rows, torch.randint(self.neighbours.shape[1], (len(x),))]
        other = torch.rand(len(x)) < 0.5
        mixed = torch.where(other.view(-1, 1, 1, 1), to_float(self.batches.images[near]), x)
        return random_view(mixed, self.policy)

    @torch.no_grad()
    def _look(self, *, in_hidden_layer: bool) -> Tensor:
        """(N, 5): of each image, among the images of its block, `CROWD` drawn at random."""
        self.model.eval()
        parts = [to_float(part) for part in self.batches.images.split(1024)]
        features = torch.cat([self.model.encoder(x).float() if in_hidden_layer else averaged(x) for x in parts])
        self.model.train()
        features = features - features.mean(0)
        found = torch.empty((len(features), 5), dtype=torch.int64)
        for block in torch.randperm(len(features)).tensor_split(-(-len(features) // CROWD)):
            found[block] = block[nearest(features[block], 5)]
        return found


class WarmedByGraph(Plain):
    """Clusters are trained on a spectral partition of the graph of nearest neighbours by pixels at first; that fades by the first merge."""

    partition: Tensor | None = None

    def added(self, x: Tensor, loss: BatchLoss) -> Tensor | float:
        weight = 20 * max(0.0, 1 - self.gone / FADE)
        if not weight:
            return 0.0
        if self.partition is None:
            flat = to_float(self.batches.images).flatten(1).numpy()
            clusters = SpectralClustering(self.model.spec.clusters, affinity="nearest_neighbors", n_neighbors=20, random_state=0)
            self.partition = torch.from_numpy(clusters.fit_predict(flat).astype(np.int64))
        with objective.frozen_statistics(self.model):
            logits = self.model.cluster_logits(x)
        return weight * nnF.cross_entropy(logits, self.partition[self.rows], label_smoothing=0.1)


class PriorRamp(Plain):
    """The divergence from the prior counts more and more over the first fifth of the generator's steps."""

    def added(self, x: Tensor, loss: BatchLoss) -> Tensor | float:
        done = (self.gone - self.config.warm_start) / (0.2 * (1 - self.config.warm_start))
        return (done - 1) * loss.terms.kl if 0 <= done < 1 else 0.0


class SoftReset(Plain):
    """Every tenth of the steps a fifth of the encoder's weights is drawn anew (BRB's soft reset of weights), until clusters are trained on
    a merge."""

    def after_step(self) -> None:
        every = max(1, self.steps // 10)
        if self.position.step % every or self.gone >= FADE:
            return
        spec = self.model.spec
        fresh = ConvEncoder((spec.channels, spec.height, spec.width), spec.hidden, spec.tone)
        with torch.no_grad():
            for old, new in zip(self.model.encoder.parameters(), fresh.parameters(), strict=True):
                if old.ndim > 1:
                    old.lerp_(new, 0.2)


class SeveralHeads(Plain):
    """Five K-way heads on one trunk, of which the one that shares most with views takes the clusters' place at the first merge's step."""

    heads: nn.ModuleList | None = None
    sums: Tensor

    def added(self, x: Tensor, loss: BatchLoss) -> Tensor | float:
        if self.gone >= FADE:
            return 0.0
        encoder = self.model.encoder
        if self.heads is None or self.encoder is not encoder:
            self.encoder, self.sums = encoder, torch.zeros(5)
            self.heads = nn.ModuleList(nn.Linear(self.model.spec.hidden, self.model.spec.clusters) for _ in range(5))
            self.own = torch.optim.Adam(self.heads.parameters(), self.config.learning_rate)
        self.own.zero_grad()
        with objective.frozen_statistics(self.model):
            hidden = encoder(torch.cat([x, random_view(x, self.policy)]))
        halves = [head(hidden).chunk(2) for head in self.heads]
        shared = [view_information(logits, logits_of_view, self.config.marginal_weight) for logits, logits_of_view in halves]
        self.sums = 0.95 * self.sums + 0.05 * torch.stack([each.information.detach() for each in shared])
        return -self.config.invariance_weight * torch.stack([each.trained for each in shared]).mean()

    def after_step(self) -> None:
        if self.heads is None or self.gone >= FADE:
            return
        self.own.step()
        if self.position.step == round(FADE * self.steps) - 1:
            best, rows = self.heads[int(self.sums.argmax())], self.model.head_rows[0]
            assert isinstance(best, nn.Linear)
            self.model.head.weight.data[rows], self.model.head.bias.data[rows] = best.weight.data, best.bias.data


TRIED: dict[str, type[Plain]] = {
    "averaged weights (EMA)": AveragedWeights,
    "second views: adversarial (VAT)": Adversarial,
    "second views: neighbours": Neighbours,
    "warm start from a graph of neighbours": WarmedByGraph,
    "divergence ramped up": PriorRamp,
    "soft resets of the encoder": SoftReset,
    "five K-way heads instead of merges": SeveralHeads,
}


@contextmanager
def in_place(trainer: type[Plain] | None) -> Iterator[None]:
    """Runs that are started inside train with `trainer`."""
    with _replaced(session, "Trainer", trainer or Trainer):
        yield


_batch_loss = steps.batch_loss


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _unit(x: Tensor) -> Tensor:
    return nnF.normalize(x.flatten(1), dim=1).view_as(x)
