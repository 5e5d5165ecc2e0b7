"""What `--score` calls unknown: `python -m benchmarks.strange my-images -b my-bundle --other other-images`.

Some of the images, at most half, set thresholds as an export does; the others are *known*, and every other row a kind of image that nobody
trained on. `bound` and `relative` are shares of images below the hundredth of the evidence lower bound, and of what it is relative to the
most that the pixels allow; `unknown` is what the bundle says, which asks for both at half of that share, and for contrast. 0.01 is right
for what is known, 1 for what is strange, and something between for what is known in another light.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from catvae.core.images.data import load_data
from catvae.core.images.held_back import Calibration
from catvae.export.precision import Graphs
from catvae.export.thresholds import QUANTILE, with_thresholds
from catvae.runtime.bundles.answers import UNKNOWN
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.scoring import pixel_entropy
from catvae.runtime.images.sources import walk_images

from .record import write_csv

Images = NDArray[np.uint8]
HELD_BACK, COUNT = 1000, 2000
"""Images that set thresholds, as many as an export has, and of those that are known, at most."""
CHANGED = 300
"""Images of every other kind."""


@click.command()
@click.argument("images_path")
@click.option("-b", "bundle_path", help="Bundle; when left out, the packaged one of MNIST.")
@click.option("--other", help="Images of another kind, of the same size.")
@click.option("--name", default="strange", show_default=True, help="Of the result file.")
def main(images_path: str, bundle_path: str | None, other: str | None, name: str) -> None:
    """Count the unknown among images that are like those of training, and among others."""
    bundle, rng = Bundle.load(bundle_path), np.random.default_rng(0)
    images = _images(bundle, images_path)
    images = images[rng.permutation(len(images))]
    calibration, known = np.split(images[: HELD_BACK + COUNT], [min(HELD_BACK, len(images) // 2)])
    kinds = {"known": known, **dict(_strange(known[:CHANGED], rng))}
    if other:
        kinds["another set"] = rng.permutation(_images(bundle, other))[:CHANGED]
    graphs: Graphs = {role: bundle.file(graph) for role, graph in bundle.manifest.graphs.items()}
    asked = Bundle(with_thresholds(bundle.manifest, graphs, Calibration(known[:0], calibration)), graphs, bundle.path)
    hundredth = np.quantile(_scores(asked, calibration), QUANTILE, axis=1)[:, None]
    rows = []
    for kind, those in kinds.items():
        bound, relative = (_scores(asked, those) < hundredth).mean(1)
        unknown = (asked.examine(those, score=True).clusters == UNKNOWN).mean()
        shares = {"bound": bound, "relative": relative, "unknown": unknown}
        rows.append({"kind": kind, "images": len(those), **{what: f"{share:.3f}" for what, share in shares.items()}})
        click.echo("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    click.echo(f"written to {write_csv(name, rows)}")


def _images(bundle: Bundle, path: str) -> Images:
    """Of a folder of pictures, or of a data set: the test part where there is one."""
    if Path(path).is_dir() and (files := list(walk_images(path))):
        return np.stack([bundle.read(file) for file in files])
    data = load_data(path)
    return data.images if data.test_images is None else data.test_images


def _scores(bundle: Bundle, images: Images) -> NDArray[np.float64]:
    """(2, N): bound and relative bound."""
    bound = bundle.score_samples(images).astype(np.float64)
    return np.stack([bound, bound + pixel_entropy(images)])


def _strange(known: Images, rng: np.random.Generator) -> Iterator[tuple[str, Images]]:
    """Kinds of images by name: known ones in another light, and what nobody would train on."""
    shape = (CHANGED, *known.shape[1:])
    for what, factor, more in (("dark", 0.3, 0), ("faint", 0.1, 0), ("too bright", 2.5, 60), ("half of the contrast", 0.5, 64)):
        yield what, np.clip(known * factor + more, 0, 255).astype(np.uint8)
    yield "negative", 255 - known
    yield "mirrored", known[:, :, ::-1].copy()
    yield "shifted by a third", np.roll(known, known.shape[2] // 3, axis=2)
    for low, high in ((0, 255), (0, 60), (0, 120), (190, 255)):
        yield f"noise from {low} to {high}", rng.integers(low, high + 1, shape, dtype=np.uint8)
    for level in (0, 30, 128, 255):
        yield f"nearly flat, {level}", np.clip(level + rng.normal(0, 3, shape), 0, 255).astype(np.uint8)
    stripes = (np.arange(shape[2]) // 3 % 2 * 120 + 20).astype(np.uint8)
    yield "stripes", np.broadcast_to(stripes[None, None, :, None], shape).copy()


if __name__ == "__main__":
    main()
