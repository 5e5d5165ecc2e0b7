"""The life of a run on disk: start or continue it, keep its state while it trains, draw and score it at the end."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from catvae.runtime.errors import DataError
from catvae.runtime.files import atomic_write, sha256
from catvae.runtime.grid import png_bytes

from . import evaluation
from .checkpoint import load_state, save_state, weights_bytes
from .config import TrainConfig
from .data import ImageData
from .metrics import health
from .objective import BatchLoss
from .run_folder import DataRecord, RunFolder, RunRecord, pretty_json, versions
from .training import Interrupted, Trainer

SAVE_EVERY = 20.0
"""Seconds between two saved states, at least."""
PICTURES = 8
"""Sample grids drawn during training."""


class Session:
    """One trainer and the folder it writes to; make it with `start` or `resume`."""

    def __init__(self, folder: RunFolder, trainer: Trainer, data: ImageData, record: RunRecord):
        self.folder, self.trainer, self.data, self.record = folder, trainer, data, record
        self._saved = time.monotonic()

    @classmethod
    def start(cls, folder: RunFolder, data: ImageData, config: TrainConfig, source: str, image_size: int | None) -> "Session":
        """Begin a new run: the network is built and the folder's first files are written."""
        trainer = Trainer(data, config)
        record = RunRecord(
            spec=trainer.spec,
            source=str(Path(source).resolve()) if Path(source).exists() else source,
            image_size=image_size,
            config_hash=_hash(config),
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
            versions=versions(),
        )
        folder.start(config, record)
        return cls(folder, trainer, data, record)

    @classmethod
    def resume(cls, folder: RunFolder, data: ImageData) -> "Session":
        """Go on with the run in `folder`; raises `DataError` when its state does not belong to these settings and images."""
        record, config = folder.read_record(), folder.read_config()
        trainer = Trainer(data, config)
        position = load_state(folder.path, trainer.model, trainer.optimizer)
        if record.config_hash != _hash(config):
            raise DataError(f"{folder.path}/config.json was changed since the state was saved: restore it, or start a new run")
        if record.data.hash != data.hash:
            raise DataError(f"{record.source} holds other images than this run was started with: restore them, or start a new run")
        if trainer.precision != record.precision:
            raise DataError(f"this run was trained in {record.precision}, this machine would go on in {trainer.precision}")
        trainer.position = position
        record.status = "running"
        return cls(folder, trainer, data, record)

    def train(self, on_step: Callable[[BatchLoss], None] | None = None) -> None:
        """Train to the end, keeping state; on a signal or a numeric failure the run folder says so before the exception goes on."""
        try:
            self.trainer.run(on_step=on_step, on_epoch=self._after_epoch)
        except Interrupted:
            self._save_state()
            self._write("interrupted")
            raise
        except Exception:
            self._write("failed")
            raise

    def finish(self) -> RunRecord:
        """Weights, scores, health and the final pictures."""
        trainer, record, data = self.trainer, self.record, self.data
        dropout = trainer.config.legacy
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trainer.config.seed)
            assignment = evaluation.assign(trainer.model, data.images, dropout=dropout)
            record.scores = {
                part: score._asdict() for part, score in evaluation.scores(trainer.model, assignment, data, dropout=dropout).items()
            }
        record.clusters = evaluation.cluster_records(assignment, data)
        state = health(assignment)
        record.health = {name: float(value) for name, value in state._asdict().items()}
        record.warnings = evaluation.warnings_of(state, trainer.config.clusters)
        names = [cluster.name for cluster in record.clusters]
        self._picture("final", evaluation.picture_samples(trainer.model, names, trainer.config.seed))
        self._picture("clusters", evaluation.picture_clusters(assignment, data, names))
        self._picture("reconstructions", evaluation.picture_reconstructions(trainer.model, data))
        atomic_write(self.folder.path / "model.safetensors", weights_bytes(trainer.model))
        self._save_state()
        self._write("finished")
        return record

    def _after_epoch(self) -> None:
        trainer = self.trainer
        epoch = trainer.position.step // trainer.steps_per_epoch
        self.folder.write_metrics(trainer.position.rows)
        if epoch % max(1, trainer.epochs // PICTURES) == 0 and not trainer.finished:
            names = [str(i) for i in range(trainer.config.clusters)]
            self._picture(f"epoch-{epoch:04d}", evaluation.picture_samples(trainer.model, names, trainer.config.seed))
        if time.monotonic() - self._saved > SAVE_EVERY:
            self._save_state()

    def _picture(self, name: str, image) -> None:
        atomic_write(self.folder.path / "samples" / f"{name}.png", png_bytes(image))

    def _save_state(self) -> None:
        save_state(self.folder.path, self.trainer.model, self.trainer.optimizer, self.trainer.position)
        self._saved = time.monotonic()

    def _write(self, status) -> None:
        self.record.status = status
        self.record.epochs = self.trainer.position.step // self.trainer.steps_per_epoch
        self.record.start_scores = self.trainer.position.start_scores
        self.record.seconds = round(self.trainer.position.seconds, 2)
        self.folder.write_record(self.record)


def _hash(config: TrainConfig) -> str:
    return sha256(pretty_json(config))
