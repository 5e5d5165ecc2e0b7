"""What piles show of themselves without labels: `python -m benchmarks.symmetry mnist fashion-mnist`.

*told*: how often images are told from themselves turned by half, which `--augment auto` decides by (`core/images/symmetry.py`): on writing
and garments, which have an up, and on drawn piles, which have none (`piles`); the parts also lit from one side, off the middle of the
frame, and with shadows to the lower right. *borders*: how much of their true classes the images' borders tell (`core/clusters/borders.py`),
what the verdict's threshold must lie above; labels serve that column alone.
"""

from pathlib import Path

import click
import numpy as np

from catvae.core.clusters.borders import predicted_by_borders
from catvae.core.images.data import load_data
from catvae.core.images.symmetry import UPRIGHT, upright_accuracy
from catvae.core.images.views import choose_policy

from .piles import PILES, pile
from .record import write_csv

COUNTS = 1000, 300, 60
"""Images that are looked at, at most."""


@click.command()
@click.argument("mnist")
@click.argument("fashion")
def main(mnist: str, fashion: str) -> None:
    """Read it on MNIST, FASHION-MNIST, the digits and the drawn piles."""
    data = {Path(name).name: load_data(name) for name in ("digits", mnist, fashion)}
    data |= {name: pile(name, {"fit": "stretch"}) for name in PILES}
    sets = {name: whole.images for name, whole in data.items()}
    borders = {name: predicted_by_borders(whole.images, whole.labels) for name, whole in data.items() if whole.labels is not None}
    parts = sets["parts"]
    side = np.linspace(0, 90, parts.shape[2]).astype(np.uint8)[:, None]
    sets["parts, lit from one side"] = parts // 2 + side
    sets["parts, off the middle"] = np.roll(parts, (3, 2), (1, 2))
    thing = parts.mean(3, keepdims=True) > 110
    sets["parts, with shadows"] = np.where(np.roll(thing, (2, 2), (1, 2)) & ~thing, parts // 2, parts)
    rows = []
    for name, images in sets.items():
        chosen = np.random.default_rng(0).permutation(len(images))  # drawn piles come kind by kind in turn
        told = {f"told_{count}": f"{upright_accuracy(images[np.sort(chosen[:count])]):.3f}" for count in COUNTS}
        rows.append({"images": name, **told, "views": choose_policy("auto", images).name})
        rows[-1]["borders"] = f"{borders[name]:.3f}" if name in borders else ""
        click.echo("  ".join(rows[-1].values()))
    click.echo(f"below {UPRIGHT} an image has no up; written to {write_csv('symmetry', rows)}")


if __name__ == "__main__":
    main()
