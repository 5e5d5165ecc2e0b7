"""The record of a run, `run.json`, and its parts. The folder itself is in `folder`."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from catvae.runtime.images.preprocess import Preprocess

from ..images.data import is_named
from ..training.checkpoint import Event
from ..vae.model import ModelSpec
from .verdict import Verdict

SCHEMA = 3


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
    """Name of the class it was matched with, where there are labels (never used in training), else ``cluster 3``; its number where no class
    is known."""
    share: float
    """Share of the training images."""
    mean_confidence: float
    """Mean q(c|x) over the images assigned to it; 0 for an empty cluster."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run's images come from, as its command named it: a resumed run reads them again."""

    data: str
    image_size: int | None = None
    labels: str | None = None
    """Path given with --labels."""
    classes: bool = True
    """Whether names of sub-folders and stored labels are classes."""

    @classmethod
    def of(cls, data: str, image_size: int | None = None, labels: str | None = None, *, classes: bool = True) -> "Origin":
        """Paths made absolute."""
        return cls(data=source_of(data), image_size=image_size, labels=source_of(labels) if labels else None, classes=classes)


def source_of(path: str) -> str:
    """A path made absolute; the name of a data set as it is, so that what is no absolute path is one."""
    return path if is_named(path) or not Path(path).exists() else str(Path(path).resolve())


class SeedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One of several runs for one result."""

    seed: int
    clusters: int
    view_information: float
    """Nats that its clusters share with those of views."""
    agreement: float
    """Mean adjusted Rand index with the clusters of the other runs that may be kept, healthy ones of the usual K where there are: what the
    kept run was chosen by."""
    verdict: str
    acc: dict[str, float]
    """Per part that has labels; for the report alone."""
    kept: bool


class RunRecord(msgspec.Struct, kw_only=True):
    """`run.json`."""

    schema: int = SCHEMA
    status: Literal["running", "finished", "interrupted", "failed"] = "running"
    spec: ModelSpec
    origin: Origin
    config_hash: str
    """SHA-256 of `config.json`: a resumed run must be the one that was started."""
    labels_hash: str = ""
    """SHA-256 of the images and classes given with --labels."""
    start_scores: list[float] = []
    """Score of each start, in nats, see `starts.worth`; `starts.FAILED` where its loss was not a finite number. The best went on."""
    data: DataRecord
    clusters: list[ClusterRecord] = []
    scores: dict[str, dict[str, float]] = {}
    """Per part (train, test): acc, nmi, ari, ece, when labels exist."""
    health: dict[str, float] = {}
    bound: dict[str, float] = {}
    """Exact bound, importance-weighted likelihood, in nats per image."""
    verdict: Verdict | None = None
    events: list[Event] = []
    """What was done to the clusters while training."""
    resumed: list[str] = []
    """Changes of device, kernel, threads and versions on the way."""
    seeds: list[SeedRecord] = []
    """The runs this one was chosen from, when there were several."""
    epochs: int = 0
    """Finished epochs."""
    seconds: float = 0.0
    precision: str = "fp32"
    device: str = "cpu"
    kernel: str = ""
    """Which compiled kernel trained, or why none did."""
    threads: int = 0
    """Of the CPU, in each process; 0 where it was not noted."""
    ranks: int = 1
    """Processes that trained together."""
    versions: dict[str, str] = {}


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("catvae", "torch", "numpy", "Pillow", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
