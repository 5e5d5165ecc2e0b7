"""An independent judge: a small convolutional classifier trained on real labels, which reads the class of generated images.

Conditional generation is scored as the share of a cluster's generated images that the judge puts into the cluster's own class, the most
frequent class among the real images sorted into it. No model reported here ever sees the judge.
"""

import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from torch import nn

from catvae.core.images.data import ImageData
from catvae.core.images.pieces import to_float
from catvae.core.images.views import POLICIES, random_view
from catvae.core.runs.evaluation import assign, draw_samples
from catvae.core.vae.model import CatVAE
from catvae.core.vae.networks import ConvEncoder
from catvae.runtime.bundles.matching import contingency
from catvae.runtime.images.grid import to_uint8

from .record import autocast

STEPS = 2000
BATCH = 256
PER_CLUSTER = 1000


class Judge:
    """Trains on the data's training part, or on four fifths of it where there is no test part; `accuracy` is on the rest."""

    def __init__(self, data: ImageData, seed: int = 0):
        assert data.labels is not None
        images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
        if data.test_images is not None and data.test_labels is not None:
            held, held_labels = data.test_images, data.test_labels
        else:
            order = np.random.default_rng(seed).permutation(len(labels))
            kept, rest = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
            held, held_labels = data.images[rest], data.labels[rest]
            images, labels = images[kept], labels[kept]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                ConvEncoder((images.shape[3], images.shape[1], images.shape[2]), 256), nn.Linear(256, int(labels.max()) + 1)
            )
            self._train(images, labels)
        self.accuracy = float((self.read(held) == held_labels).mean())

    def _train(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer = torch.optim.AdamW(self.net.parameters(), 2e-3, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
        self.net.train()
        for _ in range(STEPS):
            rows = torch.randint(len(images), (min(BATCH, len(images)),))
            x = random_view(to_float(images[rows]), POLICIES["digits"])
            with autocast():
                loss = nnF.cross_entropy(self.net(x).float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.net.eval()

    @torch.no_grad()
    def read(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Classes (N,) of uint8 images (N, H, W, C)."""
        pieces = [self.net(to_float(torch.from_numpy(images[i : i + 1024]))).argmax(1) for i in range(0, len(images), 1024)]
        return torch.cat(pieces).numpy()

    def agreement(self, model: CatVAE, data: ImageData) -> float:
        """Share of generated images, `PER_CLUSTER` of each, that are read as their cluster's class."""
        assert data.labels is not None
        clusters = assign(model, data.images).argmax(1)
        count = model.spec.clusters
        table = contingency(clusters, data.labels, (count, int(data.labels.max()) + 1))
        generated = draw_samples(model, per_cluster=PER_CLUSTER, seed=1, centroid_first=False)
        read = self.read(to_uint8(generated.reshape(-1, *generated.shape[2:]))).reshape(count, PER_CLUSTER)
        return float((read == table.argmax(1)[:, None]).mean())
