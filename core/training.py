"""The training loop: short runs to begin with, epochs, signals.

What a step is stands in `steps`, what short runs are worth in `starts`, what is measured after training in `evaluation`, files in
`run_folder`.
"""

import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from catvae.runtime.errors import NumericError
from catvae.runtime.interruption import Interrupted, stop_on_signals

from . import starts
from .checkpoint import Event
from .devices import mix, seed_noise
from .epoch_rows import close_epoch
from .joints import estimate_joints
from .objective import BatchLoss
from .steps import Steps


class Hooks(NamedTuple):
    """What is called after each of them; a start is one of several short runs to begin with."""

    on_step: Callable[[BatchLoss], None] | None = None
    on_start: Callable[[], None] | None = None
    on_epoch: Callable[[], None] | None = None


NO_HOOKS = Hooks()


class Trainer(Steps):
    """Trains a run from where it stands to its end; see `Steps` for what it is made from."""

    @property
    def finished(self) -> bool:
        return self.position.step >= self.steps

    @property
    def decided(self) -> bool:
        """Whether the short run that goes on is chosen."""
        return self.starts == 1 or len(self.position.start_scores) == self.starts

    @property
    def all_steps(self) -> int:
        """Steps of the whole run, short runs that are given up included."""
        return self.steps + (self.starts - 1) * self.start_steps

    @property
    def steps_left(self) -> int:
        """Of `all_steps`, from the present position: of the run, in one of its short runs, or between two of them."""
        begun = max(self.position.start + 1, len(self.position.start_scores))
        return self.steps - self.position.step + (self.starts - begun) * self.start_steps

    def run(
        self,
        *,
        on_step: Callable[[BatchLoss], None] | None = None,
        on_start: Callable[[], None] | None = None,
        on_epoch: Callable[[], None] | None = None,
        on_signal: str = "",
    ) -> None:
        """Train to the end. The caller's random state is left as it was.

        Parameters
        ----------
        on_step, on_start, on_epoch : callable, optional
            See `Hooks`.
        on_signal : str
            What is said when a signal arrives.

        Raises
        ------
        Interrupted
            On SIGINT and SIGTERM, after the step under way.
        NumericError
            When losses or gradients stop being finite numbers.
        DataError
            When another rank was given other images or settings, or has ended.
        """
        hooks = Hooks(on_step, on_start, on_epoch)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), stop_on_signals(on_signal, patient=self.ranks.count > 1) as stop:
            self.ranks.require_alike(self._given, self.device)
            self._follow_first()
            if not self.decided:
                self.choose_start(hooks, stop)
            while not self.finished:
                self.advance(hooks)
                self._end_if_told(stop)

    def advance(self, hooks: Hooks) -> None:
        """One step, with what follows it."""
        began = time.perf_counter()
        loss = self.step()
        self.position.seconds += time.perf_counter() - began
        epoch, left = divmod(self.position.step, self.steps_per_epoch)
        if not left:
            close_epoch(self.position, epoch)
        if hooks.on_step:
            hooks.on_step(loss)
        if not left and hooks.on_epoch:
            hooks.on_epoch()

    def _end_if_told(self, stop: Sequence[int]) -> None:
        """After the same step on every rank, whichever was told."""
        if self.ranks.any(bool(stop), self.device):
            raise Interrupted(stop[0] if stop else signal.SIGTERM)

    def choose_start(self, hooks: Hooks = NO_HOOKS, stop: Sequence[int] = ()) -> None:
        """Go on from the short run that is worth most, see `starts`; no label is involved.

        After each of them the best so far stands as the present one, and `on_start` may save it. Interrupted, the first one goes on where
        it was, and may be saved after each of its epochs; of a later one nothing is left, since the best so far stands in its place.
        """
        best = (self.trained, self.position) if self.position.start_scores else None
        scores = list(self.position.start_scores)
        seconds = self.position.seconds if best else 0.0  # of every short run, the ones given up included
        for start in range(len(scores), self.starts):
            try:
                scores.append(self._try_start(start, hooks._replace(on_epoch=None) if best else hooks, stop))
            except BaseException:  # of a signal too, whenever it comes: what is saved then is what is finished
                if best:
                    (self.trained, self.position), self.whole = best, True
                raise
            seconds += self.position.seconds
            if best is None or scores[-1] > max(scores[:-1]):
                best = self.trained, self.position
            (self.trained, self.position), self.whole = best, True
            self.position.start_scores, self.position.seconds = list(scores), seconds
            if self.decided:
                self.position.events += [
                    Event(step=0, what=f"beginning {i} of {self.starts} left out: its loss was not a finite number")
                    for i, score in enumerate(scores, 1)
                    if score == starts.FAILED
                ]
            if hooks.on_start:
                hooks.on_start()

    def _try_start(self, start: int, hooks: Hooks, stop: Sequence[int]) -> float:
        """Train one short run, the first one from where it stands; returns what it is worth, in nats.

        A later one whose loss stops being a number is worth less than any: there is one to go on with.
        """
        if start:
            self.begin(start)
        self._follow_first()
        try:
            while self.position.step < self.start_steps:
                self.advance(hooks)
                self._end_if_told(stop)
        except NumericError:
            if not start:
                raise
            return starts.FAILED
        seed_noise(self.device, mix(self.config.seed, self.start_steps))
        joints = estimate_joints(self.model, self.looked_at, self.policy)
        worth = starts.worth(joints, self.config, merges=bool(self.steering.merge_steps))
        return float(self.ranks.from_first(repr(worth).encode(), self.device))
