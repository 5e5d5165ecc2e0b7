"""The content of a report as plain values: figures, cluster cards, maps. `page` draws them, `of_bundle` adds those of a bundle."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..bundles.latents import prior_samples
from ..bundles.matching import contingency
from ..names import distinct
from ..sampling import scattered
from .maps import Map, maps_of

SHOWN = 8
"""Images per strip."""
BINS = 20
"""Bins of a confidence histogram."""
EXAMINED = 5000
"""Images a report looks at, of all."""
MAPPED = 1500
"""Points of a latent map."""
MOST_CLASSES = 100
"""Classes in a table of labels."""

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Drawer(Protocol):
    """What cluster cards need of a model; `Bundle` is one."""

    @property
    def names(self) -> list[str]:
        """Cluster names in cluster order."""
        ...

    @property
    def means(self) -> Floats:
        """Prior means, (K, D)."""
        ...

    def decode(self, latents: Floats) -> Floats:
        """Images (N, H, W, C) in [0, 1] of latents (N, D)."""
        ...


class Examined(NamedTuple):
    """Images and what a model said of them."""

    images: Images
    """(N, H, W, C)."""
    clusters: NDArray[np.int64]
    """(N,) decided clusters, 0 to K - 1."""
    confidence: Floats
    """(N,) of the decided clusters."""
    assignment: Floats
    """(N, K)."""
    embedding: Floats
    """(N, D)."""
    among: int = 0
    """Images in all, where some belong to no cluster and are not among these; 0: these are all."""
    called: Sequence[str] = ()
    """(N,) what finds each again: its file, or its number in an array; empty where nothing does."""


class Shown(NamedTuple):
    """Some of the examined images."""

    images: Images
    """(n, H, W, C)."""
    called: Sequence[str]
    """(n,), or empty."""


class Card(NamedTuple):
    """One cluster. Image arrays are (n, H, W, C), bytes or floats in [0, 1]."""

    cluster: int
    name: str
    share: float
    """Share of the examined images."""
    training_share: float
    confidence: float
    """Mean over its images; 0 where there are none."""
    prototype: Floats
    """(H, W, C): what the decoder makes of the prior mean."""
    nearest: Shown
    """Real images whose embeddings lie closest to the prior mean."""
    generated: Floats
    borderline: Shown
    """The least certain ones."""
    closest: str
    """The cluster its images are next most likely in; empty where there is none."""
    histogram: list[int]
    """Counts of its images by confidence, `BINS` parts of [0, 1]."""


class Confusion(NamedTuple):
    """How known classes fall into clusters."""

    classes: Sequence[str]
    counts: NDArray[np.int64]
    """(classes, K)."""


class Facts(msgspec.Struct, kw_only=True):
    """Everything a report shows; what is empty is left out of the page."""

    title: str
    about: str
    names: Sequence[str]
    """Cluster names in cluster order."""
    strange: Sequence[str] = ()
    """Signs that the shown images are not of the kind that was learnt."""
    verdict: str = ""
    """healthy or degenerate; empty where nobody judged."""
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()
    tiles: Mapping[str, str] = {}
    """Large figures, by what they are."""
    cards: Sequence[Card] = ()
    maps: Sequence[Map] = ()
    groups: NDArray[np.int64] | None = None
    """Cluster of each point of a map."""
    originals: Images | None = None
    rebuilt: Floats | None = None
    curves: Mapping[str, Sequence[tuple[float, float]]] = {}
    """Terms of the loss: (epoch, nats)."""
    confusion: Confusion | None = None
    tables: Mapping[str, Mapping[str, str]] = {}
    """Rows of name and value, by title."""


def pictured(examined: Examined, drawer: Drawer, training_shares: Sequence[float]) -> dict[str, object]:
    """The fields of `Facts` that come from images alone: cards, maps, reconstructions."""
    rows, shown = scattered(len(examined.images), MAPPED), scattered(len(examined.images), 2 * SHOWN)
    return {
        "names": distinct(drawer.names),
        "cards": cards(examined, drawer, training_shares),
        "maps": maps_of(examined.embedding[rows]),
        "groups": examined.clusters[rows],
        "originals": examined.images[shown],
        "rebuilt": drawer.decode(examined.embedding[shown]),
    }


def cards(examined: Examined, drawer: Drawer, training_shares: Sequence[float]) -> list[Card]:
    """A card for each cluster, the largest first."""
    sizes = np.bincount(examined.clusters, minlength=len(drawer.names))
    prototypes, names = drawer.decode(drawer.means), distinct(drawer.names)
    return [
        _card(c, names[c], examined, drawer, prototypes[c], float(sizes[c] / max(1, examined.among, sizes.sum())), training_shares[c])
        for c in np.argsort(-sizes, kind="stable").tolist()
    ]


def _card(c: int, name: str, examined: Examined, drawer: Drawer, prototype: Floats, share: float, training_share: float) -> Card:
    members = np.flatnonzero(examined.clusters == c)
    confidence = examined.confidence[members]
    distance = ((examined.embedding[members] - drawer.means[c]) ** 2).sum(1)
    closest = ""
    if len(members):
        closest = _closest(drawer.names[c], drawer.names, examined.assignment[members].mean(0))
    return Card(
        cluster=c,
        name=name,
        share=share,
        training_share=training_share,
        confidence=float(confidence.mean()) if len(members) else 0.0,
        prototype=prototype,
        nearest=_shown(examined, members[np.argsort(distance, kind="stable")[:SHOWN]]),
        generated=drawer.decode(prior_samples(drawer.means, c, SHOWN, 0)),
        borderline=_shown(examined, members[np.argsort(confidence, kind="stable")[:SHOWN]]),
        closest=closest,
        histogram=np.histogram(np.clip(confidence, 0, 1), BINS, (0, 1))[0].tolist(),  # float32 sums may pass 1 by one part in 10^7
    )


def _shown(examined: Examined, rows: NDArray[np.int64]) -> Shown:
    called = [examined.called[int(row)] for row in rows] if examined.called else []
    return Shown(examined.images[rows], called)


def _closest(own: str, names: Sequence[str], shares: Floats) -> str:
    """The other name with the largest share; clusters that share a name are one class."""
    others: dict[str, float] = {}
    for name, share in zip(names, shares.tolist(), strict=True):
        if name != own:
            others[name] = others.get(name, 0.0) + share
    return max(others, key=others.__getitem__, default="")


def confusion(clusters: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str], count: int) -> Confusion | None:
    """Counts of each class (label) in each of `count` clusters; None where there are too many classes to read."""
    if not len(classes) or len(classes) > MOST_CLASSES:
        return None
    return Confusion(classes, contingency(labels, clusters, (len(classes), count)))


def scores_table(scores: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Rows of a table from scores per part (train, test)."""
    called = {"ece": "calibration error"}
    return {f"{part}, {called.get(name, name.upper())}": f"{value:.4f}" for part, found in scores.items() for name, value in found.items()}


HEALTH = {
    "perplexity": "clusters in use, by entropy (perplexity)",
    "active": "clusters with more than 1 % of the images",
    "smallest_share": "share of the smallest cluster",
    "mean_confidence": "mean confidence",
    "information": "information of image about cluster, nats",
    "separation": "least separation of two clusters",
    "view_information": "information shared with a view, nats",
    "neighbour_information": "information shared with nearest neighbours, nats",
    "view_agreement": "same cluster in a view",
    "drawn_return": "drawings sorted into their own cluster",
    "told_by_borders": "clusters told by the images' borders alone, beyond chance",
}
"""Words for a run's signs of health."""


def health_table(health: Mapping[str, float]) -> dict[str, str]:
    """Rows of a table; a sign that is not known here keeps its own name."""
    return {HEALTH.get(name, name): f"{value:.4g}" for name, value in health.items()}
