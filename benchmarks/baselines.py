"""The default recipe beside what else sorts images without labels, in one run: `python -m benchmarks.baselines digits --seeds 5`.

k-means on pixels; k-means and a Gaussian mixture on the code of an autoencoder of our own trunk; the published InfoCatVAE (recipe paper,
with and without its code's deviations); ClustPy's DEC and VaDE where that package is installed. Each row names its seed and seconds.
Rows already in the result file stay, and are not made again, unless the code has changed since.
"""

import functools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import click
import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from catvae.core.clusters.metrics import label_scores
from catvae.core.images.data import ImageData, load_data
from catvae.core.images.pieces import to_float
from catvae.core.vae.networks import ConvDecoder, ConvEncoder

from .record import autocast, rows_before, spread, write_csv
from .runs import has, trained

CODE = 10
"""Dimensions of the autoencoder's code."""


@click.command()
@click.argument("data")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--only", multiple=True, help="Only methods with this in their name; repeatable.")
def main(data: str, seeds: int, only: tuple[str, ...]) -> None:
    """Score the alternatives on DATA."""
    title = f"baselines-{Path(data).name}"
    images, rows = load_data(data), rows_before(title)
    assert images.labels is not None
    for name, method in methods(data).items():
        if only and not any(part in name for part in only):
            continue
        for seed in range(seeds):
            if has(rows, method=name, seed=seed):
                continue
            began = time.perf_counter()
            try:
                clusters = method(images, seed)
            except ImportError as error:
                click.echo(f"{name}: not run, {error}")
                break
            score = label_scores(clusters, images.labels)
            rows.append({"method": name, "seed": seed, **score._asdict(), "seconds": round(time.perf_counter() - began, 1)})
            write_csv(title, rows)
        found = [float(row["acc"]) for row in rows if row["method"] == name]
        if found:
            click.echo(f"{name:<28} train ACC {spread(found)}")


def methods(source: str) -> dict[str, Callable[[ImageData, int], NDArray]]:
    """Name to a function from data and seed to clusters (N,)."""

    @functools.cache
    def codes(seed: int) -> NDArray[np.float32]:
        return autoencode(load_data(source), seed)  # once a seed, in the time of k-means: the mixture is given the same ones

    return {
        "CatVAE, defaults": lambda data, seed: _trained(source, seed),
        "k-means on pixels": lambda data, seed: _k_means(_flat(data), seed),
        "autoencoder + k-means": lambda data, seed: _k_means(codes(seed), seed),
        "autoencoder + GMM": lambda data, seed: GaussianMixture(10, n_init=5, random_state=seed).fit_predict(codes(seed)),
        "InfoCatVAE, paper": lambda data, seed: _trained(source, seed, "--recipe", "paper"),
        "InfoCatVAE, published code": lambda data, seed: _trained(source, seed, "--recipe", "paper", "--legacy"),
        "DEC (ClustPy)": lambda data, seed: _clustpy("DEC", data, seed),
        "VaDE (ClustPy)": lambda data, seed: _clustpy("VaDE", data, seed),
    }


def autoencode(data: ImageData, seed: int, steps: int = 1500, batch: int = 256) -> NDArray[np.float32]:
    """Codes (N, CODE) of a convolutional autoencoder as large as our network, trained on pixel cross-entropy."""
    images = torch.from_numpy(data.images)
    shape = (images.shape[3], images.shape[1], images.shape[2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = torch.nn.Sequential(ConvEncoder(shape, 256), torch.nn.Linear(256, CODE))
        decoder = ConvDecoder(CODE, shape, 256)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
        for rows in _batches(len(images), batch, steps):
            x = to_float(images[rows])
            with autocast():
                pixels = decoder(encoder(x)).float()
            loss = nnF.binary_cross_entropy_with_logits(pixels, x, reduction="sum") / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    encoder.eval()
    with torch.no_grad():
        return torch.cat([encoder(to_float(images[i : i + 1024])) for i in range(0, len(images), 1024)]).numpy()


def _batches(count: int, batch: int, steps: int) -> Iterator[torch.Tensor]:
    for _ in range(steps):
        yield torch.randint(count, (min(batch, count),))


def _k_means(rows: NDArray[np.float32], seed: int) -> NDArray:
    return KMeans(10, n_init=10, random_state=seed).fit_predict(rows)  # pyright: ignore[reportArgumentType]


def _flat(data: ImageData) -> NDArray[np.float32]:
    return data.images.reshape(len(data.images), -1).astype(np.float32) / np.float32(255)


def _trained(source: str, seed: int, *options: str) -> NDArray:
    """Clusters of a run of `catvae-train`."""
    from catvae.core.runs.evaluation import assign

    with trained(source, "--seed", seed, *options) as run:
        return assign(run.read_model(), load_data(source).images, dropout=run.read_config().legacy).argmax(1)


def _clustpy(name: str, data: ImageData, seed: int) -> NDArray:
    """ClustPy's own defaults."""
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError):  # none for this torch: ClustPy imports it, and needs nothing of it for vectors
        sys.modules |= {f"torchvision{part}": mock.MagicMock() for part in ("", ".models", ".models._api")}
    from clustpy import deep  # pyright: ignore[reportMissingImports]

    return getattr(deep, name)(10, random_state=seed).fit(_flat(data)).labels_


if __name__ == "__main__":
    main()
