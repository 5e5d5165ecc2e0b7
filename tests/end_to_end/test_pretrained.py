"""The bundle that ships: MNIST digits saved as PNG land in the cluster named after them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catvae.core.images.idx import read_idx
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.bundles.model_card import model_card

from .conftest import ROOT, command

MNIST = ROOT.parent / "shared" / "data" / "mnist"


def test_it_is_small():
    folder = ROOT / "runtime" / "pretrained" / "digits"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6


def test_its_card_is_what_its_manifest_says():
    bundle = Bundle.load(PRETRAINED / "digits")
    assert (PRETRAINED / "digits" / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(bundle.manifest)


@pytest.mark.parametrize("name", ["three", "seven"])
def test_the_examples_of_the_readme_are_recognised(name):
    (row,) = [json.loads(line) for line in command("catvae-infer", f"docs/images/{name}.png", cwd=ROOT).stdout.splitlines()]
    assert row["name"] == {"three": "3", "seven": "7"}[name]


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST as IDX files")
def test_mnist_digits_are_recognised(tmp_path):
    images = read_idx(MNIST / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(MNIST / "t10k-labels-idx1-ubyte.gz")
    picked = [i for digit in range(10) for i in np.flatnonzero(labels == digit)[:2]]
    for i in picked:
        Image.fromarray(images[i]).save(tmp_path / f"{i}.png")
    result = command("catvae-infer", *[f"{i}.png" for i in picked], cwd=tmp_path)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    right = sum(row["name"] == str(labels[int(Path(row["path"]).stem)]) for row in rows)
    assert right >= 18, [(row["path"], row["name"]) for row in rows]
