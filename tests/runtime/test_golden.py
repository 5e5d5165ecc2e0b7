"""Files whose answers are kept: every kind of image, and bundles of every precision, on whatever versions are installed here.

`python -m tests.make_golden` wrote them.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.self_test import self_test
from catvae.runtime.errors import DataError, ImageError
from catvae.runtime.images.image_files import decode_image
from catvae.runtime.images.preprocess import Preprocess

GOLDEN = Path(__file__).parent / "golden"
RULES = {
    "grey": Preprocess(height=28, width=28, channels=1),
    "colour": Preprocess(height=12, width=9, channels=3, fit="stretch", resample="lanczos"),
    "inverted": Preprocess(height=10, width=16, channels=1, background=200, invert=True, resample="nearest"),
}
"""Between them every rule that a manifest can hold."""
LOSSY = ("jpg", "lossy.webp")
ROOM = 4
"""Levels by which another release of a decoder may round such a file otherwise."""

EXPECTED = json.loads((GOLDEN / "images" / "expected.json").read_text()) if GOLDEN.joinpath("images", "expected.json").exists() else {}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_of_file_becomes_the_tensor_that_is_kept(name):
    path, told = GOLDEN / "images" / name, EXPECTED[name]
    with np.load(GOLDEN / "images" / "tensors.npz") as tensors:
        for rules_name, rules in RULES.items():
            if "error" in told:
                with pytest.raises(ImageError) as caught:
                    decode_image(path, rules)
                assert caught.value.code == told["error"]
                continue
            decoded, kept = decode_image(path, rules), tensors[f"{name}/{rules_name}"]
            assert decoded.frames == told["frames"]
            (pixels,) = rules.as_images(decoded.pixels)
            assert pixels.shape == kept.shape
            difference = np.abs(pixels.astype(int) - kept.astype(int)).max()
            assert difference <= (ROOM if name.endswith(LOSSY) else 0), rules_name


def test_every_kind_is_there():
    assert len(EXPECTED) > 25
    assert {told["error"] for told in EXPECTED.values() if "error" in told} == {"unsupported_mode", "truncated_image", "not_an_image"}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_answers_here_as_where_it_was_made(precision):
    """From PNG files of several sizes and modes to clusters, and the golden inputs of the bundle itself."""
    bundle = Bundle.load(GOLDEN / "bundles" / precision)
    assert bundle.manifest.precision == precision
    if precision == "int8" and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 19):  # which sums 8-bit products otherwise
        with pytest.raises(DataError, match=r"needs onnxruntime 1\.19 or newer"):
            self_test(bundle)
        return
    assert [check for check in self_test(bundle) if not check.passed] == []
    with np.load(GOLDEN / "bundles" / "assignments.npz") as kept:
        expected = kept[precision]
    images = np.stack([bundle.read(path) for path in sorted((GOLDEN / "bundles" / "files").iterdir())])
    tolerance = bundle.manifest.tolerances["cpu"]
    for batch in (1, 7, 64):
        found = bundle.predict_proba(images, batch_size=batch)
        assert np.abs(found - expected).max() <= tolerance
        best = np.sort(expected, axis=1)
        clear = best[:, -1] - best[:, -2] > 2 * tolerance
        assert (found.argmax(1) == expected.argmax(1))[clear].all()
        assert clear.mean() > 0.5
