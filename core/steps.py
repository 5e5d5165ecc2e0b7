"""A run in the making: network, optimiser and position, and the step that changes them.

The order of epoch e is a permutation drawn from (seed, e), see `batches`; the noise of step s from (seed, s). Position in the run is
therefore all the random state there is, and a resumed run equals an uninterrupted one bit for bit on the CPU. What becomes of the clusters
between steps stands in `steering`; the loop over steps in `training`.
"""

import math

import msgspec
import torch
from safetensors.torch import load
from torch import Tensor

from catvae.runtime.errors import NumericError

from . import starts
from .batches import Batches
from .checkpoint import SCHEMA, Position, fill_state, state_bytes
from .config import TrainConfig
from .data import ImageData
from .devices import mix, resolve_device, resolve_precision, seed_noise, seeded
from .epoch_rows import add_step, summary
from .feasible import trainable
from .head_surgery import Trained
from .held_back import split
from .joints import PAIRS
from .labelled import LabelledImages, labelled_batch, labels_hash
from .model import CatVAE, ModelSpec
from .objective import BatchLoss, batch_loss
from .ranks import ALONE, Ranks
from .steering import Steering
from .views import choose_policy

WARMUP_STEPS = 100
"""Steps over which the learning rate rises."""
LAST_RATE = 0.01
"""Share of the learning rate that the cosine ends on."""
ORDERED = 0.5
"""Share of a short run after which a cluster of images alone, whose views are in another one, is worth no more: see `view_information`.
From the first step on, kinds that views turn all round were hardly found (`benchmarks/order.py`)."""
BAD_STEPS = 5
"""Consecutive steps without finite numbers before training gives up."""
CLIP = 1000.0
"""Largest gradient norm: ordinary steps stay below 300, a diverging one is cut."""


class Steps:
    """One run: model, optimiser and position.

    Parameters
    ----------
    data : ImageData
        Only its images are read.
    config : TrainConfig
    labelled : LabelledImages, optional
    ranks : Ranks
        That train together; the first one's clusters are everybody's.

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
        self.ordered_from = round(ORDERED * starts.share(config) * self.steps)
        self.labelled = labelled
        self.looked_at = self.batches.spread(PAIRS)
        """What is decided about clusters is read from these."""
        self.steering = Steering(config, self.steps, self.looked_at, self.policy, labelled)
        self.warm_steps = round(config.warm_start * self.steps) if config.invariance_weight else 0
        if config.choose_clusters:
            self.warm_steps = max(self.warm_steps, self.steering.merge_steps[0])  # the generator waits until K is known
        self.whole = True
        """Weights, moments and position are those of one moment: not in the middle of a step."""
        self._given = ""
        """What ranks must be given alike; not made for one, whose images it would read once more."""
        if ranks.count > 1:
            self._given = repr((data.hash, labels_hash(labelled), config, self.precision))
        self.begin(0)

    def begin(self, start: int) -> None:
        """Fresh weights, moments and position of one short run."""
        self._build(self.spec, start)
        self.position = Position(schema=SCHEMA, start=start, clusters=self.spec.clusters)
        self.whole = True

    def _build(self, spec: ModelSpec, start: int) -> None:
        # torch's generator takes 32 bits of a seed: without mixing, every start would have the weights of the first.
        with seeded(mix(self._seed(start), 0) if start else self.config.seed):
            model = CatVAE(spec)
        model = model.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.trained = Trained(model, torch.optim.Adam(model.parameters(), self.config.learning_rate, fused=True))

    def restore(self, position: Position) -> None:
        """Be where `position` says, with a network of its K; the weights are the caller's to load."""
        self._build(msgspec.structs.replace(self.spec, clusters=position.clusters), position.start)
        self.position = position
        self.whole = True

    @property
    def model(self) -> CatVAE:
        return self.trained.model

    def _seed(self, start: int) -> int:
        return self.config.seed + (start << 32)  # seeds stay below 2^31: no two runs share one

    def step(self) -> BatchLoss:
        """One optimiser step on the next batch; raises `NumericError` after `BAD_STEPS` without finite numbers."""
        self.whole = False
        self._decide()
        at, position = self.position.step, self.position
        model, optimizer, weights = self.trained.model, self.trained.optimizer, self.trained.weights
        if not model.training:  # to set it in every layer takes longer than to run some of them
            model.train()
        for group in optimizer.param_groups:
            group["lr"] = self._rate(at)
        statistics = _statistics(model)
        before = [statistic.clone() for statistic in statistics]
        taught = self.steering.taught(self.trained, position)
        labelled = None
        if self.labelled is not None and self.config.label_weight and position.class_clusters:
            labelled = labelled_batch(self.labelled, position.class_clusters, self.policy, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            warm = at < self.warm_steps
            x = self.batch(at)
            loss = batch_loss(
                model,
                x,
                self.config,
                self.policy,
                taught=taught,
                warm=warm,
                ordered=at >= self.ordered_from,
                labelled=labelled,
                ranks=self.ranks,
            )
        for weight in weights:
            weight.grad = None
        loss.total.backward()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        told, shares = summary(loss), loss.assignment.mean(0)
        self.ranks.average([*gradients, *statistics, told, shares])
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm) and math.isfinite(told[0].item()):
            position.bad_steps = 0
            if norm > CLIP:
                torch._foreach_mul_(gradients, CLIP / norm)  # pyright: ignore[reportPrivateImportUsage]
            optimizer.step()
            add_step(position, told.tolist())
            self.steering.observe(shares.tolist(), position)
        else:
            for statistic, good in zip(statistics, before, strict=True):  # what is not a number would stay in an average for good
                statistic.copy_(good)
            position.bad_steps += 1
            if position.bad_steps >= BAD_STEPS:
                raise NumericError(
                    f"the loss was not a finite number for {BAD_STEPS} steps in a row (step {at}): lower --learning-rate or use"
                    " --precision fp32"
                )
        position.step += 1
        self.whole = True
        return loss

    def _decide(self) -> None:
        """What is due before the next step, the same on every rank, whose noise is its own from here on."""
        at = self.position.step
        noise = mix(self._seed(self.position.start), at)
        seed_noise(self.device, noise)
        decides, acts = self.steering.decides(at, self.position), self.position.guard_acts
        self.trained = self.steering.before(at, self.trained, self.position)
        if self.ranks.count > 1:
            if decides or self.position.guard_acts != acts:
                self._follow_first()
            seed_noise(self.device, mix(noise, self.ranks.rank))  # other views, other latents

    def batch(self, step: int) -> Tensor:
        return self.batches.at(step, self._seed(self.position.start))

    def _follow_first(self) -> None:
        """Be where the first rank is, weights, moments and position: what was decided or resumed there holds everywhere."""
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
