"""The run folder: what `catvae-train` leaves behind and `catvae-export` reads.

config.json         every setting, resolved            run.json       status, data, clusters, scores, versions
model.safetensors   the weights                        metrics.csv    terms per epoch
state.*             for an exact resume                samples/*.png  pictures
report.html         all of it on one page       calibration.*  a sample of the images, for export; see `held_back`
seeds.json, seeds/  with --seeds: every run that was trained for this result, see `seeds`
"""

import contextlib
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from catvae.runtime.bundles.bundle_files import refuse_inside
from catvae.runtime.errors import DataError, OutputError, UsageError
from catvae.runtime.files import atomic_write, half_written, lock, make_folder, pretty_json, require_writable, sha256
from catvae.runtime.ours import CONFIG, MANIFEST, PAGE, PLAN, RECORD

from ..config import TrainConfig
from ..images import held_back
from ..training.checkpoint import POSITION, PREVIOUS, TENSORS, load_weights
from ..vae.model import CatVAE
from .record import SCHEMA, RunRecord

WEIGHTS, METRICS = "model.safetensors", "metrics.csv"
RESULTS = (WEIGHTS, PAGE)
"""Files that a finished run must have; one that lost any of them is finished again."""
FILES = (
    CONFIG,
    WEIGHTS,
    TENSORS,
    PREVIOUS,
    POSITION,
    METRICS,
    held_back.FILE,
    PAGE,
    PLAN,
    RECORD,
)
"""In the order of removal: the files that identify a run folder come last, so that an interrupted removal can be repeated."""
IDENTIFYING: dict[str, dict[str, type]] = {RECORD: {"status": str, "spec": dict, "config_hash": str}, PLAN: {"seeds": list}}
"""Files that identify a run folder of any version, and keys that each of them must hold."""
PICTURES = ("final.png", "clusters.png", "reconstructions.png", "epoch-*.png")


