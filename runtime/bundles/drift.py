"""Whether a batch of images looks like the training images: its cluster shares and rejections against the manifest's."""

from collections import Counter
from typing import Any

import numpy as np

from ..wording import counted
from .answers import BLANK, UNKNOWN
from .manifest import Manifest

ENOUGH = 50
"""Images from which on shares are compared."""
FAR = 0.2
"""Total variation, half the sum of |share - training share|, from which on there is drift, if it is also `UNLIKELY`."""
UNLIKELY = 4.0
"""Standard deviations above what batches of this size, drawn from images like those of training, show by chance."""
DRAWS = 200
"""Batches that are drawn to find what chance shows."""


class Tally:
    """Counts rows as they pass."""

    def __init__(self, manifest: Manifest):
        self.manifest = manifest
        self.clusters: Counter[int] = Counter()
        self.total = self.failed = self.blank = 0

    def add(self, row: dict[str, Any]) -> None:
        self.total += 1
        if row["ok"]:
            self.clusters[row["cluster"]] += 1
            self.blank += row.get("reason") == BLANK
        else:
            self.failed += 1

    def summary(self) -> list[str]:
        """Lines that compare the batch with training, and count the unknown; a batch that is too small is not compared."""
        unknown, unlike = self._unknown()
        shares, drift = self._shares()
        lines = [f"clusters  {shares}" if shares else "", f"drift     {drift}" if drift else ""]
        lines.append(f"unknown   {unknown}{': drift, or images of another kind' if unlike else ''}" if unknown else "")
        return [line for line in lines if line]

    def warnings(self) -> list[str]:
        """Warnings that these images differ from the training images; empty where they do not."""
        unknown, unlike = self._unknown()
        return [*([unknown] if unlike else []), *([drift] if (drift := self._shares()[1]) else [])]

    @property
    def _known(self) -> int:
        return sum(count for cluster, count in self.clusters.items() if cluster != UNKNOWN)

    def _unknown(self) -> tuple[str, bool]:
        """A line on rejected images, and whether there are too many of them."""
        rejected, scored = self.clusters[UNKNOWN], self.manifest.scoring
        count = rejected + self._known
        if not (scored and rejected):
            return "", False
        share, expected = rejected / count, scored.quantile
        # Thresholds are quantiles of a sample, too: those of 1,000 images are off by as much as a batch of 1,000 is.
        spread = np.sqrt(expected * (1 - expected) * (1 / count + 1 / max(1, scored.images)))
        blank = f", {self.blank:,} of them blank" if self.blank else ""
        said = f"{rejected:,} of {counted(count, 'image')} ({share:.1%}) unlike all clusters{blank}, {expected:.0%} were expected"
        return said, bool(count >= ENOUGH and share > 2 * expected and share > expected + UNLIKELY * spread)

    def _shares(self) -> tuple[str, str]:
        """Shares of the clusters beside those in training, and the warning where they differ; empty where there is nothing to say."""
        known = self._known
        training = np.array([cluster.share for cluster in self.manifest.clusters])
        if known < ENOUGH or not training.sum() > 0:
            return "", ""
        training = training / training.sum()
        found = np.array([self.clusters[i] for i in range(len(training))]) / known
        distance = _variation(found, training)
        # What chance alone does: batches of this size drawn from the training shares; the seed is fixed so that a line repeats exactly.
        draws = np.random.default_rng(0).multinomial(known, training, DRAWS) / known
        chance = np.array([_variation(draw, training) for draw in draws])
        drifted = distance > FAR and distance > chance.mean() + UNLIKELY * chance.std()
        names = self.manifest.names
        shares: dict[str, np.ndarray] = {}  # clusters of one name are one class
        for name, share in zip(names, zip(found, training, strict=True), strict=True):
            shares[name] = shares.get(name, np.zeros(2)) + share
        largest = sorted(shares.items(), key=lambda item: -item[1][0])[:12]
        parts = [f"{name} {here:.0%} ({before:.0%})" for name, (here, before) in largest]
        said = f"{', '.join(parts)}{', ...' if len(shares) > 12 else ''}; in training in brackets"
        if not drifted:
            return said, ""
        worst = int(np.argmax(np.abs(found - training)))
        return said, (
            f"shares are {distance:.0%} away from training (chance: {chance.mean():.0%}), most in '{names[worst]}':"
            " check that the images are of the kind the model was trained on"
        )


def _variation(one: np.ndarray, other: np.ndarray) -> float:
    return float(0.5 * np.abs(one - other).sum())
