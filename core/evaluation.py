"""What is said of a trained model: assignments, health, cluster records, label scores, pictures.

Labels enter here and nowhere earlier: for scores, and for naming clusters after the class they match.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from catvae.runtime.grid import grid

from .data import ImageData
from .metrics import Health, LabelScores, label_scores, match
from .model import CatVAE
from .run_folder import ClusterRecord
from .views import to_float


@torch.no_grad()
def assign(model: CatVAE, images: NDArray[np.uint8], *, batch: int = 1024, dropout: bool = False) -> NDArray[np.float32]:
    """q(c|x), (N, K), of uint8 images (N, H, W, C); `dropout` keeps it active, as the published code does."""
    model.train(dropout)
    device = model.prior.device
    pieces = [
        model(to_float(torch.from_numpy(np.ascontiguousarray(images[i : i + batch])).to(device))).cpu()
        for i in range(0, len(images), batch)
    ]
    model.eval()
    return torch.cat(pieces).numpy()


def cluster_records(assignment: NDArray[np.float32], data: ImageData) -> list[ClusterRecord]:
    """Share, confidence and name of every cluster, from the assignments (N, K) of the training images."""
    clusters = assignment.argmax(1)
    count = assignment.shape[1]
    names = [str(i) for i in range(count)]
    if data.labels is not None and data.label_names:
        matched = match(clusters, data.labels, count, len(data.label_names))
        names = [data.label_names[c] if c >= 0 else f"cluster {i}" for i, c in enumerate(matched)]
    records = []
    for i, name in enumerate(names):
        members = assignment[clusters == i, i]
        confidence = float(members.mean()) if len(members) else 0.0
        records.append(ClusterRecord(name=name, share=len(members) / len(clusters), mean_confidence=confidence))
    return records


def scores(model: CatVAE, train_assignment: NDArray[np.float32], data: ImageData, *, dropout: bool = False) -> dict[str, LabelScores]:
    """ACC, NMI and ARI per part that has labels, each matched on its own images."""
    found = {}
    if data.labels is not None:
        found["train"] = label_scores(train_assignment.argmax(1), data.labels)
    if data.test_images is not None and data.test_labels is not None and len(data.test_images):
        found["test"] = label_scores(assign(model, data.test_images, dropout=dropout).argmax(1), data.test_labels)
    return found


def warnings_of(state: Health, clusters: int) -> list[str]:
    """Lines a user should read before trusting the clusters; empty when all is well."""
    found = []
    if clusters > 1 and state.active <= 1:
        found.append("collapsed: one cluster holds nearly every image; train longer, or use another --seed or --augment")
    elif state.active < clusters:
        found.append(f"{clusters - state.active} of {clusters} clusters hold at most 1 % of the images: fewer clusters may fit better")
    if clusters > 1 and state.mean_confidence < 0.5:
        found.append(f"assignments are uncertain (mean confidence {state.mean_confidence:.2f}): clusters are not separated")
    return found


@torch.no_grad()
def draw_samples(model: CatVAE, *, per_cluster: int = 10, seed: int = 0, centroid_first: bool = True) -> NDArray[np.float32]:
    """Images generated per cluster, (K, per_cluster, H, W, C) in [0, 1]; the first of each row is the prior mean itself, if wanted."""
    model.eval()
    clusters, latent = model.prior.shape
    noise = np.random.default_rng(seed).standard_normal((clusters, per_cluster, latent), dtype=np.float32)
    if centroid_first:
        noise[:, 0] = 0
    z = model.prior[:, None] + torch.from_numpy(noise).to(model.prior.device)
    images = model.decode(z.flatten(0, 1)).sigmoid().permute(0, 2, 3, 1)
    return images.unflatten(0, (clusters, per_cluster)).cpu().numpy()


@torch.no_grad()
def encode_mean(model: CatVAE, images: NDArray[np.uint8], *, batch: int = 1024) -> NDArray[np.float32]:
    """Means (N, D) of q(z|x): cluster offsets mixed by the image's own assignment."""
    model.eval()
    pieces = []
    for i in range(0, len(images), batch):
        posterior = model.encode(to_float(torch.from_numpy(np.ascontiguousarray(images[i : i + batch])).to(model.prior.device)))
        pieces.append(model.component(posterior, posterior.logits.softmax(-1))[0].cpu())
    return torch.cat(pieces).numpy()


@torch.no_grad()
def reconstruct(model: CatVAE, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Posterior-mean reconstructions, (N, H, W, C) in [0, 1]."""
    z = torch.from_numpy(encode_mean(model, images)).to(model.prior.device)
    return model.decode(z).sigmoid().permute(0, 2, 3, 1).cpu().numpy()


def picture_samples(model: CatVAE, names: list[str], seed: int = 0) -> Image.Image:
    """A row of generated images per cluster, the prior mean first."""
    return grid(list(draw_samples(model, seed=seed)), names)


def picture_clusters(assignment: NDArray[np.float32], data: ImageData, names: list[str], per_cluster: int = 12) -> Image.Image:
    """Real images per cluster, evenly spaced from the most to the least confident."""
    clusters = assignment.argmax(1)
    blank = np.zeros((0, *data.preprocess.shape), np.uint8)
    rows = []
    for i in range(assignment.shape[1]):
        members = np.flatnonzero(clusters == i)
        members = members[np.argsort(-assignment[members, i], kind="stable")]
        picked = members[np.linspace(0, len(members) - 1, min(per_cluster, len(members))).astype(int)] if len(members) else []
        rows.append(data.images[picked] if len(picked) else blank)
    return grid(rows, names)


def picture_reconstructions(model: CatVAE, data: ImageData, count: int = 12) -> Image.Image:
    """Evenly spaced images above their reconstructions."""
    picked = data.images[np.linspace(0, len(data.images) - 1, min(count, len(data.images))).astype(int)]
    return grid([picked, reconstruct(model, picked)], ["image", "model"])
