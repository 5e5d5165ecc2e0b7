"""The training loop: order of the images, steps, numeric guard, interruption, exact resume.

The order of epoch e is a permutation drawn from (seed, e); the noise of step s from (seed, s). Position in the run is therefore all the
random state there is, and a resumed run equals an uninterrupted one bit for bit on the CPU. What is measured after training stands in
`evaluation`; files in `run_folder`.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from catvae.runtime.errors import DeviceError, NumericError, UsageError

from .checkpoint import SCHEMA, Position
from .config import TrainConfig
from .data import ImageData
from .merging import align, estimate_joints, merge_clusters, mutual_information
from .model import CatVAE, ModelSpec
from .objective import BatchLoss, Terms, batch_loss
from .views import choose_policy, to_float

WARMUP_STEPS = 100
"""Steps over which the learning rate rises."""
LAST_RATE = 0.01
"""Share of the learning rate that the cosine ends on."""
START = 0.4
"""Share of the steps that a short run takes: past the first merge of over-clusters."""
FOLLOW = 0.1
"""Share of the steps for which clusters are taught a new merge."""
GAIN = 0.005
"""Nats by which a merge must share more information with views than the clusters it replaces."""
BAD_STEPS = 5
"""Consecutive steps without finite numbers before training gives up."""
CLIP = 1000.0
"""Largest gradient norm: ordinary steps stay below 300, a diverging one is cut."""


class Interrupted(Exception):
    """A signal asked training to stop; `signum` says which."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def resolve_device(name: str) -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``; raises `DeviceError` when CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch sees no CUDA device here (driver or CUDA build of torch missing); use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_precision(name: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; `auto` takes bf16 where it is computed natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


