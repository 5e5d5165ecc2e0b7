"""The variational autoencoder: q(c|x), q(z|x,c), p(x|z) and the prior (section 3 of arXiv 1806.08240).

The posterior of cluster c is N(m(x) + E_c, diag exp(v(x) + F_c)): exactly a linear head on [hidden, onehot(c)], whose columns for the
one-hot part are E and F, without K passes. The loss is in `objective`, training in the folder of that name.
"""

from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from ..config import Net, TrainConfig
from . import networks
from .prior import prior_means

LOG_VARIANCE = 8.0
"""|v| is clamped to this: exp(8) is a standard deviation of 55, far outside anything the prior explains."""

MOST_OVERCLUSTERS = 1000
"""Or K: merging n of them takes n^3 operations."""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is needed to rebuild the network of a run; kept in its `run.json`."""

    clusters: int
    delta: int
    lam: float = msgspec.field(name="lambda")
    net: Net
    hidden: int
    dropout: float
    offsets: str
    overclusters: int
    """Outputs of the auxiliary head."""
    tone: float = 1.0
    """See `networks.ConvEncoder`; 1 where images are grey, or net is mlp."""
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, config: TrainConfig, shape: tuple[int, int, int]) -> "ModelSpec":
        """For images of `shape` (H, W, C); with K still to be chosen, for the largest."""
        names = ("delta", "lam", "net", "hidden", "dropout", "offsets")
        height, width, channels = shape
        clusters = config.most_clusters
        values = {name: getattr(config, name) for name in names}
        overclusters = min(config.overclusters * clusters, max(clusters, MOST_OVERCLUSTERS))
        values |= {
            "height": height,
            "width": width,
            "channels": channels,
            "tone": config.tone if channels == 3 and config.net == "conv" else 1.0,
        }
        return cls(**values, clusters=clusters, overclusters=overclusters)


class Posterior(NamedTuple):
    """The encoder's outputs for a batch."""

    m: Tensor
    """(N, D) mean, before a cluster's offset."""
    v: Tensor
    """(N, D) log-variance, before a cluster's offset."""
    logits: Tensor
    """(N, K); the assignment is q(c|x) = softmax(logits)."""
    auxiliary: Tensor
    """(N, overclusters) logits of the over-clustering head."""


class CatVAE(nn.Module):
    """InfoCatVAE's network. Images are float (N, C, H, W) in [0, 1].

    Parameters
    ----------
    spec : ModelSpec
    """

    prior: Tensor

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        shape = (spec.channels, spec.height, spec.width)
        latent = spec.clusters * spec.delta
        if spec.net == "mlp":
            self.encoder = networks.MLPEncoder(shape, spec.hidden, spec.dropout)
            self.decoder = networks.MLPDecoder(latent, shape, spec.hidden, spec.dropout)
        else:
            self.encoder = networks.ConvEncoder(shape, spec.hidden, spec.tone)
            self.decoder = networks.ConvDecoder(latent, shape, spec.hidden)
        self.norms = tuple(layer for layer in self.encoder.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
        self._widths = (latent, latent, spec.clusters, spec.overclusters)
        self.head = nn.Linear(spec.hidden, sum(self._widths))  # one product for everything read from the hidden vector
        self.register_buffer("prior", prior_means(spec.clusters, spec.delta, spec.lam), persistent=False)
        if spec.offsets == "prior":
            self.E = nn.Parameter(self.prior.clone())
            self.F = nn.Parameter(torch.zeros_like(self.prior))
        else:
            bound = (spec.hidden + spec.clusters) ** -0.5  # as the columns of a linear layer on [hidden, onehot(c)]
            self.E = nn.Parameter(torch.empty_like(self.prior).uniform_(-bound, bound))
            self.F = nn.Parameter(torch.empty_like(self.prior).uniform_(-bound, bound))

    def encode(self, x: Tensor) -> Posterior:
        """Posterior parameters of images (N, C, H, W)."""
        return self.read(self.encoder(x))

    def read(self, hidden: Tensor) -> Posterior:
        """Posterior parameters from hidden vectors (N, hidden), the output of `encoder`."""
        m, v, logits, auxiliary = self.head(hidden).float().split(self._widths, dim=1)
        # hardtanh clamps, and its gradient is one operation where clamp's is four.
        return Posterior(m, nn.functional.hardtanh(v, -LOG_VARIANCE, LOG_VARIANCE), logits, auxiliary)

    def cluster_logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) of q(c|x) alone: the other outputs are not computed."""
        rows, _ = self.head_rows
        return nn.functional.linear(self.encoder(x), self.head.weight[rows], self.head.bias[rows]).float()

    @property
    def head_rows(self) -> tuple[slice, slice]:
        """Rows of the output layer that give the K cluster logits, and those of the over-clusters."""
        start = 2 * self._widths[0]
        return slice(start, start + self._widths[2]), slice(start + self._widths[2], sum(self._widths))

    def component(self, posterior: Posterior, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (N, D) of q(z|x,c) for clusters `c`: (N,) indices, or (N, K) weights that mix the offsets."""
        if c.ndim == 1:
            return posterior.m + nn.functional.embedding(c, self.E), posterior.v + nn.functional.embedding(c, self.F)
        return posterior.m + c @ self.E, posterior.v + c @ self.F

    def decode(self, z: Tensor) -> Tensor:
        """Logits (N, C, H, W) of the Bernoulli pixels of p(x|z); their sigmoid is the image."""
        return self.decoder(z).float()

    def images(self, z: Tensor) -> Tensor:
        """The images (N, H, W, C) in [0, 1] of latents (N, D)."""
        return self.decode(z).sigmoid().permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """q(c|x), (N, K)."""
        return self.encode(x).logits.softmax(-1)


def draw(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Reparametrised draw from N(mean, diag exp(log_variance))."""
    return torch.addcmul(mean, torch.exp(0.5 * log_variance), torch.randn_like(mean))
