"""Colour pictures of things in any light: `python -m benchmarks.photographs --seeds 3`.

Four drawn piles (`piles`): cells, told apart by outline and stain; parts of any metal, by outline alone; beans, by colour alone; the
parts on grounds that differ more than they do. Each row is a run up to its first merge: with the defaults; with outlines alone; from one
start, where they choose among three; and from one start with one more part undone: views that change colours, views that turn an image
all round, most of the tone kept out of the network, no black bars beside images that are not square. Labels score, and nothing else; the
numbers are for over-clusters merged into K, so that no later step hides what the network looked at. *borders*: how much of the groups the
images' borders tell (`core/clusters/borders.py`).
"""

from typing import Any

import click

from catvae.core.clusters.borders import predicted_by_borders
from catvae.core.clusters.merging import merge
from catvae.core.clusters.metrics import label_scores
from catvae.core.images.data import ImageData
from catvae.core.images.held_back import split

from .first_merge import at_first_merge
from .piles import PILES, pile
from .record import rows_before, write_csv
from .runs import has

ONE: dict[str, Any] = {"starts": 1}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the defaults": ({"fit": "stretch"}, {}),
    "outlines alone": ({"fit": "stretch"}, {"colours": "ignore"}),
    "one start": ({"fit": "stretch"}, ONE),
    "one start, colours as they are": ({"fit": "stretch"}, {**ONE, "colours": "keep"}),
    "one start, turned a little only": ({"fit": "stretch"}, {**ONE, "augment": "objects"}),
    "one start, all of the tone": ({"fit": "stretch"}, {**ONE, "tone": 1.0}),
    "one start, black bars": ({"fit": "pad"}, ONE),
}


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(PILES)), help="Only this pile; repeatable.")
def main(seeds: int, only: tuple[str, ...]) -> None:
    """Train on every pile in every way, up to the first merge."""
    rows = rows_before("photographs")
    for seed in range(seeds):
        for name in only or PILES:
            kinds = PILES[name][1]
            for way, (fit, settings) in WAYS.items():
                unbarred = fit["fit"] == "pad" and name != "cells"  # frames of one shape: bars would say nothing
                if unbarred or has(rows, pile=name, way=way, seed=seed):
                    continue
                scores = _merged(pile(name, fit), {"seed": seed, "clusters": kinds, **settings})
                rows.append({"pile": name, "way": way, "seed": seed, **scores})
                write_csv("photographs", rows)
                click.echo("  ".join(f"{key} {value}" for key, value in rows[-1].items()))


def _merged(data: ImageData, settings: dict[str, Any]) -> dict[str, Any]:
    begun = at_first_merge(data, settings)
    groups = merge(begun.joints, begun.K, unequal=begun.unequal)[begun.small]
    scores, borders = label_scores(groups, begun.labels), predicted_by_borders(data.images[split(len(data.images)).trained], groups)
    sizes = "unequal" if begun.unequal else "equal"
    return {"sizes": sizes, "acc": round(scores.acc, 4), "nmi": round(scores.nmi, 4), "borders": round(borders, 3)}


if __name__ == "__main__":
    main()
