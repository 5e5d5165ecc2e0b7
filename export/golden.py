"""Probe inputs of a bundle and the answers PyTorch gives to them: what parity is measured on, and what a device can replay later.

The probes need no training data: images the model itself draws from every cluster, plus flat and noisy ones outside what it knows.
"""

import io

import numpy as np
import torch
from numpy.typing import NDArray

from catvae.core.vae.model import CatVAE
from catvae.runtime.bundles.latents import prior_means, prior_samples
from catvae.runtime.bundles.manifest import Role
from catvae.runtime.bundles.session import Session
from catvae.runtime.images.grid import to_uint8

from .graphs import GraphSpec

Outputs = dict[Role, dict[str, NDArray[np.float32]]]
SEED = 20180624
"""Seed of the probe latents and noise."""


def probe_latents(model: CatVAE, count: int) -> NDArray[np.float32]:
    """`count` latents (count, D), clusters in turn."""
    spec = model.spec
    means = prior_means(spec.clusters, spec.delta, spec.lam)
    per_cluster = -(-count // spec.clusters)
    drawn = np.stack([prior_samples(means, c, per_cluster, SEED) for c in range(spec.clusters)], axis=1)
    return drawn.reshape(-1, means.shape[1])[:count]


@torch.no_grad()
def probe_images(model: CatVAE, count: int) -> NDArray[np.uint8]:
    """`count` images (count, H, W, C): drawn by the model, every eighth one noise, the first two black and white."""
    drawn = model.images(torch.from_numpy(probe_latents(model, count))).numpy()
    images = to_uint8(drawn)
    noise = np.random.default_rng(SEED).integers(0, 256, images[7::8].shape, dtype=np.uint8)
    images[7::8] = noise
    for row, level in enumerate((0, 255)[:count]):
        images[row] = level
    return images


@torch.no_grad()
def torch_outputs(specs: list[GraphSpec], images: NDArray[np.uint8], latents: NDArray[np.float32]) -> Outputs:
    """Answers of the traced modules in PyTorch."""
    answers: Outputs = {}
    for spec in specs:
        result = spec.module(torch.from_numpy(images if spec.inputs == ["image"] else latents))
        values = result if isinstance(result, tuple) else (result,)
        answers[spec.role] = {name: value.numpy() for name, value in zip(spec.outputs, values, strict=True)}
    return answers


def graph_outputs(graphs: dict[Role, bytes], images: NDArray[np.uint8], latents: NDArray[np.float32]) -> Outputs:
    """Answers of the graphs on this machine: the reference of a reduced precision, which PyTorch does not compute."""
    answers: Outputs = {}
    for role, data in graphs.items():
        session = Session(data, role)
        feed = {"latent": latents} if role == "decoder" else {"image": images}
        names = session.outputs
        answers[role] = dict(zip(names, session.run(feed, names), strict=True))
    return answers


def golden_bytes(images: NDArray[np.uint8], latents: NDArray[np.float32], answers: Outputs) -> bytes:
    """`golden.npz`: inputs as ``image`` and ``latent``, outputs as ``ROLE.NAME``. Same arrays, same bytes."""
    arrays: dict[str, NDArray] = {"image": images, "latent": latents}
    arrays |= {f"{role}.{name}": value for role, outputs in answers.items() for name, value in outputs.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
