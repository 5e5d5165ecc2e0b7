"""The life of a run on disk: start or continue it, keep its state while it trains, draw and score it at the end."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import torch
from PIL.Image import Image

from catvae.kernels import kernel_status
from catvae.runtime.errors import DataError, NumericError, OutputError
from catvae.runtime.files import atomic_write, pretty_json, sha256
from catvae.runtime.images.grid import png_bytes
from catvae.runtime.interruption import Interrupted, stop_on_signals
from catvae.runtime.wording import typed

from ..config import Device, TrainConfig
from ..images.data import ImageData
from ..images.held_back import write_calibration
from ..machine.devices import seeded
from ..machine.ranks import ALONE, Ranks
from ..training.checkpoint import load_state, read_position, save_state, weights_bytes
from ..training.labelled import LabelledImages, clusters_of_classes, labels_hash
from ..training.trainer import Hooks, Trainer
from ..vae.objective import BatchLoss
from . import evaluation, pictures
from .diagnosis import diagnose
from .folder import RunFolder
from .record import DataRecord, Origin, RunRecord, versions
from .report import run_report

SAVE_EVERY = 20.0
"""Seconds between two saved states, at least."""
SHOW_EVERY = 1.0
"""Seconds between two writings of metrics.csv, at least: a thousand epochs of one step would rewrite it a thousand times."""
DRAWINGS = 8
"""Sample grids drawn while training, about: one every so many epochs."""


class Session:
    """One trainer and the folder it writes to; make it with `start` or `resume`."""

    def __init__(self, folder: RunFolder, trainer: Trainer, data: ImageData, record: RunRecord):
        self.folder, self.trainer, self.data, self.record = folder, trainer, data, record
        self._saved = time.monotonic()
        self._shown = 0.0

    @classmethod
    def start(
        cls,
        folder: RunFolder,
        data: ImageData,
        config: TrainConfig,
        origin: Origin,
        labelled: LabelledImages | None = None,
        ranks: Ranks = ALONE,
    ) -> "Session":
        """Begin a new run: the network is built and the folder's first files are written."""
        trainer = Trainer(data, config, labelled, ranks)
        record = RunRecord(
            spec=trainer.spec,
            origin=origin,
            config_hash=_hash(config),
            labels_hash=labels_hash(labelled),
            data=DataRecord(
                name=data.name,
                count=len(data.images),
                hash=data.hash,
                preprocess=data.preprocess,
                policy=trainer.policy.name,
                label_names=data.label_names,
                notes=data.notes,
            ),
            precision=trainer.precision,
            device=str(trainer.device),
            ranks=ranks.count,
            threads=torch.get_num_threads(),
            kernel=kernel_status(trainer.device.type),
            versions=versions(),
        )
        folder.start(config, record)
        write_calibration(folder.path, data.images)
        session = cls(folder, trainer, data, record)
        session._save_state()  # killed before anything else is saved, it can be resumed
        return session

    @classmethod
    def resume(
        cls,
        folder: RunFolder,
        data: ImageData,
        labelled: LabelledImages | None = None,
        ranks: Ranks = ALONE,
        origin: Origin | None = None,
        device: Device | None = None,
        named: Path | None = None,
    ) -> "Session":
        """Go on with the run in `folder`, in the precision it was begun in.

        Parameters
        ----------
        origin : Origin, optional
            Where its images are now.
        device : str, optional
            Where it goes on.
        named : Path, optional
            The folder that messages tell to resume, where that is another one: of several seeds.

        Raises
        ------
        DataError
            When its state does not belong to these settings, images, labels or ranks.
        UsageError, DeviceError
            As a new run's.
        """
        record, config = folder.read_record(), folder.read_config()
        if record.config_hash not in (folder.config_hash(), _hash(config)):  # of the file as it was written, or written anew
            raise DataError(f"{folder.path}/config.json was changed since the state was saved: restore it, or start a new run")
        require_same(named or folder.path, record, data, labelled)
        if record.ranks != ranks.count:
            torchrun = "" if record.ranks == 1 else f"torchrun --no-python --nproc-per-node {record.ranks} "
            raise DataError(
                f"{folder.path} was begun by {record.ranks} ranks and would go on with {ranks.count}, on other parts of each batch:"
                f" {torchrun}catvae-train --resume {typed(folder.path)}"
            )
        trainer = Trainer(data, as_begun(config, record, device), labelled, ranks)
        position = read_position(folder.path)
        trainer.restore(position)
        load_state(folder.path, position, trainer.model, trainer.trained.optimizer)
        record.status, record.origin = "running", origin or record.origin
        _note_the_machine(record, trainer)
        folder.write_record(record)
        return cls(folder, trainer, data, record)

    def train(self, on_step: Callable[[BatchLoss], None] | None = None) -> None:
        """Train to the end, keeping state; on a signal or a numeric failure the run folder says so before the exception goes on."""
        try:
            words = "stopping after this step, and saving; once more: at once, from what was last saved"
            self.trainer.run(Hooks(on_step, on_start=self._save_state, on_epoch=self._after_epoch), on_signal=words)
            self._save_state()  # what is left to do, `finish`, can be repeated
        except (Interrupted, KeyboardInterrupt):
            with stop_on_signals():  # an impatient second signal waits for the state, a third does not
                if self.trainer.consistent:  # else it came at once, in the middle of a step: what was last saved stands
                    self._save_state()
                self._write("interrupted")
            raise
        except Exception:
            with stop_on_signals(), contextlib.suppress(OutputError):  # of a full disc the first message is the one that counts
                self._write("failed")
            raise

    def finish(self) -> RunRecord:
        """Weights, scores, health, verdict, the final pictures and the report; interrupted or failed, it can be resumed and done again."""
        try:
            return self._finish()
        except (Interrupted, KeyboardInterrupt):
            self._write("interrupted")
            raise
        except Exception:
            with contextlib.suppress(OutputError):
                self._write("failed")
            raise

    def _finish(self) -> RunRecord:
        trainer, record, data = self.trainer, self.record, self.data
        model, seed, dropout = trainer.model, trainer.config.seed, trainer.config.legacy
        with seeded(seed, trainer.device):
            assignment = evaluation.assign(model, data.images, dropout=dropout)
            record.scores = evaluation.scores(model, assignment, data, dropout=dropout)
            homes = clusters_of_classes(model, trainer.labelled) if trainer.labelled else []
        names = evaluation.cluster_names(assignment, data, trainer.labelled, homes)
        record.clusters = evaluation.cluster_records(assignment, names)
        health, verdict = diagnose(trainer, data.images, assignment)
        bound = evaluation.bound_record(model, data, seed)
        if wild := [name for name, value in {**bound, **health}.items() if not math.isfinite(value)]:
            raise NumericError(f"the trained network gives numbers that are not finite ({', '.join(wild)}): lower --learning-rate")
        notes = evaluation.notes_on_labels(record.scores, verdict.status, len(names), trainer.labelled, homes)
        record.health, record.verdict, record.bound = health, msgspec.structs.replace(verdict, notes=(*verdict.notes, *notes)), bound
        self._picture("final", pictures.picture_samples(model, names, seed))
        self._picture("clusters", pictures.picture_clusters(assignment, data, names))
        self._picture("reconstructions", pictures.picture_reconstructions(model, data))
        atomic_write(self.folder.weights, weights_bytes(model))
        self._update()
        page = run_report(model, data, assignment, record, self.folder.read_config(), trainer.position.rows)
        atomic_write(self.folder.page, page)
        self._save_state()
        self._write("finished")
        return record

    def _after_epoch(self) -> None:
        trainer = self.trainer
        epoch = trainer.position.step // trainer.steps_per_epoch
        if time.monotonic() - self._shown > SHOW_EVERY:
            self._show()
        drawing = trainer.start_chosen and trainer.position.step > trainer.warm_steps  # before, the generator has not begun
        if drawing and epoch % max(1, trainer.epochs // DRAWINGS) == 0 and not trainer.finished:
            names = [str(i) for i in range(trainer.model.spec.clusters)]
            self._picture(f"epoch-{epoch:04d}", pictures.picture_samples(trainer.model, names, trainer.config.seed))
        if time.monotonic() - self._saved > SAVE_EVERY:
            self._save_state()

    def _picture(self, name: str, image: Image) -> None:
        atomic_write(self.folder.path / "samples" / f"{name}.png", png_bytes(image))

    def _show(self) -> None:
        self.folder.write_metrics(self.trainer.position.rows)
        self._shown = time.monotonic()

    def _save_state(self) -> None:
        self._show()
        save_state(self.folder.path, self.trainer.model, self.trainer.trained.optimizer, self.trainer.position)
        self._saved = time.monotonic()

    def _write(self, status: Literal["running", "finished", "interrupted", "failed"]) -> None:
        self.record.status = status
        self._update()
        self.folder.write_record(self.record)

    def _update(self) -> None:
        """Bring the record to where the trainer is."""
        self.record.epochs = self.trainer.position.step // self.trainer.steps_per_epoch
        self.record.spec = self.trainer.model.spec
        self.record.events = self.trainer.position.events
        self.record.start_scores = self.trainer.position.start_scores
        self.record.seconds = round(self.trainer.position.seconds, 2)


def as_begun(config: TrainConfig, record: RunRecord, device: Device | None = None) -> TrainConfig:
    """A run's configuration with the precision that `auto` meant where it was begun, which another machine may choose otherwise, and with
    another device, where one is named: what it was begun on may be gone."""
    return msgspec.structs.replace(config, precision=record.precision, device=device or config.device)


def require_same(run: Path, record: RunRecord, data: ImageData, labelled: LabelledImages | None) -> None:
    """Raise `DataError` where images, or labels, are not those that the run in folder `run` was started with."""
    if record.data.hash != data.hash:
        raise DataError(
            f"'{data.name}' holds other images than {run} was started with ({record.origin.data}): restore them, or name where"
            f" they are now, catvae-train DATA --resume {typed(run)}"
        )
    if record.labels_hash != labels_hash(labelled):
        if not record.labels_hash:
            raise DataError(f"{run} was started without --labels: leave them out; catvae-label names clusters of its bundle")
        raise DataError(
            f"--labels holds other images or classes than {run} was started with ({record.origin.labels}): restore them, or name"
            f" where they are now, catvae-train --labels PATH --resume {typed(run)}"
        )


def _note_the_machine(record: RunRecord, trainer: Trainer) -> None:
    """Note what differs from what the run began with, device, kernel, threads or versions: the result may differ in its last digits."""
    kernel, threads = kernel_status(trainer.device.type), torch.get_num_threads()
    here = {"device": str(trainer.device), "kernel": kernel, "threads": threads, **versions()}
    before = {"device": record.device, "kernel": record.kernel, "threads": record.threads, **record.versions}
    changed = [f"{name} {old} -> {here[name]}" for name, old in before.items() if name in here and old not in ("", 0, here[name])]
    if changed:
        record.resumed.append(f"step {trainer.position.step:,}: {', '.join(changed)}")
    record.device, record.kernel, record.threads, record.versions = str(trainer.device), kernel, threads, versions()


def _hash(config: TrainConfig) -> str:
    return sha256(pretty_json(config))