class Trainer:
    """One run: model, optimiser and position.

    Parameters
    ----------
    data : ImageData
        Only its images are read.
    config : TrainConfig

    Raises
    ------
    UsageError
        With more clusters than images, or fewer than two images.
    """

    def __init__(self, data: ImageData, config: TrainConfig):
        count = len(data.images)
        if config.clusters > count:
            raise UsageError(f"--clusters is {config.clusters}, but there are only {count:,} images: choose at most {count}")
        if count < 2:
            raise UsageError("there is 1 image: training needs at least 2")
        self.config = config
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        self.policy = choose_policy(config.augment, data.images)
        self.batch = min(config.batch_size, count)
        self.steps_per_epoch = count // self.batch
        self.epochs = config.epochs_for(self.steps_per_epoch)
        self.steps = self.epochs * self.steps_per_epoch
        self.regroup_steps = {round(share * self.steps) for share in config.regroup} if config.overclusters else set()
        self.spec = ModelSpec.of(config, data.preprocess.shape)
        self.starts = config.starts_for(count)
        self.start_steps = round(START * self.steps) if self.starts > 1 else 0
        self.images = torch.from_numpy(np.ascontiguousarray(data.images)).to(self.device)  # uint8 (N, H, W, C), resident
        self._order: tuple[int, int, Tensor] | None = None
        self._bad_steps = 0
        self._begin(0)

    def _begin(self, start: int) -> None:
        """Fresh weights, moments and position of one short run."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(start))
            model = CatVAE(self.spec)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = torch.optim.Adam(self.model.parameters(), self.config.learning_rate, fused=True)
        self.position = Position(
            schema=SCHEMA, step=0, start=start, start_scores=[], group=[], follow_until=0, rows=[], open_row={}, seconds=0.0,
            tensors_sha256="",
        )  # fmt: skip

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

    def run(self, *, on_step: Callable[[BatchLoss], None] | None = None, on_epoch: Callable[[], None] | None = None) -> None:
        """Train to the end; SIGINT and SIGTERM stop after the step under way and raise `Interrupted`.

        The caller's random state is left as it was.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), _stop_on_signals() as stop:
            if self.starts > 1 and not self.position.start_scores:
                self._choose_start(on_step, stop)
            while not self.finished:
                self._advance(on_step)
                if self.position.step % self.steps_per_epoch == 0 and on_epoch:
                    on_epoch()
                if stop:
                    raise Interrupted(stop[0])

    def _advance(self, on_step: Callable[[BatchLoss], None] | None) -> None:
        began = time.perf_counter()
        loss = self.step()
        self.position.seconds += time.perf_counter() - began
        if self.position.step % self.steps_per_epoch == 0:
            self._close_row()
        if on_step:
            on_step(loss)

    def _choose_start(self, on_step: Callable[[BatchLoss], None] | None, stop: list[int]) -> None:
        """Go on from the short run whose clusters share most information with views; no label is involved.

        Interrupted, the run is back at its beginning: the short runs are a function of the seed, so nothing but their time is lost.
        """
        scores: list[float] = []
        seconds = 0.0  # of every short run, the ones given up included
        best: tuple[CatVAE, torch.optim.Adam, Position] | None = None
        for start in range(self.starts):
            self._begin(start)
            while self.position.step < self.start_steps:
                self._advance(on_step)
                if stop:
                    self._begin(0)
                    raise Interrupted(stop[0])
            _seed_noise(self.device, _mix(self.config.seed, self.start_steps))
            scores.append(mutual_information(estimate_joints(self.model, self.images, self.policy).clusters))
            seconds += self.position.seconds
            if best is None or scores[-1] == max(scores):
                best = self.model, self.optimizer, self.position
        if best is not None:
            self.model, self.optimizer, self.position = best
            self.position.start_scores, self.position.seconds = scores, seconds

    def step(self) -> BatchLoss:
        """One optimiser step on the next batch."""
        at = self.position.step
        _seed_noise(self.device, _mix(self._seed(self.position.start), at))
        if at in self.regroup_steps:
            self._regroup()
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(at)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = batch_loss(self.model, self._batch(at), self.config, self.policy, groups=self._groups())
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm) and math.isfinite(loss.total.item()):
            self._bad_steps = 0
            if norm > CLIP:
                torch._foreach_mul_(gradients, CLIP / norm)  # pyright: ignore[reportPrivateImportUsage]
            self.optimizer.step()
            self._record(loss)
        else:
            self._bad_steps += 1
            if self._bad_steps >= BAD_STEPS:
                raise NumericError(
                    f"the loss was not a finite number for {BAD_STEPS} steps in a row (step {at}): lower --learning-rate or use"
                    " --precision fp32"
                )
        self.position.step += 1
        return loss

    def _batch(self, step: int) -> Tensor:
        epoch, index = divmod(step, self.steps_per_epoch)
        start = self.position.start
        if self._order is None or self._order[:2] != (start, epoch):
            generator = torch.Generator().manual_seed(_mix(self._seed(start), epoch) ^ 0x5EED)
            self._order = start, epoch, torch.randperm(len(self.images), generator=generator)
        rows = self._order[2][index * self.batch : (index + 1) * self.batch].to(self.device)
        return to_float(self.images[rows])

    def _groups(self) -> Tensor | None:
        """One-hot rows (overclusters, K) of the merge that clusters are being taught, if any."""
        if self.position.step >= self.position.follow_until:
            return None
        return torch.eye(self.config.clusters, device=self.device)[self.position.group]

    def _regroup(self) -> None:
        """Merge over-clusters into K; where that shares more information with views, make it the new clusters.

        The output layer's K rows become the means of their groups' rows, Adam forgets them, and clusters follow the merge for a while.
        """
        joints = estimate_joints(self.model, self.images, self.policy)
        merge = merge_clusters(joints.overclusters, self.config.clusters)
        if merge.information < mutual_information(joints.clusters) + GAIN:
            return
        group = torch.from_numpy(align(merge.group, joints.shared)).to(self.device)
        self.position.group = group.tolist()
        self.position.follow_until = self.position.step + max(1, round(FOLLOW * self.steps))
        mean = torch.nn.functional.one_hot(group, self.config.clusters).float()
        mean = (mean / mean.sum(0)).T  # (K, overclusters)
        clusters, overclusters = self.model.head_rows
        for parameter in self.model.head.parameters():
            parameter.data[clusters] = mean @ parameter.data[overclusters]
            for moment in (self.optimizer.state[parameter]["exp_avg"], self.optimizer.state[parameter]["exp_avg_sq"]):
                moment[clusters] = 0

    def _rate(self, step: int) -> float:
        if self.config.schedule == "constant":
            return self.config.learning_rate
        rise = min(1.0, (step + 1) / WARMUP_STEPS)
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.config.learning_rate * rise * (LAST_RATE + (1 - LAST_RATE) * fall)

    def _record(self, loss: BatchLoss) -> None:
        row = self.position.open_row
        values = torch.stack([loss.total, *loss.terms]).detach().tolist()
        for name, value in zip(("total", *Terms._fields), values, strict=True):
            row[name] = row.get(name, 0.0) + value
        row["confidence"] = row.get("confidence", 0.0) + loss.assignment.amax(1).mean().item()
        row["steps"] = row.get("steps", 0.0) + 1

    def _close_row(self) -> None:
        sums, position = self.position.open_row, self.position
        steps = sums.pop("steps", 0.0) or 1.0
        epoch = position.step // self.steps_per_epoch
        means = {name: sums.get(name, 0.0) / steps for name in ("total", *Terms._fields, "confidence")}
        position.rows.append({"epoch": epoch, **means, "seconds": position.seconds})
        position.open_row = {}


def _seed_noise(device: torch.device, seed: int) -> None:
    """Seed the default generator of `device`; torch.manual_seed also formats a stack trace for every absent accelerator: 1 ms a step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _mix(seed: int, index: int) -> int:
    """A 63-bit number that differs for every (seed, index): the finaliser of splitmix64."""
    x = (seed * 0x9E3779B97F4A7C15 + index + 1) & 0xFFFFFFFFFFFFFFFF
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFFFFFFFFFF
    return x >> 1


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """A list that receives the first SIGINT or SIGTERM; a second one acts at once. Outside the main thread signals are left alone."""
    seen: list[int] = []
    previous = {}

    def note(signum: int, _frame: object) -> None:
        seen.append(signum)
        signal.signal(signum, previous[signum])

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            previous[signum] = signal.signal(signum, note)
    except ValueError:
        previous.clear()
    try:
        yield seen
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
