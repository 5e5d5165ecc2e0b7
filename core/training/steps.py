"""The state of a run (network, optimiser, position) and the training step that changes it.

The order of epoch e is a permutation drawn from (seed, e), see `batches`; the noise of step s is drawn from (seed, s). The position is
therefore all the random state there is, and on the CPU a resumed run equals an uninterrupted one bit for bit. What is done to the clusters
between steps is in `steering`, the loop over steps in `trainer`.
"""

import math
import time

import msgspec
import torch
from safetensors.torch import load
from torch import Tensor

from catvae.runtime.errors import NumericError

from ..clusters import starts
from ..clusters.head_surgery import Trained
from ..clusters.joints import PAIRS
from ..config import TrainConfig
from ..images.data import ImageData
from ..images.held_back import split
from ..images.views import choose_policy
from ..machine.devices import mix, resolve_device, resolve_precision, seed_noise, seeded
from ..machine.ranks import ALONE, Ranks
from ..vae.model import CatVAE, ModelSpec
from ..vae.objective import BatchLoss, ViewTerms, batch_loss
from .batches import Batches
from .checkpoint import SCHEMA, Position, fill_state, state_bytes
from .epoch_rows import add_step, close_epoch, summary
from .feasible import trainable
from .labelled import LabelledImages, labelled_batch, labels_hash
from .steering import Steering

WARMUP_STEPS = 100
"""Steps over which the learning rate rises."""
LAST_RATE = 0.01
"""Share of the learning rate that the cosine ends on."""
SYMMETRIC = 0.5
"""Share of a start over which the joint distribution of views is symmetrised, see `view_information`. Never symmetrised, kinds that views
rotate all round were hardly found (`benchmarks/order.py`)."""
BAD_STEPS = 5
"""Consecutive steps without finite numbers before training gives up."""
CLIP = 1000.0
"""Largest gradient norm: ordinary steps stay below 300, a diverging one is scaled down."""