class RunFolder:
    """Reads and writes one run.

    Parameters
    ----------
    path : path
        Created when it is locked, or a file is first written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def check_free(self, *, overwrite: bool) -> None:
        """Raise `UsageError` when the folder holds something a new run would replace, `OutputError` when nothing can be written there."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file, expected the name of a run folder")
        refuse_inside(None, self.path)
        if self.path.is_dir() and not all(half_written(file, FILES) for file in self.path.iterdir()):
            if not _holds_a_run(self.path):
                only = ": --overwrite only replaces runs" if overwrite else ""
                raise UsageError(f"{self.path} is not empty and not a run folder{only}; choose another -o")
            if not overwrite:
                raise UsageError(f"{self.path} is not empty: choose another -o, continue it with --resume, or replace it with --overwrite")
        require_writable(self.path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other calls of `catvae-train` away from the folder, which is created; raises `UsageError` when one is at work there."""
        make_folder(self.path)
        if os.name == "nt":  # folders cannot be opened there
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                lock(handle)
            except BlockingIOError as error:
                raise UsageError(f"another catvae-train is at work in {self.path}: wait for it, or choose another -o") from error
            yield
        finally:
            os.close(handle)

    def start(self, config: TrainConfig, record: RunRecord) -> None:
        """Create the folder and its first files; what an earlier run left there is removed. Raises `OutputError`."""
        self.clear()
        make_folder(self.path)
        self.write_record(record)  # first: killed before the next is written, the folder can still be identified
        self.write_config(config)

    def clear(self) -> None:
        """Remove what an earlier run left; raises `OutputError` where it cannot be."""
        try:
            for folder in (self.path / "seeds").glob("[0-9]*"):
                if folder.name.isdecimal() and any((folder / name).is_file() for name in (CONFIG, RECORD)):
                    RunFolder(folder).clear()
                    _remove_empty(folder)
            _remove_empty(self.path / "seeds")
            rests = [file for file in self.path.glob(".*.tmp") if half_written(file, FILES)]
            for file in (*rests, *self.files()):
                file.unlink()
            _remove_empty(self.path / "samples")
        except OSError as error:
            raise OutputError(f"cannot remove {error.filename} of the run that was there: {error.strerror or error}") from error

    def files(self) -> list[Path]:
        """The files that a run has written here, without those of its seeds and anything else, such as a bundle."""
        pictures = [picture for name in PICTURES for picture in sorted((self.path / "samples").glob(name))]
        return [*pictures, *(file for name in FILES if (file := self.path / name).is_file())]

    def write_config(self, config: TrainConfig) -> None:
        """Write every setting, as `config.json`; raises `OutputError`."""
        atomic_write(self.path / CONFIG, pretty_json(config))

    def write_record(self, record: RunRecord) -> None:
        """Write the record of the run so far, as `run.json`; raises `OutputError`."""
        atomic_write(self.path / RECORD, pretty_json(record))

    def write_metrics(self, rows: list[dict[str, float | None]]) -> None:
        """Rewrite `metrics.csv`; floats keep six significant digits, terms that were not computed are left empty."""
        if not rows:  # killed before its state was saved, a run may have left some
            (self.path / METRICS).unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value is None else f"{value:.6g}" for key, value in row.items()} for row in rows)
        atomic_write(self.path / METRICS, text.getvalue())

    def read_metrics(self) -> list[dict[str, float | None]]:
        """Rows of `metrics.csv`, terms that were not computed as None; no rows where there is no such file.

        Raises
        ------
        DataError
            When it is something else.
        """
        path = self.path / METRICS
        if not path.is_file():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                return [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(stream)]
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise DataError(f"{path} is damaged: {error}") from error

    def read_config(self) -> TrainConfig:
        """The settings in `config.json`; raises `DataError` where it is missing or damaged."""
        return self._read(CONFIG, TrainConfig)

    def config_hash(self) -> str:
        """SHA-256 of `config.json` as it is; a later version may know settings that it does not name."""
        return sha256((self.path / CONFIG).read_bytes())

    def read_record(self) -> RunRecord:
        """The record in `run.json`; raises `DataError` where it is missing, damaged, or of another version."""
        record = self._read(RECORD, RunRecord)
        if record.schema != SCHEMA:
            raise DataError(f"{self.path / RECORD} has schema {record.schema}, this version reads {SCHEMA}")
        return record

    @property
    def complete(self) -> bool:
        """Whether the run is finished and its results are still there."""
        if not (self.path / RECORD).is_file() or self.read_record().status != "finished":
            return False
        return all((self.path / name).is_file() for name in RESULTS)

    @property
    def page(self) -> Path:
        """The file of the report."""
        return self.path / PAGE

    @property
    def weights(self) -> Path:
        """The file of the trained weights."""
        return self.path / WEIGHTS

    def read_model(self) -> CatVAE:
        """The trained network, in evaluation mode, on the CPU."""
        model = CatVAE(self.read_record().spec)
        load_weights(model, self.weights)
        return model.eval()

    def _read(self, name: str, type_: Any) -> Any:
        path = self.path / name
        if not self.path.is_dir():
            raise DataError(f"{self.path} is not a run folder: no such folder; catvae-train -o makes one")
        if not path.is_file():
            if (self.path / MANIFEST).is_file():
                raise DataError(f"{self.path} is a bundle, not a run: a bundle is made of a run, by catvae-export --onnx")
            raise DataError(f"{self.path} is not a run folder: it has no {name}; catvae-train -o makes one")
        try:
            return msgspec.json.decode(path.read_bytes(), type=type_)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}") from error


def _holds_a_run(folder: Path) -> bool:
    """Whether what `IDENTIFYING` names is there, and not a file of the user's that has such a name."""
    for name, held in IDENTIFYING.items():
        with contextlib.suppress(OSError, ValueError, RecursionError):  # not there, not JSON
            found = msgspec.json.decode((folder / name).read_bytes())
            if isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in held.items()):
                return True
    return False


def _remove_empty(folder: Path) -> None:
    """Remove a folder, unless it holds what is not ours."""
    with contextlib.suppress(OSError):
        folder.rmdir()
