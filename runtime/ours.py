"""What this project leaves in folders: the names of files that run folders and bundles are known by, and telling such folders apart."""

import os
from collections.abc import Collection
from pathlib import Path

MANIFEST, CARD, PREVIEW, CLASSIFIER = "manifest.json", "MODEL_CARD.md", "preview.png", "classifier.onnx"
"""Of a bundle."""
CONFIG, RECORD, PAGE, PLAN = "config.json", "run.json", "report.html", "seeds.json"
"""Of a run folder: its settings, what became of it, its report; which runs were trained for it."""
KNOWN_BY = {"a run folder": {RECORD, CONFIG}, "a bundle": {MANIFEST, CLASSIFIER}}


def left_by_us(names: Collection[str]) -> str:
    """``a run folder`` or ``a bundle``, by the names of its files: its pictures are no images to sort. Empty for other folders."""
    present = set(names)
    return next((what for what, files in KNOWN_BY.items() if files <= present), "")


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a bundle; `bundles.bundle_files` reads it."""
    return all(os.path.isfile(folder / name) for name in KNOWN_BY["a bundle"])  # false, too, for names that are too long


def is_run(folder: Path) -> bool:
    """Whether a folder looks like that of a run, not of a bundle."""
    return (folder / RECORD).is_file() and not (folder / MANIFEST).is_file()
