"""Fixtures of the runtime suite: nothing here may need torch, onnx or the training side."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.bundles.manifest_seal import sealed


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The digits bundle that ships in the package."""
    return Bundle.load(PRETRAINED / "digits")


@pytest.fixture
def run(tmp_path):
    """Run a command of ours in an empty folder: ``run("catvae-infer", "a.png")`` gives the completed process."""

    def call(name: str, *arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path = tmp_path):
        import os

        script = Path(sys.executable).parent / name
        environment = {**os.environ, **(env or {})}
        environment.pop("PYTHONUNBUFFERED", None)  # what is left unwritten at the end would never show
        return subprocess.run([str(script), *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd, env=environment, timeout=120)

    return call


@pytest.fixture
def png(tmp_path):
    """Write a PNG of an array or of a flat grey level and return its path."""

    def write(name: str = "image.png", pixels: np.ndarray | int = 90) -> Path:
        array = np.full((28, 28), pixels, np.uint8) if isinstance(pixels, int) else pixels
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def names(png):
    """Paths of 23 small images of noise."""
    noise = np.random.default_rng(3)
    return [str(png(f"{i:03}.png", noise.integers(0, 256, (28, 28), dtype=np.uint8))) for i in range(23)]


@pytest.fixture
def copy(tmp_path):
    """A private copy of the pretrained bundle, with a way to edit its manifest."""
    folder = tmp_path / "bundle"
    shutil.copytree(PRETRAINED / "digits", folder)

    def edit(change) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_bytes(sealed(manifest))

    return folder, edit
