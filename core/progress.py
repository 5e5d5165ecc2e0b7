"""What the terminal shows of a run: a line before it, a bar while it trains, and its result."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from catvae.kernels import kernel_status
from catvae.runtime.ours import PAGE
from catvae.runtime.wording import counted, say, typed

from .runs.record import RunRecord
from .runs.session import Session
from .training.trainer import Trainer
from .vae.objective import BatchLoss

SAY_EVERY = 60.0
"""Seconds between two lines in a log."""
STEP_WITHOUT_GENERATOR = 0.4
"""Time of a step before the generator joins, as a part of one with it, about (`benchmarks/layers.py`)."""


def announce(session: Session, quiet: bool, prefix: str = "") -> None:
    """One line on images, model and machine. `prefix` says which of several runs."""
    data, trainer = session.data, session.trainer
    spec = trainer.spec
    clusters = f"K={spec.clusters}, D={spec.clusters * spec.delta}" if not trainer.config.chooses_clusters else f"K at most {spec.clusters}"
    views = f"views '{trainer.policy.name}'" if trainer.config.invariance_weight or trainer.config.information_views else "no views"
    say(
        f"{prefix}{data.name}: {len(data.images):,} images of {data.preprocess.size};"
        f" {clusters}, {views}, {counted(trainer.epochs, 'epoch')} of"
        f" {counted(trainer.steps_per_epoch, 'step')} on {trainer.device} in {trainer.precision}, {kernel_status(trainer.device.type)}",
        quiet=quiet,
    )


def train_with_bar(session: Session, quiet: bool, prefix: str = "") -> None:
    """Train to the end under a progress bar, or, where nobody sees one, with a line a minute; raises as `Session.train` does."""
    trainer = session.trainer
    done = trainer.all_steps - trainer.steps_left
    began = said = time.monotonic()
    work = work_left(trainer)
    with tqdm(
        total=trainer.all_steps,
        initial=done,
        unit="step",
        disable=quiet or None,
        dynamic_ncols=True,
        file=sys.stderr,
    ) as bar:

        def show(loss: BatchLoss) -> None:
            nonlocal said
            bar.update()
            if bar.disable and time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                left = work_left(trainer)
                seconds = (said - began) * left / max(work - left, STEP_WITHOUT_GENERATOR)
                steps = trainer.all_steps - trainer.steps_left
                say(f"{prefix}{_stage(trainer)}: {steps / trainer.all_steps:.0%} of the steps, {_minutes(seconds)} left")
            if trainer.position.step % 10 == 0:
                bar.set_description(prefix + _stage(trainer), refresh=False)
                bar.set_postfix(_shown(loss), refresh=False)

        session.train(None if quiet else show)


def work_left(trainer: Trainer) -> float:
    """Remaining time of a run, in steps with the generator."""
    drawing = min(trainer.steps_left, trainer.steps - max(trainer.position.step, trainer.warm_steps))
    return STEP_WITHOUT_GENERATOR * (trainer.steps_left - drawing) + drawing


def _minutes(seconds: float) -> str:
    return "less than a minute" if seconds < 60 else f"about {seconds / 60:.0f} min"


def _stage(trainer: Trainer) -> str:
    epoch = 1 + (trainer.position.step - 1) // trainer.steps_per_epoch
    begun = "" if trainer.start_chosen else f"start {trainer.position.start + 1} of {trainer.starts}, "
    return f"{begun}epoch {epoch} of {trainer.epochs}"


def _shown(loss: BatchLoss) -> dict[str, str]:
    terms = {
        "views": loss.terms.invariance,
        "rec": loss.terms.reconstruction,
        "kl": loss.terms.kl,
        "info": loss.terms.information,
    }
    values = {name: float(term.detach()) for name, term in terms.items()}
    return {name: f"{value:.2f}" for name, value in values.items() if value == value}  # NaN: not computed while clusters train alone


def conclude(record: RunRecord, path: Path) -> None:
    """The outcome, on standard output; what to look at, on standard error."""
    verdict, health, bound = record.verdict, record.health, record.bound
    for line in record.resumed:
        say(f"resumed elsewhere, {line}")
    for event in record.events:
        say(f"step {event.step:,}: {event.what}")
    if verdict:
        for line in verdict.reasons:
            say(f"warning: {line}")
        for line in verdict.notes:
            say(f"note: {line}")
    sorts = verdict is None or verdict.status == "healthy"
    print(f"run       {path}")
    print(f"verdict   {verdict.status if verdict else 'none'}")
    print(
        f"clusters  {len(record.clusters)}, smallest {health['smallest_share']:.1%}, mean confidence {health['mean_confidence']:.3f},"
        f" same cluster in a view {health['view_agreement']:.1%}"
    )
    print(f"drawings  {health['drawn_return']:.1%} of images drawn from a cluster are sorted into it")
    print(f"bound     ELBO {bound['elbo']:.2f}, -log p(x) of binarised pixels at most {bound['nll']:.2f} +/- {bound['nll_error']:.2f} nats")
    for part, score in record.scores.items():
        print(
            f"{part:<9} ACC {score['acc']:.4f}  NMI {score['nmi']:.4f}  ARI {score['ari']:.4f}  calibration error {score['ece']:.4f}"
            "  (labels name clusters and score them)"
        )
    for line in record.seeds and seed_lines(record):
        print(line)
    print(f"report    {path / PAGE}")
    print(f"next      catvae-export --onnx {typed(path)}{'' if sorts else ': draws, but do not rely on how it sorts'}")


def seed_lines(record: RunRecord) -> list[str]:
    """A table of the runs that were trained for one result."""
    lines = ["seeds     seed   K       views, nats  agreement  verdict"]
    for run in record.seeds:
        acc = "".join(f"  {part} ACC {value:.4f}" for part, value in run.acc.items())
        lines.append(
            f"          {run.seed:>4}{run.clusters:>4}{run.view_information:>18.4f}{run.agreement:>11.4f}  {run.verdict}{acc}"
            f"{'  <- kept' if run.kept else ''}"
        )
    return lines
