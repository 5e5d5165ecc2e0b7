"""The training loop: starts, epochs, signals.

A step is in `steps`, the score of a start in `starts`, what is measured after training in `evaluation`, files in `runs`.
"""

import signal
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from catvae.runtime.errors import NumericError
from catvae.runtime.interruption import Interrupted, stop_on_signals

from ..clusters import starts
from ..clusters.head_surgery import Trained
from ..clusters.joints import estimate_joints
from ..machine.devices import mix, seed_noise
from ..vae.objective import BatchLoss
from .checkpoint import Event, Position
from .steps import Steps


class Hooks(NamedTuple):
    """What is called after each step, each start and each epoch."""

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
    def start_chosen(self) -> bool:
        """Whether the start that goes on is known."""
        return self.starts == 1 or len(self.position.start_scores) == self.starts

    @property
    def all_steps(self) -> int:
        """Steps of the whole run, those of starts that are given up included."""
        return self.steps + (self.starts - 1) * self.start_steps

    @property
    def steps_left(self) -> int:
        """Those of `all_steps` that are still to be taken, at any position: in a start, between two of them, or after."""
        begun = max(self.position.start + 1, len(self.position.start_scores))
        return self.steps - self.position.step + (self.starts - begun) * self.start_steps

    def run(self, hooks: Hooks = NO_HOOKS, *, on_signal: str = "") -> None:
        """Train to the end. The caller's random state is left as it was.

        Parameters
        ----------
        hooks : Hooks
        on_signal : str
            What is said on standard error when a signal arrives.

        Raises
        ------
        Interrupted
            On SIGINT and SIGTERM, after the step under way.
        NumericError
            When losses or gradients stop being finite numbers.
        DataError
            When another rank was given other images or settings, or has ended.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), stop_on_signals(on_signal, patient=self.ranks.count > 1) as stop:
            self.ranks.require_alike(self._given, self.device)
            self._follow_first()
            if not self.start_chosen:
                self.choose_start(hooks, stop)
            while not self.finished:
                self.advance(hooks)
                self._end_if_told(stop)

    def advance(self, hooks: Hooks) -> None:
        """One step, and what is called after it."""
        loss = self.step()
        if hooks.on_step:
            hooks.on_step(loss)
        if hooks.on_epoch and self.position.step % self.steps_per_epoch == 0:
            hooks.on_epoch()

    def _end_if_told(self, stop: Sequence[int]) -> None:
        """Raise `Interrupted` after the same step on every rank, if any of them got a signal."""
        if self.ranks.any(bool(stop), self.device):
            raise Interrupted(stop[0] if stop else signal.SIGTERM)

    def choose_start(self, hooks: Hooks = NO_HOOKS, stop: Sequence[int] = ()) -> None:
        """Train every start and go on from the one with the highest score, see `starts`; no label is involved.

        After each start the best so far becomes the current network and position, so that `on_start` can save it. A run interrupted in its
        first start resumes there; one interrupted in a later start loses that start, and begins it again when it is resumed.
        """
        best = (self.trained, self.position) if self.position.start_scores else None
        scores = list(self.position.start_scores)
        seconds = self.position.seconds if best else 0.0  # of all starts, those that are given up included
        for start in range(len(scores), self.starts):
            try:
                score = self._try_start(start, seconds, hooks._replace(on_epoch=None) if best else hooks, stop)
            except BaseException:  # a signal too, whenever it comes: only finished starts are saved
                if best:
                    (self.trained, self.position), self.consistent = best, True
                raise
            seconds = self.position.seconds
            if best is None or score > max(scores):
                best = self.trained, self.position
            scores.append(score)
            self._choose(best, scores, seconds)
            if hooks.on_start:
                hooks.on_start()

    def _choose(self, best: tuple[Trained, Position], scores: list[float], seconds: float) -> None:
        """Go on from the best so far, with the scores of all that are finished."""
        self.trained, self.position = best
        self.position.start_scores, self.position.seconds = list(scores), seconds
        if self.start_chosen:
            self.position.events += [
                Event(step=0, what=f"start {i} of {self.starts} left out: its loss was not a finite number")
                for i, score in enumerate(scores, 1)
                if score == starts.FAILED
            ]
        self.consistent = True

    def _try_start(self, start: int, seconds: float, hooks: Hooks, stop: Sequence[int]) -> float:
        """Train one start, the first one from where it stands, and return its score in nats; `FAILED` where a later one's loss was NaN.

        It ends with a state that is not `consistent`: what is finished is not yet counted.
        """
        if start:
            self.begin(start, seconds)
        self._follow_first()
        try:
            while self.position.step < self.start_steps:
                self.advance(hooks)
                self._end_if_told(stop)
        except NumericError:
            if not start:  # there is none yet to go on from
                raise
            return starts.FAILED
        self.consistent = False
        seed_noise(self.device, mix(self.config.seed, self.start_steps))
        joints = estimate_joints(self.model, self.sample, self.policy)
        worth = starts.worth(joints, self.config, merges=bool(self.steering.merge_steps))
        return float(self.ranks.from_first(repr(worth).encode(), self.device))
