"""The published training step (own transcription of the authors' model and loop, arXiv 1806.08240), for comparison of speed.

Kept as it is there: two linear layers run once per cluster on [hidden, onehot(c)], for images and for generated images alike, although
the latter's latents are thrown away; clusters added up one by one; dropout after each hidden layer; softmax before the cross-entropy;
Adam with torch's defaults. Changed: names, device handling, and calls that today's torch no longer has.
"""

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn


class PublishedModel(nn.Module):
    prior: Tensor

    def __init__(self, pixels: int, clusters: int, delta: int, hidden: int, lam: float):
        super().__init__()
        latent = clusters * delta
        self.clusters = clusters
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc_mu, self.fc_lv = (nn.Linear(hidden + clusters, latent) for _ in range(2))
        self.fc_a = nn.Linear(hidden, clusters)
        self.fc3, self.fc4 = nn.Linear(latent, hidden), nn.Linear(hidden, pixels)
        self.register_buffer("prior", lam * torch.eye(clusters).repeat_interleave(delta, dim=1))  # (K, D)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        h = nnF.relu(nnF.dropout(self.fc1(x), p=0.25))
        a = nnF.softmax(self.fc_a(h), dim=1)
        one_hot = torch.eye(self.clusters)
        tagged = [lambda layer, c=c: layer(torch.cat((h, one_hot[c].repeat(len(h), 1)), 1)) for c in range(self.clusters)]
        all_mu, all_lv = (torch.stack([run(layer) for run in tagged]) for layer in (self.fc_mu, self.fc_lv))
        mixed = torch.cat((h, a), 1)
        return self.fc_mu(mixed), self.fc_lv(mixed), a, all_mu, all_lv

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(nnF.relu(nnF.dropout(self.fc3(z), p=0.25))))

    def loss(self, x: Tensor) -> Tensor:
        mu, lv, a, all_mu, all_lv = self.encode(x)
        reconstruction = nnF.binary_cross_entropy(self.decode(mu + torch.randn_like(mu) * (0.5 * lv).exp()), x, reduction="sum")
        kl = torch.zeros(())
        latent = mu.shape[1]
        for c in range(self.clusters):
            m, v, p = all_mu[c, :, :], all_lv[c, :, :], self.prior[c].repeat(len(x), 1)
            kl = kl + torch.sum(torch.t(a[:, c].repeat(latent, 1)) * (-0.5 * (1 + v - (m - p).pow(2) - v.exp())))
        return reconstruction + torch.sum(a.mul(torch.log(a + 0.001))) + kl

    def information(self, per_cluster: int) -> Tensor:
        z = torch.cat([self.prior + torch.randn_like(self.prior) for _ in range(per_cluster)])
        _, _, a, _, _ = self.encode(self.decode(z))
        return nnF.cross_entropy(a, torch.arange(self.clusters).repeat(per_cluster))


def published_step(pixels: int, clusters: int, delta: int, hidden: int, batch: int, per_cluster: int):
    """A call that takes one step of the published training, on batches of a loader as there."""
    torch.manual_seed(0)
    model = PublishedModel(pixels, clusters, delta, hidden, 2.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.rand(batch, pixels)

    def step() -> None:
        optimizer.zero_grad()
        (model.loss(x) + 100 * model.information(per_cluster)).backward()
        optimizer.step()

    return step
