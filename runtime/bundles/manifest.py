"""`manifest.json`: what a bundle holds, how images are read for it, and what its clusters are. What it may say is in `manifest_checks`.

Unknown fields are ignored within one schema number, so that older runtimes read newer bundles of the same major form.
"""

import json
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..images.preprocess import Preprocess
from .manifest_checks import require_distinct_keys, require_sense
from .manifest_seal import require_seal

SCHEMA = 1
MAX_BYTES = 4 * 2**20
Role = Literal["classifier", "encoder", "decoder"]


class TensorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output of a graph; the first dimension is the batch, named ``batch``."""

    name: str
    dtype: str
    shape: list[int | str]


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside the manifest."""

    name: str
    """A plain file name: no folder, no drive."""
    sha256: str
    size: int


class GraphRecord(FileRecord, frozen=True, kw_only=True):
    """One ONNX graph."""

    precision: str
    opset: int
    ir: int
    inputs: list[TensorRecord]
    outputs: list[TensorRecord]


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster, as training left it."""

    name: str
    share: float
    """Share of the training images."""
    mean_confidence: float
    reject_threshold: float | None = None
    """Evidence lower bound in nats below which an image is none of this cluster's; None: never."""
    reject_relative: float | None = None
    """The same of the bound relative to the most that the image's pixels allow, see `scoring`."""


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence lower bounds in nats, and contrast, of images like those trained on: what reject thresholds were read from."""

    images: int
    held_back: bool
    """False: the data was too small to hold images back, and these were trained on."""
    quantile: float
    """Share of them that lies below one of their cluster's two thresholds, about."""
    mean: float
    standard_deviation: float
    least_contrast: float = 0.0
    """`scoring.contrast` below which an image is unknown, whatever its score; 0: never. A blank frame is easily explained."""


class Quantisation(msgspec.Struct, frozen=True, kw_only=True):
    """How graphs of reduced precision compare with those of full precision, on the images that the run kept."""

    cluster_agreement: float
    images: int
    held_back: int = 0
    """How many of `images` were not trained on; 8-bit ranges were read from the others."""
    pixel_difference: float
    """Mean |reduced - full| of the images' reconstructions, in [0, 1]: encoder and decoder together."""
    drawing_difference: float
    """The same of drawings from every mode of the prior: the decoder alone."""
    mean_difference: float
    """Mean |reduced - full| of the images' posterior means, in parts of their standard deviation."""
    size_ratio: float
    """Bytes of all graphs over those in fp32."""

    @property
    def words(self) -> str:
        """For people."""
        return (
            f"{self.cluster_agreement:.2%} of {self.images:,} images keep the cluster they have in fp32; reconstructions"
            f" {self.pixel_difference:.1e}, drawings {self.drawing_difference:.1e} of full scale away, posterior means"
            f" {self.mean_difference:.1e} of their standard deviation"
        )


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far onnxruntime's answers were from PyTorch's at export."""

    batches: list[int]
    max_difference: dict[str, float]
    """Per graph output, relative above 1."""
    cluster_agreement: float
    onnxruntime: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model comes from."""

    recipe: str
    seed: int
    data: str
    data_hash: str
    images: int
    """Number of images in the data set."""
    held_back: int = 0
    """How many of `images` were kept out of training."""
    label_weight: float = 0.0
    """Weight of the cross-entropy of a few labelled images; 0: no label was trained on."""
    epochs: int
    versions: dict[str, str]

    @property
    def learnt_from(self) -> str:
        """For people: how many images were trained on, and whether labels were."""
        labels = f"with a few labels of weight {self.label_weight:g}" if self.label_weight else "without labels"
        return f"{self.images - self.held_back:,} images {labels}"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    schema: int
    model_id: str
    """SHA-256 over the graphs' hashes."""
    weights: str
    """SHA-256 of the trained weights; every graph carries it too."""
    precision: str = "fp32"
    clusters: list[Cluster]
    delta: int
    lam: float = msgspec.field(name="lambda")
    preprocess: Preprocess
    graphs: dict[Role, GraphRecord]
    golden: FileRecord
    training: FileRecord
    """See `training_record`."""
    tolerances: dict[str, float]
    """Largest difference from the golden outputs, relative above 1, per provider."""
    metrics: dict[str, dict[str, float]] = {}
    """ACC, NMI, ARI per part, when the training data had labels."""
    health: dict[str, float] = {}
    scoring: Scoring | None = None
    quantisation: Quantisation | None = None
    parity: Parity
    provenance: Provenance
    min_runtime: dict[str, str] = {}
    """Oldest versions that answer within the tolerances, per engine."""
    seal: str = ""
    """See `manifest_seal`; not known before it is written."""

    @property
    def latent(self) -> int:
        """D = K * delta."""
        return len(self.clusters) * self.delta

    @property
    def names(self) -> list[str]:
        """Cluster names in cluster order."""
        return [cluster.name for cluster in self.clusters]

    def with_names(self, names: Sequence[str]) -> "Manifest":
        """The same with other names, in cluster order; not sealed."""
        clusters = [msgspec.structs.replace(cluster, name=name) for cluster, name in zip(self.clusters, names, strict=True)]
        return msgspec.structs.replace(self, clusters=clusters)

    @property
    def files(self) -> list[FileRecord]:
        """Every file that is read by its hash."""
        return [*self.graphs.values(), self.golden, self.training]

    @property
    def reject_thresholds(self) -> NDArray[np.float64]:
        """(2, K), of the bound and of the relative bound; minus infinity where a cluster rejects nothing.

        As they are written: in float32 one might be rounded above the score it was read from.
        """
        thresholds = [[c.reject_threshold for c in self.clusters], [c.reject_relative for c in self.clusters]]
        return np.array([[-np.inf if value is None else value for value in row] for row in thresholds], np.float64)

    @property
    def least_contrast(self) -> float:
        """The contrast below which an image is unknown; 0 rejects nothing."""
        return self.scoring.least_contrast if self.scoring else 0.0

    @property
    def groups(self) -> list[int]:
        """The first cluster with the same name, per cluster: clusters that share a name are one class."""
        first: dict[str, int] = {}
        return [first.setdefault(cluster.name, i) for i, cluster in enumerate(self.clusters)]


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Check and decode `manifest.json`.

    Raises
    ------
    DataError
        When it is no manifest, is of another schema, was changed since it was written, or names unsafe files.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{where} has {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema != SCHEMA:
            raise DataError(f"{where} has schema {schema}, this version reads {SCHEMA}: use the matching version of catvae")
        manifest = msgspec.json.decode(data, type=Manifest)
        require_seal(json.loads(data, object_pairs_hook=lambda pairs: require_distinct_keys(pairs, where)), where)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: no text, or a number of thousands of digits
        raise DataError(f"{where} is not a bundle manifest: {error}") from error
    missing = {"classifier", "encoder", "decoder"} - manifest.graphs.keys()
    if missing or not manifest.clusters or manifest.delta < 1:
        lacks = ", ".join(sorted(missing)) or ("clusters" if not manifest.clusters else "latent dimensions")
        raise DataError(f"{where} describes no {lacks}")
    require_sense(manifest, where)
    return manifest


class _Schema(msgspec.Struct):
    schema: int
