"""The gate: onnxruntime must answer as PyTorch does, graph by graph, at several batch sizes, and from PNG file to cluster."""

import numpy as np
from numpy.typing import NDArray

from catvae.core.model import CatVAE
from catvae.runtime.errors import DataError
from catvae.runtime.grid import picture, png_bytes
from catvae.runtime.images import Preprocess, read_image
from catvae.runtime.manifest import Parity, Role
from catvae.runtime.self_test import difference
from catvae.runtime.session import Session, import_onnxruntime

from .golden import probe_images, probe_latents, torch_outputs
from .graphs import GraphSpec

BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4
"""Largest |ONNX - PyTorch| / max(1, |PyTorch|). Both compute in fp32 and sum in different orders: about 1e-6 is seen on trained models."""


class ParityError(DataError):
    """A graph does not answer as PyTorch does."""


def check_parity(model: CatVAE, specs: list[GraphSpec], graphs: dict[Role, bytes], preprocess: Preprocess) -> Parity:
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
                worst[key] = max(worst.get(key, 0.0), difference(found, expected))
            if role == "classifier":
                same = _same_cluster(answers[0], outputs["assignment"])
                agreed, compared = agreed + int(same.sum()), compared + len(same)
    for key, value in worst.items():
        if not value <= TOLERANCE:  # also catches NaN
            raise ParityError(
                f"parity: {key} differs from PyTorch by {value:.2e}, at most {TOLERANCE:.0e} is accepted; nothing was written"
            )
    if agreed != compared:
        raise ParityError(f"parity: {compared - agreed} of {compared} probe images change their cluster; nothing was written")
    _check_from_png(model, specs, sessions["classifier"], preprocess)
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


def _check_from_png(model: CatVAE, specs: list[GraphSpec], classifier: Session, preprocess: Preprocess) -> None:
    """A PNG of a probe image, decoded and resized as inference does, must land where PyTorch puts the image."""
    images = probe_images(model, 7)
    straight = Preprocess(height=preprocess.height, width=preprocess.width, channels=preprocess.channels)
    read = np.stack([read_image(png_bytes(picture(image)), straight) for image in images])
    if not np.array_equal(read, images):
        raise ParityError("parity: an image changes between its array and its PNG file; nothing was written")
    expected = torch_outputs(specs[:1], images, np.zeros((0, 0), np.float32))["classifier"]["assignment"]
    if not _same_cluster(classifier.run({"image": read})[0], expected).all():
        raise ParityError("parity: an image read from PNG lands in another cluster than its array; nothing was written")
