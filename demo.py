"""The whole path in one go, as `make demo` runs it: train on the bundled handwritten digits, export, sort real images, draw new ones.

Every step is one of the commands a user would type, shown before it runs. Results stay in runs/demo.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

RUN = Path("runs/demo")
BUNDLE = RUN / "bundle"
STUDIO = RUN / "studio"
IMAGES = RUN / "images"
BIN = Path(sys.executable).parent


def show(command: str) -> None:
    """Print and run one of our commands."""
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    result = subprocess.run([str(BIN / words[0]), *words[1:]], env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if result.returncode:
        sys.exit(f"demo: that command ended with exit code {result.returncode}")


def write_images(folder: Path) -> None:
    """One PNG per digit, named after it, from the end of scikit-learn's digits."""
    folder.mkdir(parents=True, exist_ok=True)
    digits: Any = load_digits()
    for digit in range(10):
        pixels = digits.images[digits.target == digit][-1]
        Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(folder / f"digit-{digit}.png")
    print(f"\nwrote 10 images to {folder}", flush=True)


def main() -> None:
    show(f"catvae-train digits -o {RUN} --overwrite")
    show(f"catvae-export --onnx {RUN} -o {BUNDLE} --web {STUDIO} --overwrite --quiet")
    write_images(IMAGES)
    show(f"catvae-infer -b {BUNDLE} {IMAGES} --format table")
    show(f"catvae-generate -b {BUNDLE} -o {RUN / 'generated.png'}")
    show(f"catvae-generate -b {BUNDLE} -o {RUN / 'ring.png'} --ring -n 12")
    print("\nLook at:")
    for path, what in {
        RUN / "generated.png": "new images, a row per cluster",
        RUN / "ring.png": "from each cluster to the next",
        RUN / "report.html": "the report: every cluster on a card, a map, the terms of the loss",
        STUDIO: f"the studio: python3 -m http.server -d {STUDIO}, then http://localhost:8000 in a browser",
    }.items():
        print(f"  {path!s:<24} {what}")


if __name__ == "__main__":
    main()
