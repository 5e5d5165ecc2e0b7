"""The gate: onnxruntime must answer as PyTorch does, graph by graph, at several batch sizes, and from PNG file to cluster."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catvae.core.vae.model import CatVAE
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.manifest import Parity, Role
from catvae.runtime.bundles.self_test import difference
from catvae.runtime.bundles.session import Session, import_onnxruntime
from catvae.runtime.commands.pipeline import Options, classify_stream
from catvae.runtime.errors import DataError
from catvae.runtime.images.grid import picture, png_bytes
from catvae.runtime.images.image_files import read_image

from .golden import SEED, probe_images, probe_latents, torch_outputs
from .graphs import GraphSpec
from .scratch import scratch_folder

BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4
"""Largest |ONNX - PyTorch| / max(1, |PyTorch|). Both compute in fp32 and sum in different orders: about 1e-6 is seen on trained models."""

FORMS = [(mode, zoom) for mode in ("L", "RGB", "RGBA", "LA", "P", "1") for zoom in (1, 0.5, 3)]
"""Pillow modes and sizes, in those of the model, of the image files that are tried."""


class ParityError(DataError):
    """A graph does not answer as PyTorch does."""


def check_parity(model: CatVAE, specs: list[GraphSpec], graphs: dict[Role, bytes]) -> Parity:
    """Compare every output of every graph on probe inputs.

    Raises
    ------
    ParityError
        Over `TOLERANCE`, or when an image with a clear assignment lands in another cluster.
    """
    sessions = {role: Session(data, f"{role}.onnx") for role, data in graphs.items()}
    worst: dict[str, float] = {}
    agreed = compared = 0
    for batch in BATCHES:
        images, latents = probe_images(model, batch), probe_latents(model, batch)
        for role, outputs in torch_outputs(specs, images, latents).items():
            feed = {"latent": latents} if role == "decoder" else {"image": images}
            answers = sessions[role].run(feed, list(outputs))
            for (name, expected), found in zip(outputs.items(), answers, strict=True):
                if found.shape != expected.shape:
                    raise ParityError(f"parity: {role}.{name} has shape {found.shape} at batch {batch}, PyTorch gives {expected.shape}")
                key = f"{role}.{name}"
                worst[key] = float(np.maximum(worst.get(key, 0.0), difference(found, expected)))  # which NaN goes through
            if role == "classifier":
                same = _same_cluster(answers[0], outputs["assignment"])
                agreed, compared = agreed + int(same.sum()), compared + len(same)
    for key, value in worst.items():
        if not value <= TOLERANCE:  # NaN, too
            raise ParityError(
                f"parity: {key} differs from PyTorch by {value:.2e}, at most {TOLERANCE:.0e} is accepted; nothing was written"
            )
    if agreed != compared:
        raise ParityError(f"parity: {compared - agreed} of {compared} probe images change their cluster; nothing was written")
    return Parity(
        batches=list(BATCHES),
        max_difference={key: float(f"{value:.3g}") for key, value in sorted(worst.items())},
        cluster_agreement=agreed / compared,
        onnxruntime=import_onnxruntime().__version__,
    )


def _same_cluster(found: NDArray, expected: NDArray) -> NDArray[np.bool_]:
    """Whether each row has the same winner; rows whose two best lie closer than the tolerance have no winner to compare."""
    best = np.sort(expected, axis=1)
    tied = best[:, -1] - best[:, -2] < TOLERANCE if expected.shape[1] > 1 else np.ones(len(expected), bool)
    return tied | (found.argmax(1) == expected.argmax(1))


def check_files(bundle: Bundle, expected: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> None:
    """Image files of several sizes and modes, through the finished bundle as `catvae-infer` reads it, must land where they should.

    Parameters
    ----------
    bundle : Bundle
    expected : callable
        The assignment (N, K) of images (N, H, W, C): PyTorch's for fp32, the graph's own on arrays for a reduced precision, whose
        clusters `agreement` has compared with those of fp32.

    Raises
    ------
    ParityError
    """
    with scratch_folder() as folder:
        paths = [folder / f"{i}.png" for i in range(len(FORMS))]
        rules = bundle.preprocess
        for i, (path, (mode, zoom)) in enumerate(zip(paths, FORMS, strict=True)):
            drawn = picture(bundle.sample(i % len(bundle.names), seed=SEED)[0])
            size = max(1, round(zoom * rules.width)), max(1, round(zoom * rules.height) + (zoom != 1))
            path.write_bytes(png_bytes(drawn.resize(size, Image.Resampling.BILINEAR).convert(mode)))
        wanted = expected(np.stack([read_image(path, rules) for path in paths]))
        for batch in (1, 3, 64):
            rows = [row for block in classify_stream(bundle, map(str, paths), Options(batch)) for row in block]
            failed = [row for row in rows if not row["ok"]]
            if failed:
                raise ParityError(f"parity: a PNG file of the model's own drawing is refused: {failed[0]['error']['message']}")
            found = np.array([row["assignment"] for row in rows], np.float32)
            if not _same_cluster(found, wanted).all() or not difference(found, wanted) <= TOLERANCE:
                raise ParityError(
                    f"parity: images read from PNG files are answered otherwise than their arrays at batch {batch}: by"
                    f" {difference(found, wanted):.2e}, at most {TOLERANCE:.0e} is accepted; nothing was written"
                )
