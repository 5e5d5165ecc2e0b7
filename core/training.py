"""The training loop: order of the images, steps, numeric guard, short runs to begin with, exact resume.

The order of epoch e is a permutation drawn from (seed, e); the noise of step s from (seed, s). Position in the run is therefore all the
random state there is, and a resumed run equals an uninterrupted one bit for bit on the CPU. What becomes of the clusters between steps
stands in `steering`, what is measured after training in `evaluation`, files in `run_folder`.
"""

import math
import signal
import time
from collections.abc import Callable, Sequence

import msgspec
import torch
from safetensors.torch import load
from torch import Tensor

from catvae.runtime.errors import NumericError, UsageError
from catvae.runtime.files import sha256
from catvae.runtime.interruption import Interrupted, stop_on_signals

from .agglomeration import mutual_information
from .checkpoint import SCHEMA, Position, fill_state, state_bytes
from .config import TrainConfig
from .data import ImageData
from .devices import mix, resolve_device, resolve_precision, seed_noise
from .head_surgery import Trained
from .held_back import split
from .joints import Joints, estimate_joints
from .labelled import LabelledImages, labelled_batch, require_room
from .merging import agreement, merge_by_neighbours
from .model import CatVAE, ModelSpec
from .objective import BatchLoss, Terms, batch_loss
from .ranks import ALONE, Ranks
from .steering import Steering
from .views import choose_policy, to_float

WARMUP_STEPS = 100
"""Steps over which the learning rate rises."""
LAST_RATE = 0.01
"""Share of the learning rate that the cosine ends on."""
START = 0.4
"""Share of the steps that a short run takes: up to the first merge of over-clusters."""
COLOUR_STARTS = 3
"""Short runs on colour images, whose seeds differ most: `benchmarks/photographs.py` has the rows."""
BAD_STEPS = 5
"""Consecutive steps without finite numbers before training gives up."""
RECORDED = ("total", *Terms._fields, "confidence")
"""Columns of a row of metrics, means over its steps."""
CLIP = 1000.0
"""Largest gradient norm: ordinary steps stay below 300, a diverging one is cut."""


def trainable(config: TrainConfig, count: int, labelled: LabelledImages | None = None, ranks: Ranks = ALONE) -> TrainConfig:
    """The configuration as `count` images allow it.

    Raises
    ------
    UsageError
        With more clusters than images, fewer than two images, more classes in `labelled` than clusters, or batches without two images for
        each rank.
    DeviceError
        When the device is not there.
    """
    if count < 2:
        raise UsageError(f"there {'is 1 image' if count else 'are no images'}: training needs at least 2")
    if config.choose_clusters and config.max_clusters > count:
        config = msgspec.structs.replace(config, max_clusters=count)
    if config.most_clusters > count:
        raise UsageError(f"--clusters is {config.most_clusters}, but only {count:,} images are trained on: choose at most {count}")
    if min(config.batch_size, count) < 2 * ranks.count:
        batch = min(config.batch_size, count)
        raise UsageError(f"{ranks.count} ranks share batches of {batch} images: each needs 2, start fewer or raise --batch-size")
    if labelled is not None:
        require_room(labelled, config.most_clusters)
    resolve_device(config.device)
    return config