class Steps:
    """One run: network, optimiser and position.

    Parameters
    ----------
    data : ImageData
        Only its images are read.
    config : TrainConfig
    labelled : LabelledImages, optional
        A few images whose class is known.
    ranks : Ranks
        The processes that train together; all follow what the first one decides about clusters.

    Raises
    ------
    UsageError, DeviceError
        See `trainable`.
    """

    def __init__(self, data: ImageData, config: TrainConfig, labelled: LabelledImages | None = None, ranks: Ranks = ALONE):
        count = len(split(len(data.images)).trained)
        self.config = config = trainable(config, count, labelled, ranks)
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        self.policy = choose_policy(config.augment, data.images, config.colours)
        self.ranks = ranks
        self.batches = Batches(data.images, config.batch_size, self.device, ranks)
        self.steps_per_epoch = self.batches.per_epoch
        self.epochs = config.epochs_for(self.steps_per_epoch, self.policy.least_steps)
        self.steps = self.epochs * self.steps_per_epoch
        self.spec = ModelSpec.of(config, data.preprocess.shape)
        self.starts = starts.count_starts(config)
        self.start_steps = max(1, round(starts.share(config) * self.steps)) if self.starts > 1 else 0
        self.symmetric_steps = round(SYMMETRIC * starts.share(config) * self.steps)
        self.labelled = labelled
        self.sample = self.batches.spread(PAIRS)
        """The images that decisions about clusters are read from."""
        self.steering = Steering(config, self.steps, self.sample, self.policy, labelled)
        self.warm_steps = round(config.warm_start * self.steps) if config.invariance_weight else 0
        if config.chooses_clusters:
            self.warm_steps = max(self.warm_steps, self.steering.merge_steps[0])  # the generator waits until K is known
        self.consistent = True
        """Whether weights, moments and position belong together: not in the middle of a step."""
        self._given = ""
        """What all ranks must have been given alike; left out for a single one, since it reads all images once more."""
        if ranks.count > 1:
            self._given = repr((data.hash, labels_hash(labelled), config, self.precision))
        self.begin(0)

    def begin(self, start: int, seconds: float = 0.0) -> None:
        """Fresh weights, moments and position of one start; `seconds` is the training time so far."""
        self._build(self.spec, start)
        self.position = Position(schema=SCHEMA, start=start, clusters=self.spec.clusters, seconds=seconds)
        self.consistent = True

    def _build(self, spec: ModelSpec, start: int) -> None:
        # torch's generator takes 32 bits of a seed: without mixing, every start would have the weights of the first.
        with seeded(mix(self._seed(start), 0) if start else self.config.seed):
            model = CatVAE(spec)
        model = model.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.trained = Trained(model, torch.optim.Adam(model.parameters(), self.config.learning_rate, fused=True))

    def restore(self, position: Position) -> None:
        """Take a position, with a network of its K, whose weights and moments the caller loads."""
        self._build(msgspec.structs.replace(self.spec, clusters=position.clusters), position.start)
        self.position = position
        self.consistent = True

    @property
    def model(self) -> CatVAE:
        return self.trained.model

    def _seed(self, start: int) -> int:
        return self.config.seed + (start << 32)  # seeds stay below 2^31: no two runs share one

    def step(self) -> BatchLoss:
        """One optimiser step on the next batch; raises `NumericError` after `BAD_STEPS` in a row without finite numbers."""
        began = time.perf_counter()
        self.consistent = False
        self._decide()
        position, model, optimizer, weights = self.position, self.trained.model, self.trained.optimizer, self.trained.weights
        if not model.training:  # to set it in every layer takes longer than to run some of them
            model.train()
        for group in optimizer.param_groups:
            group["lr"] = self._rate(position.step)
        statistics = _statistics(model)
        before = [statistic.clone() for statistic in statistics]
        loss = self._loss(model, position)
        for weight in weights:
            weight.grad = None
        loss.total.backward()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        row, shares = summary(loss), loss.assignment.mean(0)
        self.ranks.average([*gradients, *statistics, row, shares])
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm) and math.isfinite(row[0].item()):
            position.bad_steps = 0
            if norm > CLIP:
                torch._foreach_mul_(gradients, CLIP / norm)  # pyright: ignore[reportPrivateImportUsage]
            optimizer.step()
            add_step(position, row.tolist())
            self.steering.observe(shares.tolist(), position)
        else:
            for statistic, good in zip(statistics, before, strict=True):  # what is not a number would stay in an average for good
                statistic.copy_(good)
            self._count_bad_step(position)
        position.step += 1
        position.seconds += time.perf_counter() - began
        epoch, left = divmod(position.step, self.steps_per_epoch)
        if not left:
            close_epoch(position, epoch)
        self.consistent = True
        return loss

    def _loss(self, model: CatVAE, position: Position) -> BatchLoss:
        """The objective on the next batch."""
        at = position.step
        views = ViewTerms(self.steering.merge_target(self.trained, position), symmetric=at < self.symmetric_steps)
        labelled = None
        if self.labelled is not None and self.config.label_weight and position.class_clusters:
            labelled = labelled_batch(self.labelled, position.class_clusters, self.policy, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return batch_loss(
                model,
                self.batch(at),
                self.config,
                self.policy,
                views=views,
                views_only=at < self.warm_steps,
                labelled=labelled,
                ranks=self.ranks,
            )

    def _count_bad_step(self, position: Position) -> None:
        position.bad_steps += 1
        if position.bad_steps >= BAD_STEPS:
            instead = " or use --precision fp32" if self.precision == "bf16" else ""
            raise NumericError(
                f"the loss was not a finite number for {BAD_STEPS} steps in a row (step {position.step}): lower --learning-rate{instead}"
            )

    def _decide(self) -> None:
        """What is due before the next step, the same on every rank; from here on each rank has noise of its own."""
        at = self.position.step
        noise = mix(self._seed(self.position.start), at)
        seed_noise(self.device, noise)
        self.trained, decided = self.steering.before(at, self.trained, self.position)
        if self.ranks.count > 1:
            if decided:
                self._follow_first()
            seed_noise(self.device, mix(noise, self.ranks.rank))  # other views, other latents

    def batch(self, step: int) -> Tensor:
        """This rank's part of the batch of a step, float (n, C, H, W) in [0, 1]."""
        return self.batches.at(step, self._seed(self.position.start))

    def _follow_first(self) -> None:
        """Take weights, moments and position from the first rank: what was decided or resumed there holds everywhere."""
        if self.ranks.count == 1:
            return
        position, tensors = (
            self.ranks.from_first(content, self.device)
            for content in (msgspec.json.encode(self.position), state_bytes(self.model, self.trained.optimizer))
        )
        if not self.ranks.leads:
            self.restore(msgspec.json.decode(position, type=Position))
            fill_state(load(tensors), self.model, self.trained.optimizer)

    def _rate(self, step: int) -> float:
        if self.config.schedule == "constant":
            return self.config.learning_rate
        rise = min(1.0, (step - self.position.rewarm + 1) / WARMUP_STEPS)
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.config.learning_rate * rise * (LAST_RATE + (1 - LAST_RATE) * fall)


def _statistics(model: CatVAE) -> list[Tensor]:
    """Running means and variances of batch norm."""
    return [statistic for layer in model.norms for statistic in (layer.running_mean, layer.running_var) if statistic is not None]
