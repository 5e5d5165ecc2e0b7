"""The images of a run, and which of them each step trains on: every one once an epoch, in an order drawn from (seed, epoch)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..clusters.joints import Sample
from ..images.held_back import split
from ..images.pieces import to_float
from ..machine.devices import mix
from ..machine.ranks import ALONE, Ranks


class Batches:
    """Images (N, H, W, C), uint8, resident on `device`: the pile itself where it lies in memory already.

    Parameters
    ----------
    images : ndarray, (N, H, W, C), uint8
        All of them; those that are held back are in no batch.
    size : int
        The most images in a batch; an epoch leaves out the few that do not fill one.
    device : torch.device
    ranks : Ranks
        The processes among which every batch is divided.
    """

    def __init__(self, images: NDArray[np.uint8], size: int, device: torch.device, ranks: Ranks = ALONE):
        rows = split(len(images)).trained
        self.images = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device)
        self.rows = torch.from_numpy(rows).to(device)
        """(n,) rows of `images` that are trained on."""
        self.size, self.ranks = min(size, len(rows)), ranks
        self.per_epoch = len(rows) // self.size
        self._order: tuple[int, int, Tensor] | None = None

    def spread(self, number: int) -> Sample:
        """From `number` to twice as many of the images that are trained on, evenly spaced; fewer where there are no more.

        Even spacing is safe where every n-th image is of one kind: the images held back, drawn at random, break any period.
        """
        return Sample(self.images, self.rows[:: max(1, len(self.rows) // number)])

    def rows_at(self, step: int, seed: int) -> Tensor:
        """Rows of `images` in this rank's part of a batch, (n,)."""
        epoch, index = divmod(step, self.per_epoch)
        if self._order is None or self._order[:2] != (seed, epoch):
            generator = torch.Generator().manual_seed(mix(seed, epoch) ^ 0x5EED)
            self._order = seed, epoch, self.rows[torch.randperm(len(self.rows), generator=generator).to(self.rows.device)]
        return self.ranks.part(self._order[2][index * self.size : (index + 1) * self.size])

    def at(self, step: int, seed: int) -> Tensor:
        """This rank's part of a batch, float (n, C, H, W) in [0, 1]."""
        return to_float(self.images.index_select(0, self.rows_at(step, seed)))
