"""What is measured of a trained model: assignments, names, label scores, health, bound. Pictures are in `pictures`.

Labels of the data enter here and nowhere earlier: for scores, and for naming clusters after the class they match.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from catvae.runtime.bundles.latents import prior_samples
from catvae.runtime.images.grid import to_uint8
from catvae.runtime.names import unnamed

from ..clusters.agglomeration import mutual_information
from ..clusters.joints import Joints
from ..clusters.metrics import UNRELATED, Health, calibration_error, generation_ceiling, label_scores, match
from ..clusters.separation import separations
from ..images.data import ImageData
from ..images.pieces import at_a_time, in_pieces
from ..training.labelled import LabelledImages
from ..vae.layers import DropoutReLU
from ..vae.likelihood import likelihood
from ..vae.model import CatVAE
from .record import ClusterRecord

DRAWN = 320
"""Images drawn to see how many return to their cluster: two of a hundred are seen, and a thousand clusters cost no more than ten."""


@torch.no_grad()
def assign(model: CatVAE, images: NDArray[np.uint8], *, batch: int = 1024, dropout: bool = False) -> NDArray[np.float32]:
    """q(c|x), (N, K), of uint8 images (N, H, W, C); `dropout` keeps it active, as the published code does."""
    model.eval()
    for layer in model.modules():
        if isinstance(layer, DropoutReLU):  # alone: batch norm would move its averages
            layer.train(dropout)
    found = torch.cat([model(x).cpu() for x in in_pieces(images, model.prior.device, batch)])
    model.eval()
    return found.numpy()


def cluster_names(assignment: NDArray[np.float32], data: ImageData, labelled: LabelledImages | None, homes: list[int]) -> list[str]:
    """A name for each cluster: of the class of given labelled images, else of the class it matches in labelled data, else ``cluster 3``;
    where no class is known, its number.

    In labelled data a cluster is called after its class only where at least half of its images are of it, and only where clusters follow
    the labels at all: of few images and clusters some hold half of a camera's by chance.

    Parameters
    ----------
    assignment : ndarray, (N, K)
        Of the training images.
    homes : list of int
        Cluster of each class of `labelled`.
    """
    count = assignment.shape[1]
    names = [str(i) for i in range(count)]
    if labelled is not None:
        names = [unnamed(i, labelled.names) for i in range(count)]  # a bare number might be the name of a class
        for name, cluster in zip(labelled.names, homes, strict=True):
            if cluster >= 0:
                names[cluster] = name
    elif data.labels is not None and data.label_names:
        clusters = assignment.argmax(1)
        if label_scores(clusters, data.labels).ari < UNRELATED:
            return [unnamed(i, data.label_names) for i in range(count)]
        matched = match(clusters, data.labels, count, len(data.label_names))
        share = [float((data.labels[clusters == i] == c).mean()) if (clusters == i).any() else 0.0 for i, c in enumerate(matched)]
        known = data.label_names
        names = [known[c] if c >= 0 and share[i] >= 0.5 else unnamed(i, known) for i, c in enumerate(matched)]
    return names


def cluster_records(assignment: NDArray[np.float32], names: list[str]) -> list[ClusterRecord]:
    """Share, confidence and name of every cluster, from the assignments (N, K) of the training images."""
    clusters = assignment.argmax(1)
    records = []
    for i, name in enumerate(names):
        members = assignment[clusters == i, i]
        confidence = float(members.mean()) if len(members) else 0.0
        records.append(ClusterRecord(name=name, share=len(members) / len(clusters), mean_confidence=confidence))
    return records


def scores(model: CatVAE, train_assignment: NDArray[np.float32], data: ImageData, *, dropout: bool = False) -> dict[str, dict[str, float]]:
    """ACC, NMI, ARI and calibration error per part that has labels, each matched on its own images."""
    found = {}
    if data.labels is not None:
        found["train"] = _scored(train_assignment, data.labels)
    if data.test_images is not None and data.test_labels is not None and len(data.test_images):
        found["test"] = _scored(assign(model, data.test_images, dropout=dropout), data.test_labels)
    return found


def _scored(assignment: NDArray[np.float32], labels: NDArray) -> dict[str, float]:
    return {**label_scores(assignment.argmax(1), labels)._asdict(), "ece": calibration_error(assignment, labels)}


def notes_on_labels(
    found: dict[str, dict[str, float]], status: str, clusters: int, labelled: LabelledImages | None, homes: list[int]
) -> list[str]:
    """What the user should know of labels beside the verdict, which reads none.

    Parameters
    ----------
    found : dict
        Scores by part, of `scores`.
    status : str
        The verdict's.
    clusters : int
    labelled : LabelledImages, optional
        A few images whose class is known.
    homes : list of int
        The cluster of each of their classes, -1 where none was left for it.
    """
    notes = []
    if status == "healthy" and clusters > 1 and "train" in found and found["train"]["ari"] < UNRELATED:
        notes.append("clusters have next to nothing to do with the labels: if those are days, cameras or plates, give --no-labels")
    left = [name for name, home in zip(labelled.names, homes, strict=True) if home < 0] if labelled else []
    if left:
        notes.append(f"{clusters} clusters for {len(homes)} known classes: none is named {', '.join(left)}; give -k {len(homes)} or more")
    return notes


def health_record(state: Health, joints: Joints, returned: float, by_borders: float) -> dict[str, float]:
    """Label-free signs of health of a run, by name; see `metrics.Health` for the first ones, `drawn_return` for `returned`, `borders` for
    `by_borders`."""
    record = {name: float(value) for name, value in state._asdict().items() if name != "shares"}
    if len(state.shares) > 1:
        record["separation"] = float(separations(joints.clusters).min())
    # Nats that clusters of an image and of its view share, and how often both are the same: comparable between runs on the same data.
    record["view_information"] = mutual_information(joints.clusters)
    # The same with nearest neighbours, the mean of those in the hidden layer and those by pixels.
    record["neighbour_information"] = (mutual_information(joints.cluster_neighbours) + mutual_information(joints.cluster_pixels)) / 2
    record["view_agreement"] = joints.view_agreement
    record["drawn_return"] = returned
    record["told_by_borders"] = by_borders
    return record


def bound_record(model: CatVAE, data: ImageData, seed: int) -> dict[str, float]:
    """Bound, likelihood and the geometric ceiling of generation, on test images where there are any; see `likelihood`."""
    images = data.images if data.test_images is None or not len(data.test_images) else data.test_images
    found = {name: float(value) for name, value in likelihood(model, images, seed=seed)._asdict().items()}
    return {**found, "generation_ceiling": generation_ceiling(model.spec.clusters, model.spec.delta, model.spec.lam)}


@torch.no_grad()
def draw_samples(model: CatVAE, *, per_cluster: int = 10, seed: int = 0, centroid_first: bool = True) -> NDArray[np.float32]:
    """Images generated per cluster, (K, per_cluster, H, W, C) in [0, 1], of the latents that the bundle draws from with this seed; the
    first of each row is the prior mean itself, if wanted."""
    model.eval()
    means = model.prior.cpu().numpy()
    clusters = len(means)
    latents = np.stack([prior_samples(means, cluster, per_cluster, seed) for cluster in range(clusters)])
    if centroid_first:
        latents[:, 0] = means
    z = torch.from_numpy(latents).to(model.prior.device)
    shape = (model.spec.height, model.spec.width, model.spec.channels)
    pieces = z.flatten(0, 1).split(at_a_time(z.new_empty(0, *shape), 1024))  # a piece at a time: hundreds of clusters fill the memory
    return torch.cat([model.images(piece).cpu() for piece in pieces]).unflatten(0, (clusters, per_cluster)).numpy()


def drawn_return(model: CatVAE, seed: int) -> float:
    """Share of `DRAWN` images, as many from each cluster, that are sorted into the cluster they were drawn from, read as 8-bit images."""
    per_cluster = max(1, DRAWN // model.spec.clusters)
    drawn = to_uint8(draw_samples(model, per_cluster=per_cluster, seed=seed, centroid_first=False))
    found = assign(model, drawn.reshape(-1, *drawn.shape[2:])).argmax(1).reshape(drawn.shape[:2])
    return float((found == np.arange(len(drawn))[:, None]).mean())


@torch.no_grad()
def encode_mean(model: CatVAE, images: NDArray[np.uint8], *, batch: int = 1024) -> NDArray[np.float32]:
    """Means (N, D) of q(z|x): cluster offsets mixed by the image's own assignment."""
    model.eval()
    pieces = []
    for x in in_pieces(images, model.prior.device, batch):
        posterior = model.encode(x)
        pieces.append(model.component(posterior, posterior.logits.softmax(-1))[0].cpu())
    return torch.cat(pieces).numpy()


@torch.no_grad()
def reconstruct(model: CatVAE, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Posterior-mean reconstructions, (N, H, W, C) in [0, 1]."""
    z = torch.from_numpy(encode_mean(model, images)).to(model.prior.device)
    return model.images(z).cpu().numpy()
