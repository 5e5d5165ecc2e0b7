"""A bundle in use: verified files, sessions made when first needed, and the calls that answer.

bundle = Bundle.load(path)
bundle.predict(images), bundle.predict_proba(images), bundle.transform(images), bundle.sample(cluster, n, seed)
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, UsageError
from .files import sha256
from .images import Preprocess, read_image
from .latents import prior_means, prior_samples
from .manifest import Manifest, Role, parse_manifest
from .session import Session

MAX_GRAPH_BYTES = 2**30
PRETRAINED = Path(__file__).resolve().parent / "pretrained"


def find_bundle(path: str | os.PathLike[str] | None = None) -> Path:
    """The bundle to use: `path`, else ``$CATVAE_BUNDLE``, else the pretrained digits in this package."""
    return Path(path or os.environ.get("CATVAE_BUNDLE") or PRETRAINED / "digits")


class Bundle:
    """A verified bundle; make it with `Bundle.load`.

    Every graph is read once into memory, checked against the manifest's size and sha256, and run from those very bytes.
    """

    def __init__(self, manifest: Manifest, graphs: dict[Role, bytes], path: Path, *, device: str, threads: int | None):
        self.manifest = manifest
        self.path = path
        self._graphs = graphs
        self._device, self._threads = device, threads
        self._sessions: dict[Role, Session] = {}

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, device: str = "cpu", threads: int | None = None) -> "Bundle":
        """Open and verify a bundle.

        Parameters
        ----------
        path : path, optional
            Folder of the bundle; see `find_bundle` for the default.
        device : str
            ``cpu``, ``cuda`` or ``auto``.
        threads : int, optional
            Per session; `session.default_threads` when left out.

        Raises
        ------
        DataError
            When a file is missing, of a wrong version, or not the one the manifest names.
        DeviceError
            When onnxruntime or the device is not available.
        """
        folder = find_bundle(path)
        if not folder.is_dir():
            raise DataError(f"{folder} is not a bundle: no such folder; catvae-export --onnx RUN -o {folder} makes one")
        manifest = parse_manifest(_read(folder / "manifest.json"), str(folder / "manifest.json"))
        graphs: dict[Role, bytes] = {}
        for role, record in manifest.graphs.items():
            file = folder / record.name
            graphs[role] = data = _read(file)
            if len(data) != record.size or sha256(data) != record.sha256:
                found = f"{len(data):,} bytes, sha256 {sha256(data)[:12]}"
                raise DataError(f"{file} is not the file the manifest names: {found}; expected {record.size:,}, {record.sha256[:12]}")
        return cls(manifest, graphs, folder, device=device, threads=threads)

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
        """The session of a graph, made on first use; its inputs and outputs must be the manifest's."""
        if role not in self._sessions:
            record = self.manifest.graphs[role]
            made = Session(self._graphs[role], str(self.path / record.name), device=self._device, threads=self._threads)
            found, wanted = set(made.signature()), {tensor.name for tensor in (*record.inputs, *record.outputs)}
            if found != wanted:
                raise DataError(f"{made.label} has the tensors {sorted(found)}, its manifest says {sorted(wanted)}")
            self._sessions[role] = made
        return self._sessions[role]

    def read(self, source: str | os.PathLike[str] | bytes) -> NDArray[np.uint8]:
        """An image file as this model's tensor, (H, W, C) uint8; raises `ImageError`."""
        return read_image(source, self.preprocess)

    def decide(self, assignment: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The cluster and its confidence, (N,) each, from assignments (N, K).

        Clusters that share a name are one class: their shares are added, and the likeliest of the winning class is the answer.
        """
        groups = np.array(self.manifest.groups)
        summed = np.zeros_like(assignment)
        np.add.at(summed.T, groups, assignment.T)
        group = summed.argmax(1)
        within = np.where(groups[None] == group[:, None], assignment, -1)
        return within.argmax(1), summed[np.arange(len(summed)), group]

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Most likely cluster of each image, (N,); `images` as for `predict_proba`."""
        return self.decide(self.predict_proba(images))[0]

    def predict_proba(self, images: NDArray[np.uint8], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Soft assignment q(c|x), (N, K), of uint8 images (N, H, W, C); (N, H, W) is accepted for grey models."""
        images = self._checked(images)
        return self._batched("classifier", "image", images, "assignment", batch_size, len(self.manifest.clusters))

    def transform(self, images: NDArray[np.uint8], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Posterior means, (N, D)."""
        return self._batched("encoder", "image", self._checked(images), "mean", batch_size, self.manifest.latent)

    def decode(self, latents: NDArray[np.float32], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Images (N, H, W, C) in [0, 1] of latents (N, D)."""
        latents = np.ascontiguousarray(latents, dtype=np.float32)
        if latents.ndim != 2 or latents.shape[1] != self.manifest.latent:
            raise UsageError(f"latents must be (N, {self.manifest.latent}): got {latents.shape}")
        return self._batched("decoder", "latent", latents, "image", batch_size, *self.preprocess.shape)

    def sample(self, cluster: int, n: int = 1, seed: int = 0) -> NDArray[np.float32]:
        """`n` generated images (n, H, W, C) in [0, 1] of a cluster; one seed gives the same latents on every machine."""
        return self.decode(prior_samples(self.means, cluster, n, seed))

    @property
    def means(self) -> NDArray[np.float32]:
        """Prior means, (K, D)."""
        return prior_means(len(self.manifest.clusters), self.manifest.delta, self.manifest.lam)

    def _checked(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        images = np.asarray(images)
        shape = self.preprocess.shape
        if images.ndim == 3 and shape[-1] == 1 and images.shape[1:] == shape[:2]:
            images = images[..., None]
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UsageError(f"images must be uint8 (N, {', '.join(map(str, shape))}): got {images.dtype} {images.shape}")
        return images

    def _batched(self, role: Role, feed: str, data: NDArray, output: str, batch_size: int, *shape: int) -> NDArray[np.float32]:
        session = self.session(role)
        pieces = [session.run({feed: data[i : i + batch_size]}, [output])[0] for i in range(0, len(data), batch_size)]
        return np.concatenate(pieces) if pieces else np.zeros((0, *shape), np.float32)


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DataError(f"{path.parent} is not a whole bundle: {path.name} is missing")
        if path.stat().st_size > MAX_GRAPH_BYTES:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes, at most {MAX_GRAPH_BYTES:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