class Trainer:
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
        rows = split(len(data.images)).trained
        count = len(rows)
        self.config = config = trainable(config, count, labelled, ranks)
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        self.policy = choose_policy(config.augment, data.images, config.recolour)
        self.ranks = ranks
        self.batch = min(config.batch_size, count)
        self.steps_per_epoch = count // self.batch
        self.epochs = config.epochs_for(self.steps_per_epoch)
        self.steps = self.epochs * self.steps_per_epoch
        self.spec = ModelSpec.of(config, data.preprocess.shape)
        self.starts = config.starts or (COLOUR_STARTS if self.spec.channels == 3 and config.invariance_weight else 1)
        self.start_steps = round(START * self.steps) if self.starts > 1 else 0
        self.images = torch.from_numpy(data.images[rows]).to(self.device)  # uint8 (N, H, W, C), resident
        self.labelled = labelled
        self.steering = Steering(config, self.steps, self.images, self.policy, labelled)
        self.warm_steps = round(config.warm_start * self.steps) if config.invariance_weight else 0
        if config.choose_clusters:
            self.warm_steps = max(self.warm_steps, self.steering.merge_steps[0])  # the generator waits until K is known
        self._order: tuple[int, int, Tensor] | None = None
        self._bad_steps = 0
        self._given = ""
        """What ranks must be given alike; not made for one, whose images it would read once more."""
        if ranks.count > 1:
            self._given = repr((data.hash, labelled and (labelled.names, sha256(labelled.images.tobytes())), config, self.precision))
        self._begin(0)

    def _begin(self, start: int) -> None:
        """Fresh weights, moments and position of one short run."""
        self._build(self.spec, self._seed(start))
        self.position = Position(schema=SCHEMA, start=start, clusters=self.spec.clusters)
        self.whole = True

    def _build(self, spec: ModelSpec, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = CatVAE(spec)
        model = model.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.trained = Trained(model, torch.optim.Adam(model.parameters(), self.config.learning_rate, fused=True))

    def restore(self, position: Position) -> None:
        """Be where `position` says, with a network of its K; the weights are the caller's to load."""
        self._build(msgspec.structs.replace(self.spec, clusters=position.clusters), self._seed(position.start))
        self.position = position
        self.whole = True

    @property
    def model(self) -> CatVAE:
        return self.trained.model

    whole: bool
    """Whether weights, moments and position are those of one moment: not in the middle of a step."""

    def _seed(self, start: int) -> int:
        return self.config.seed + (start << 32)  # seeds stay below 2^31: no two runs share one

    @property
    def finished(self) -> bool:
        return self.position.step >= self.steps

    @property
    def all_steps(self) -> int:
        """Steps of the whole run, the short runs that are given up included."""
        return self.steps + (self.starts - 1) * self.start_steps

    @property
    def steps_left(self) -> int:
        """Of `all_steps`, from the present position of a decided run."""
        return self.steps - self.position.step if self.position.start_scores or self.starts == 1 else self.all_steps

    def run(
        self,
        *,
        on_step: Callable[[BatchLoss], None] | None = None,
        on_epoch: Callable[[], None] | None = None,
        on_signal: str = "",
    ) -> None:
        """Train to the end; SIGINT and SIGTERM stop after the step under way and raise `Interrupted`; `on_signal` is said at once.

        The caller's random state is left as it was.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), stop_on_signals(on_signal, patient=self.ranks.count > 1) as stop:
            self.ranks.require_alike(self._given, self.device)
            self._follow_first()
            if self.starts > 1 and not self.position.start_scores:
                self.choose_start(on_step, stop)
            while not self.finished:
                self._advance(on_step)
                if self.position.step % self.steps_per_epoch == 0 and on_epoch:
                    on_epoch()
                self._end_if_told(stop)

    def _end_if_told(self, stop: Sequence[int]) -> None:
        """After the same step on every rank, whichever was told."""
        if self.ranks.any(bool(stop), self.device):
            raise Interrupted(stop[0] if stop else signal.SIGTERM)

    def _advance(self, on_step: Callable[[BatchLoss], None] | None) -> None:
        began = time.perf_counter()
        loss = self.step()
        self.position.seconds += time.perf_counter() - began
        if self.position.step % self.steps_per_epoch == 0:
            self._close_row()
        if on_step:
            on_step(loss)

    def choose_start(self, on_step: Callable[[BatchLoss], None] | None = None, stop: Sequence[int] = ()) -> None:
        """Go on from the short run whose clusters neighbours agree with most; no label is involved.

        Interrupted, the run is back at its beginning: the short runs are a function of the seed, so nothing but their time is lost.
        """
        scores: list[float] = []
        seconds = 0.0  # of every short run, the ones given up included
        best: tuple[Trained, Position] | None = None
        for start in range(self.starts):
            self._begin(start)
            self._follow_first()
            while self.position.step < self.start_steps:
                self._advance(on_step)
                try:
                    self._end_if_told(stop)
                except Interrupted:
                    self._begin(0)
                    raise
            seed_noise(self.device, mix(self.config.seed, self.start_steps))
            joints = estimate_joints(self.model, self.images, self.policy)
            worth = repr(self._worth(joints)).encode()
            scores.append(float(self.ranks.from_first(worth, self.device)))
            seconds += self.position.seconds
            if best is None or scores[-1] == max(scores):
                best = self.trained, self.position
        if best is not None:
            self.trained, self.position = best
            self.position.start_scores, self.position.seconds = scores, seconds

    def _worth(self, joints: Joints) -> float:
        """How far neighbours agree with the clusters a short run is about to get; with all over-clusters while K is not chosen."""
        if self.config.choose_clusters:
            return (mutual_information(joints.neighbours) + mutual_information(joints.pixels)) / 2
        if self.steering.merge_steps:
            clusters = self.config.most_clusters
            return agreement(joints, merge_by_neighbours(joints, clusters, unequal=self.config.sizes == "unequal").group, clusters)
        return (mutual_information(joints.cluster_neighbours) + mutual_information(joints.cluster_pixels)) / 2

    def step(self) -> BatchLoss:
        """One optimiser step on the next batch."""
        at, self.whole = self.position.step, False
        noise = mix(self._seed(self.position.start), at)
        seed_noise(self.device, noise)
        decides, acts = self.steering.decides(at, self.position), self.position.guard_acts
        self.trained = self.steering.before(at, self.trained, self.position)
        if self.ranks.count > 1:
            if decides or self.position.guard_acts != acts:
                self._follow_first()
            seed_noise(self.device, mix(noise, self.ranks.rank))  # other views, other latents
        position = self.position
        model, optimizer = self.trained.model, self.trained.optimizer
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = self._rate(at)
        taught = self.steering.taught(self.trained, position)
        labelled = None
        if self.labelled is not None and self.config.label_weight and position.class_clusters:
            labelled = labelled_batch(self.labelled, position.class_clusters, self.policy, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            warm = at < self.warm_steps
            x = self._batch(at)
            loss = batch_loss(model, x, self.config, self.policy, taught=taught, warm=warm, labelled=labelled, ranks=self.ranks)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        told, shares = _summary(loss), loss.assignment.mean(0)
        self.ranks.average([*gradients, *_statistics(model), told, shares])
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm) and math.isfinite(told[0].item()):
            self._bad_steps = 0
            if norm > CLIP:
                torch._foreach_mul_(gradients, CLIP / norm)  # pyright: ignore[reportPrivateImportUsage]
            optimizer.step()
            self._record(told.tolist())
            self.steering.observe(shares.tolist(), position)
        else:
            self._bad_steps += 1
            if self._bad_steps >= BAD_STEPS:
                raise NumericError(
                    f"the loss was not a finite number for {BAD_STEPS} steps in a row (step {at}): lower --learning-rate or use"
                    " --precision fp32"
                )
        position.step += 1
        self.whole = True
        return loss

    def _batch(self, step: int) -> Tensor:
        epoch, index = divmod(step, self.steps_per_epoch)
        start = self.position.start
        if self._order is None or self._order[:2] != (start, epoch):
            generator = torch.Generator().manual_seed(mix(self._seed(start), epoch) ^ 0x5EED)
            self._order = start, epoch, torch.randperm(len(self.images), generator=generator)
        rows = self.ranks.part(self._order[2][index * self.batch : (index + 1) * self.batch]).to(self.device)
        return to_float(self.images[rows])

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

    def _record(self, values: list[float]) -> None:
        row = self.position.open_row
        for name, value in zip(RECORDED, values, strict=True):
            if not math.isnan(value):  # NaN: not computed while clusters train alone
                row[name] = row.get(name, 0.0) + value
                row[f"{name} steps"] = row.get(f"{name} steps", 0.0) + 1

    def _close_row(self) -> None:
        sums, position = self.position.open_row, self.position
        epoch = position.step // self.steps_per_epoch
        means = {name: sums[name] / sums[f"{name} steps"] if name in sums else None for name in RECORDED}
        position.rows.append({"epoch": epoch, **means, "seconds": position.seconds})
        position.open_row = {}


def _summary(loss: BatchLoss) -> Tensor:
    """`RECORDED` of one batch."""
    return torch.stack([loss.total, *loss.terms, loss.assignment.amax(1).mean()]).detach()


def _statistics(model: CatVAE) -> list[Tensor]:
    """Running means and variances of batch norm."""
    return [statistic for layer in model.norms for statistic in (layer.running_mean, layer.running_var) if statistic is not None]
