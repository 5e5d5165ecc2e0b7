"""Changing a network's output rows while it trains: clusters replaced by a merge, re-seeded, or cut to another K.

Adam's memory of changed rows is cleared with them; everything else, the trunk above all, trains on undisturbed.
"""

import dataclasses
import functools
from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor

from ..vae.model import CatVAE

NOISE = 0.1
"""How far the new row of a dead cluster is from the row it is copied from, in standard deviations of that row."""


@dataclasses.dataclass
class Trained:
    """A network and its optimiser."""

    model: CatVAE
    optimizer: torch.optim.Adam

    @functools.cached_property
    def weights(self) -> list[torch.nn.Parameter]:
        """The network's parameters, looked for once: every step goes through them twice."""
        return list(self.model.parameters())


def take_merge(trained: Trained, group: Tensor) -> None:
    """Set each of the K cluster rows to the mean of its over-clusters' rows; `group` (overclusters,) holds the cluster of each."""
    clusters, overclusters = trained.model.head_rows
    mean = _group_means(group, trained.model.spec.clusters)
    for parameter in trained.model.head.parameters():
        parameter.data[clusters] = mean @ parameter.data[overclusters]
    _forget(trained, clusters)


def reseed(trained: Trained) -> None:
    """Fresh rows for clusters and over-clusters, drawn from the default generator as at the beginning."""
    model = trained.model
    rows = slice(model.head_rows[0].start, model.head_rows[1].stop)
    fresh = torch.nn.Linear(model.head.in_features, rows.stop - rows.start).to(model.head.weight.device)
    with torch.no_grad():
        model.head.weight[rows] = fresh.weight
        model.head.bias[rows] = fresh.bias
    _forget(trained, rows)


def split_into(trained: Trained, largest: int, dead: list[int]) -> None:
    """Split the largest cluster: each dead cluster gets its row with a little noise."""
    head, rows = trained.model.head, trained.model.head_rows[0]
    with torch.no_grad():
        source = head.weight[rows.start + largest].clone()
        for cluster in dead:
            head.weight[rows.start + cluster] = source + NOISE * source.std() * torch.randn_like(source)
            head.bias[rows.start + cluster] = head.bias[rows.start + largest]
    _forget(trained, rows)


def with_clusters(trained: Trained, group: Tensor, clusters: int, learning_rate: float) -> Trained:
    """A network with another K and the same trunk and over-clusters.

    Cluster rows are the means of their groups, `group` (overclusters,). The rows of the latent, the decoder and the offsets are drawn anew:
    the generator has not been trained yet.
    """
    old = trained.model
    model = CatVAE(msgspec.structs.replace(old.spec, clusters=clusters)).to(old.prior.device)
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.encoder.load_state_dict(old.encoder.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=True)
    for before, after in zip(old.encoder.parameters(), model.encoder.parameters(), strict=True):
        optimizer.state[after] = trained.optimizer.state[before]
    mean = _group_means(group, clusters)
    for before, after in zip(old.head.parameters(), model.head.parameters(), strict=True):
        kept = before.data[old.head_rows[1]]
        after.data[model.head_rows[0]] = mean @ kept
        after.data[model.head_rows[1]] = kept
    return Trained(model, optimizer)


def _group_means(group: Tensor, clusters: int) -> Tensor:
    """(K, overclusters) weights that average the members of each group."""
    member = torch.nn.functional.one_hot(group, clusters).float()
    return (member / member.sum(0)).T


def _forget(trained: Trained, rows: slice) -> None:
    """Clear Adam's moments of some output rows."""
    for moment in _moments(trained):
        moment[rows] = 0


def _moments(trained: Trained) -> Iterator[Tensor]:
    for parameter in trained.model.head.parameters():
        state = trained.optimizer.state.get(parameter, {})
        yield from (state[name] for name in ("exp_avg", "exp_avg_sq") if name in state)
