"""A bundle in use: sessions made when first needed, and the calls that answer. Its files are read in `bundle_files`.

bundle = Bundle.load(path)
bundle.predict(images), bundle.predict_proba(images), bundle.transform(images), bundle.score_samples(images)
bundle.sample(cluster, n, seed)
"""

import os
import threading
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from ..images.image_files import image_of_array, read_image
from ..images.preprocess import Preprocess
from ..names import UNKNOWN_NAME
from .answers import UNKNOWN, Answers
from .arguments import images_like, rows_of_numbers, whole_number
from .bundle_files import find_bundle, read_manifest, read_verified
from .latents import prior_means, prior_samples
from .manifest import FileRecord, Manifest, Role
from .matching import winners
from .scoring import contrast, elbo, pixel_entropy, score_latents
from .session import OutOfMemory, Session, finite_rows, require_runtime
from .training_record import Training, parse_training

DEVICES = ("cpu", "cuda", "auto")
EXAMINED = 512
"""Images whose reconstructions are held at a time: 25 MB of 64 x 64 pixels in colour, and as much again for their score."""
ONNX_TYPES = {"float32": "float"}
"""onnxruntime's name of a type, where it is not numpy's."""

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Bundle:
    """A verified bundle; make it with `Bundle.load`.

    Every graph is read once into memory, checked against the manifest's size and sha256, and run from those very bytes. Calls may come from
    any thread; after a fork, sessions are made anew in the child.

    Parameters
    ----------
    manifest : Manifest
    graphs : dict
        Verified bytes of the ONNX graph of each role.
    path : Path
        The folder; other files are read from there when first needed.
    device, threads, tf32
        See `load`.
    """

    def __init__(
        self,
        manifest: Manifest,
        graphs: dict[Role, bytes],
        path: Path,
        *,
        device: str = "cpu",
        threads: int | None = None,
        tf32: bool = False,
    ):
        self.manifest = manifest
        self.path = path
        self._graphs = graphs
        self._device, self._threads, self._tf32 = device, threads, tf32
        self._sessions: dict[tuple[int, Role], Session] = {}
        self._most: dict[Role, int] = {}
        """Images that fit into memory at a time, where more were seen not to."""
        self._locks: dict[int, threading.Lock] = {}
        """One for each process: see `session`."""

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, device: str = "cpu", threads: int | None = None, tf32: bool = False
    ) -> "Bundle":
        """Open and verify a bundle.

        Parameters
        ----------
        path : path, optional
            Folder of the bundle; see `find_bundle` for the default.
        device : str
            ``cpu``, ``cuda`` or ``auto``.
        threads : int, optional
            Per session; `processors.default_threads` when left out.
        tf32 : bool
            Faster, less exact products on CUDA.

        Raises
        ------
        UsageError
            When `path` is empty or none, `device` is none of the three, or `threads` no whole number from 1 on.
        DataError
            When the manifest or a graph is missing, of a wrong version, or not the one the manifest names.
        DeviceError
            When onnxruntime or the device is not available.
        """
        if device not in DEVICES:
            raise UsageError(f"there is no device {device!r}: expected one of {', '.join(DEVICES)}")
        threads = None if threads is None else whole_number(threads, "threads", 1)
        folder = find_bundle(path)
        manifest = read_manifest(folder)
        graphs: dict[Role, bytes] = {role: read_verified(folder, record) for role, record in manifest.graphs.items()}
        bundle = cls(manifest, graphs, folder, device=device, threads=threads, tf32=tf32)
        if device == "cuda":  # who insists on it should hear now
            bundle.session("classifier")
        return bundle

    def name_of(self, cluster: int) -> str:
        """The name of a cluster that `predict` or `examine` gave, ``unknown`` for -1: indexing `names` with that gives the last one.

        Raises
        ------
        UsageError
            For a cluster that does not exist.
        """
        clusters = self.manifest.clusters
        if not UNKNOWN <= cluster < len(clusters):
            raise UsageError(f"there is no cluster {cluster}: expected -1 to {len(clusters) - 1}")
        return UNKNOWN_NAME if cluster == UNKNOWN else clusters[cluster].name

    def __repr__(self) -> str:
        provenance, size = self.manifest.provenance, self.manifest.preprocess.size
        return f"<Bundle of {provenance.data}: {len(self.names)} clusters, {size}, {self.manifest.precision}>"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the manifest says, names and thresholds too: what rows depend on. Empty before it is written."""
        return self.manifest.seal

    @property
    def preprocess(self) -> Preprocess:
        """How image files become this model's tensors."""
        return self.manifest.preprocess

    @property
    def names(self) -> list[str]:
        """Cluster names in cluster order."""
        return self.manifest.names

    @property
    def provider(self) -> str:
        """Where the classifier runs: ``cpu`` or ``cuda``."""
        return self.session("classifier").provider

    def session(self, role: Role) -> Session:
        """The session of a graph, made on first use in each process.

        Raises
        ------
        DataError
            When it is not the graph that the manifest describes, or needs a newer onnxruntime.
        DeviceError
            When onnxruntime or the device is not available.
        """
        key = os.getpid(), role  # a session does not survive a fork
        with self._locks.setdefault(key[0], threading.Lock()):  # one that another thread held at a fork would stay held
            if key not in self._sessions:
                self._sessions[key] = self._make_session(role)
            return self._sessions[key]

    def _make_session(self, role: Role) -> Session:
        record = self.manifest.graphs[role]
        label = str(self.path / record.name)
        require_runtime(self.manifest.min_runtime.get("onnxruntime", ""), label)
        made = Session(self._graphs[role], label, device=self._device, threads=self._threads, tf32=self._tf32)
        # Of the shapes all but the first dimension, the batch, whose name is nobody's business.
        found = {name: (type_, tuple(shape[1:])) for name, (type_, shape) in made.signature().items()}
        wanted = {
            tensor.name: (f"tensor({ONNX_TYPES.get(tensor.dtype, tensor.dtype)})", tuple(tensor.shape[1:]))
            for tensor in (*record.inputs, *record.outputs)
        }
        if found != wanted:
            raise DataError(f"{label} has the tensors {found}, its manifest says {wanted}")
        if made.metadata.get("weights") != self.manifest.weights:
            raise DataError(f"{label} was exported from other weights than its manifest: files of two bundles are mixed; export again")
        return made

    def read(self, source: str | os.PathLike[str] | bytes | Images) -> Images:
        """A picture as this model's tensor, (H, W, C) uint8.

        Parameters
        ----------
        source : path, bytes or ndarray
            An image file, by its path or its bytes, or pixels in memory: uint8, (H, W) grey or (H, W, 3) RGB, of any size.

        Raises
        ------
        ImageError
            On a file that is none, or damaged; see `read_image`.
        UsageError
            On anything else.
        """
        if isinstance(source, np.ndarray):
            return image_of_array(source, self.preprocess)
        if not isinstance(source, str | bytes | os.PathLike):
            kind = f"a {type(source).__name__}" if source is not None else "None"
            raise UsageError(f"read() takes a file's path, its bytes, or an array of one picture, got {kind}")
        return read_image(source, self.preprocess)

    def golden(self) -> bytes:
        """The bytes of `golden.npz`, verified; raises `DataError`."""
        return self.file(self.manifest.golden)

    def training(self) -> Training:
        """The record of the training, from `training.json`, verified; raises `DataError`."""
        record = self.manifest.training
        return parse_training(self.file(record), str(self.path / record.name))

    def file(self, record: FileRecord) -> bytes:
        """A file of the bundle, verified; raises `DataError` when it is not the one the manifest names."""
        return read_verified(self.path, record)

    def decide(self, assignment: Floats) -> tuple[NDArray[np.int64], Floats]:
        """The cluster (N,) int64 and its confidence (N,) float32, from assignments (N, K).

        Clusters that share a name are one class: their shares are added, and the likeliest of the winning class is the answer.

        Raises
        ------
        UsageError
            On anything that is not (N, K) numbers.
        """
        return winners(rows_of_numbers(assignment, len(self.manifest.clusters), "assignments"), self.manifest.groups)

    def examine(self, images: Images, *, embed: bool = False, score: bool = False, batch_size: int = 64) -> Answers:
        """Everything there is to say of images; unlike the calls below, rows that are not finite do not raise.

        Parameters
        ----------
        images : ndarray, (N, H, W, C), uint8
        embed, score : bool
            Whether posterior means and scores are wanted, for which the other graphs are run too.
        batch_size : int
            Images that go through a graph at a time; answers do not depend on it.

        Raises
        ------
        UsageError
            On images of another type or shape, and a `batch_size` below 1.
        DataError
            When a graph is not the one the manifest describes, or not even one image fits into memory.
        DeviceError
            When onnxruntime or the device is not available.
        """
        images = images_like(images, self.preprocess.shape)
        starts = range(0, max(1, len(images)), EXAMINED)
        parts = [self._examined(images[i : i + EXAMINED], embed, score, batch_size) for i in starts]
        if len(parts) == 1:
            return parts[0]
        joined = (None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True))
        return Answers(*joined)  # pyright: ignore[reportArgumentType] - None is what was not asked for, in every part alike

    def _examined(self, images: Images, embed: bool, score: bool, batch_size: int) -> Answers:
        (assignment,) = self._run("classifier", images, ["assignment"], batch_size)
        clusters, confidence = winners(assignment, self.manifest.groups)  # of what is not finite too: its row says so
        outputs, embedding, bound, blank = [assignment], None, None, None
        if embed or score:
            mean, log_variance, cluster_kl = self._run("encoder", images, ["mean", "log_variance", "cluster_kl"], batch_size)
            outputs += [mean]
            embedding = mean if embed else None
            if score:
                (decoded,) = self._run("decoder", score_latents(mean, log_variance), ["image"], batch_size)
                bound = elbo(images, decoded, assignment, cluster_kl)
                outputs += [bound]
                blank = contrast(images) < self.manifest.least_contrast
                clusters = np.where(blank | self._unlikely(images, clusters, bound), UNKNOWN, clusters)
        return Answers(clusters, confidence, assignment, embedding, bound, blank, finite_rows(outputs))

    def _unlikely(self, images: Images, clusters: NDArray[np.int64], bound: Floats) -> NDArray[np.bool_]:
        """(N,) whether images score below the thresholds of their decided clusters."""
        low, relatively_low = self.manifest.reject_thresholds[:, clusters]
        return (bound < low) | (bound + pixel_entropy(images) < relatively_low)

    def predict(self, images: Images, *, batch_size: int = 64) -> NDArray[np.int64]:
        """Most likely cluster of each image, (N,) int64; `images` and errors as for `predict_proba`."""
        return self.decide(self.predict_proba(images, batch_size=batch_size))[0]

    def predict_proba(self, images: Images, *, batch_size: int = 64) -> Floats:
        """Soft assignment q(c|x), (N, K) float32, of uint8 images (N, H, W, C); (N, H, W) is accepted for grey models.

        Raises as `examine` does, and `DataError` where an answer is not finite.
        """
        return self._finite(*self._run("classifier", images_like(images, self.preprocess.shape), ["assignment"], batch_size))

    def transform(self, images: Images, *, batch_size: int = 64) -> Floats:
        """Posterior means, (N, D) float32; `images` and errors as for `predict_proba`."""
        return self._finite(*self._run("encoder", images_like(images, self.preprocess.shape), ["mean"], batch_size))

    def score_samples(self, images: Images, *, batch_size: int = 64) -> Floats:
        """Evidence lower bound of each image, (N,) float32, in nats: low for what the model does not explain; see `scoring`.

        `images` and errors as for `predict_proba`.
        """
        found = self.examine(images, score=True, batch_size=batch_size).score
        assert found is not None
        return self._finite(found)

    def decode(self, latents: Floats, *, batch_size: int = 64) -> Floats:
        """Images (N, H, W, C) float32 in [0, 1] of latents (N, D), which are taken as float32.

        Raises as `predict_proba` does, `UsageError` where latents are of another shape or not finite.
        """
        latents = rows_of_numbers(latents, self.manifest.latent, "latents")
        return self._finite(*self._run("decoder", latents, ["image"], batch_size))

    def sample(self, cluster: int, n: int = 1, seed: int = 0) -> Floats:
        """`n` generated images (n, H, W, C) in [0, 1] of a cluster; one seed gives the same latents on every machine.

        Raises
        ------
        UsageError
            For a cluster that does not exist, and where `n` or `seed` is no whole number from 0 on.
        """
        return self.decode(prior_samples(self.means, cluster, n, seed))

    @cached_property
    def means(self) -> Floats:
        """Prior means, (K, D) float32."""
        return prior_means(len(self.manifest.clusters), self.manifest.delta, self.manifest.lam)

    def _run(self, role: Role, data: NDArray, outputs: list[str], batch_size: int) -> list[Floats]:
        """Outputs of a graph over all rows of `data`; a batch that does not fit into memory is halved and tried again."""
        batch_size = whole_number(batch_size, "batch_size", 1)
        session, record = self.session(role), self.manifest.graphs[role]
        if not len(data):
            shapes = {tensor.name: tensor.shape[1:] for tensor in record.outputs}
            return [np.zeros((0, *map(int, shapes[name])), np.float32) for name in outputs]
        batch_size = min(batch_size, self._most.get(role, batch_size))
        pieces, start = [], 0
        while start < len(data):
            try:
                pieces.append(session.run({record.inputs[0].name: data[start : start + batch_size]}, outputs))
                start += batch_size
            except OutOfMemory:
                if batch_size == 1:
                    raise
                self._most[role] = batch_size = batch_size // 2
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _finite(self, result: Floats) -> Floats:
        if not np.isfinite(result).all():
            raise DataError(f"{self.path} answers with numbers that are not finite: its weights are damaged, export it again")
        return result
