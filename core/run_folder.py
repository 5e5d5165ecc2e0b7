"""The run folder: what `catvae-train` leaves behind and `catvae-export` reads.

config.json         every setting, resolved            run.json       status, data, clusters, scores, versions
model.safetensors   the weights                        metrics.csv    terms per epoch
state.*             for an exact resume                samples/*.png  pictures
"""

import csv
import io
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec

from catvae.runtime.errors import DataError, UsageError
from catvae.runtime.files import atomic_write, make_folder
from catvae.runtime.images import Preprocess

from .checkpoint import load_weights
from .config import TrainConfig
from .model import CatVAE, ModelSpec

SCHEMA = 1


class DataRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The training data, as far as a run remembers it."""

    name: str
    count: int
    hash: str
    preprocess: Preprocess
    policy: str
    """View policy that was used."""
    label_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster after training."""

    name: str
    """Of the class it was matched with when labels exist (never used in training), else its number."""
    share: float
    """Of the training images."""
    mean_confidence: float
    """Mean q(c|x) over the images assigned to it; 0 for an empty cluster."""


class RunRecord(msgspec.Struct, kw_only=True):
    """`run.json`."""

    schema: int = SCHEMA
    status: Literal["running", "finished", "interrupted", "failed"] = "running"
    spec: ModelSpec
    source: str
    """What the data argument was."""
    image_size: int | None = None
    config_hash: str
    """SHA-256 of `config.json`: a resumed run must be the one that was started."""
    start_scores: list[float] = []
    """Nats that the short runs at the beginning shared with views; the best went on."""
    data: DataRecord
    clusters: list[ClusterRecord] = []
    scores: dict[str, dict[str, float]] = {}
    """Per part (train, test): acc, nmi, ari, when labels exist."""
    health: dict[str, float] = {}
    warnings: list[str] = []
    epochs: int = 0
    """Finished epochs."""
    seconds: float = 0.0
    precision: str = "fp32"
    device: str = "cpu"
    versions: dict[str, str] = {}


def versions() -> dict[str, str]:
    """Of this package, Python and the libraries a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("catvae", "torch", "numpy", "Pillow", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class RunFolder:
    """Reads and writes one run.

    Parameters
    ----------
    path : path
        Created when a file is first written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def check_free(self, *, overwrite: bool) -> None:
        """Raise `UsageError` when the folder holds something a new run would replace."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file, expected the name of a run folder")
        if self.path.is_dir() and any(self.path.iterdir()):
            if not overwrite:
                raise UsageError(f"{self.path} is not empty: choose another -o, continue it with --resume, or replace it with --overwrite")
            if not (self.path / "run.json").is_file():
                raise UsageError(f"{self.path} is not a run folder: --overwrite only replaces runs; choose another -o")

    def start(self, config: TrainConfig, record: RunRecord) -> None:
        """Create the folder and its first files; what an earlier run left there is removed."""
        for name in ("model.safetensors", "state.safetensors", "state.json", "metrics.csv"):
            (self.path / name).unlink(missing_ok=True)
        for picture in (self.path / "samples").glob("*.png"):
            picture.unlink()
        make_folder(self.path)
        self.write_config(config)
        self.write_record(record)

    def write_config(self, config: TrainConfig) -> None:
        atomic_write(self.path / "config.json", pretty_json(config))

    def write_record(self, record: RunRecord) -> None:
        atomic_write(self.path / "run.json", pretty_json(record))

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        """Rewrite `metrics.csv`; floats keep six significant digits."""
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        atomic_write(self.path / "metrics.csv", text.getvalue())

    def read_config(self) -> TrainConfig:
        return self._read("config.json", TrainConfig)

    def read_record(self) -> RunRecord:
        record = self._read("run.json", RunRecord)
        if record.schema != SCHEMA:
            raise DataError(f"{self.path / 'run.json'} has schema {record.schema}, this version reads {SCHEMA}")
        return record

    def read_model(self) -> CatVAE:
        """The trained network, in evaluation mode, on the CPU."""
        model = CatVAE(self.read_record().spec)
        load_weights(model, self.path / "model.safetensors")
        return model.eval()

    def _read(self, name: str, type_: Any) -> Any:
        path = self.path / name
        if not self.path.is_dir():
            raise DataError(f"{self.path} is not a run folder: no such folder; catvae-train -o makes one")
        if not path.is_file():
            raise DataError(f"{self.path} is not a run folder: it has no {name}; catvae-train -o makes one")
        try:
            return msgspec.json.decode(path.read_bytes(), type=type_)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}") from error


def pretty_json(value: Any) -> bytes:
    """`value` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
