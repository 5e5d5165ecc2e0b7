"""Manifests: what one may say, and that no change of it goes unnoticed."""

import json

import numpy as np
import pytest

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.errors import DataError

from ..fuzzing import model_id


@pytest.fixture(scope="module")
def images(bundle):
    return np.zeros((9, *bundle.preprocess.shape), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema=2), "schema 2, this version reads 1"),
        (lambda m: m.pop("schema"), "not a bundle manifest"),
        (lambda m: m.pop("delta"), "not a bundle manifest"),
        (lambda m: m.update(delta="four"), "not a bundle manifest"),
        (lambda m: m.update(clusters=[]), "no clusters"),
        (lambda m: m["graphs"].pop("decoder"), "no decoder"),
        (lambda m: m["graphs"]["encoder"].update(name="../encoder.onnx"), "only plain names"),
        (lambda m: m["graphs"]["encoder"].update(name="/etc/hostname"), "only plain names"),
        (lambda m: m["graphs"]["encoder"].update(name="a\0b"), "only plain names"),
        (lambda m: m["graphs"]["encoder"].update(name="C:\\x.onnx"), "only plain names"),
        (lambda m: m["golden"].update(name="CON"), "only plain names"),
        (lambda m: m["golden"].update(name="a" * 201), "only plain names"),
        (lambda m: m["golden"].update(name="com1.npz"), "only plain names"),
        (lambda m: (m["graphs"]["encoder"].update(sha256="0" * 64), m.update(model_id=model_id(m))), "not the file the manifest names"),
        (lambda m: m["graphs"]["encoder"].update(sha256="0" * 64), "files of two bundles are mixed"),
        (lambda m: m["clusters"].pop(), r"'assignment' has the shape \[10\], expected \[9\]"),
        (lambda m: m.update(delta=3), "expected \\[30\\]"),
        (lambda m: m["preprocess"].update(height=10**9), "images of 1000000000 x 28 pixels"),
        (lambda m: m["preprocess"].update(height=14), "expected \\[14, 28, 1\\]"),
        (lambda m: m["preprocess"].update(background=256), "background 256"),
        (lambda m: m["clusters"][0].update(share=-0.05), "shares of clusters"),
        (lambda m: m["scoring"].update(least_contrast=128), "least contrast 128.0, expected 0 to 127.5"),
        (lambda m: m.update(tolerances={}), "no tolerance for the CPU"),
        (lambda m: m["clusters"][3].update(name=""), "has the cluster name '', expected 1 to 255 printable"),
        (lambda m: m["clusters"][3].update(name="a\nb"), "printable characters"),
        (lambda m: m["clusters"][3].update(name="\x1b[2J"), "printable characters"),
        (lambda m: m["parity"].update(max_difference={}), "does not say how far its graphs are from PyTorch"),
        (lambda m: m.update(metrics={"train": {"acc": 1.0}}), "no ari, nmi among its metrics of 'train'"),
        (lambda m: m["graphs"]["decoder"]["outputs"][0].update(dtype="complex64"), "tensor 'image' is 'complex64', expected uint8"),
        (lambda m: m["graphs"]["decoder"]["outputs"][0].update(shape=["batch", "k"]), "expected \\[28, 28, 1\\]"),
    ],
)
def test_unfit_manifests_are_refused(copy, change, message):
    folder, edit = copy
    edit(change)
    with pytest.raises(DataError, match=message):
        Bundle.load(folder)


def test_unknown_manifest_fields_are_ignored(copy, images):
    folder, edit = copy
    edit(lambda m: m.update(from_the_future={"a": 1}))
    assert Bundle.load(folder).predict(images).shape == (9,)


def test_a_manifest_of_other_tensors_is_refused(copy, images):
    folder, edit = copy
    edit(lambda m: m["graphs"]["classifier"]["inputs"][0].update(name="picture"))
    with pytest.raises(DataError, match="its manifest says"):
        Bundle.load(folder).predict(images)


@pytest.mark.parametrize("content", [b"", b"text", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"extra": ' + b"1" * 5000 + b"}"])
def test_manifests_that_are_no_json(copy, content):
    folder, _ = copy
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="not a bundle manifest"):
        Bundle.load(folder)


@pytest.mark.parametrize("key", [b'"schema": 1', b'"name": "classifier.onnx"'])
def test_a_manifest_that_says_something_twice_is_refused(copy, key):
    folder, _ = copy
    path = folder / "manifest.json"
    compact = json.dumps(json.loads(path.read_bytes())).encode()
    assert key in compact
    path.write_bytes(compact.replace(key, key + b", " + key))
    with pytest.raises(DataError, match="twice"):
        Bundle.load(folder)


def test_a_manifest_larger_than_any(copy):
    folder, _ = copy
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(DataError, match="at most"):
        Bundle.load(folder)


@pytest.mark.parametrize(("key", "changed"), [(b'"fit"', b'"git"'), (b'"reject_threshold"', b'"reject_threshnld"'), (b"0.01", b"0.21")])
def test_a_manifest_with_a_damaged_bit_is_refused(copy, key, changed):
    """It would be read, and give other answers."""
    folder, _ = copy
    path = folder / "manifest.json"
    assert key in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(key, changed, 1))
    with pytest.raises(DataError, match=r"was changed or damaged since it was written \(its seal is of another text\)"):
        Bundle.load(folder)


def test_a_manifest_without_a_seal_is_refused_and_spaces_do_not_count(copy, images):
    folder, _ = copy
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest, indent=7).replace("\n", "\r\n"))
    assert Bundle.load(folder).predict(images).shape == (9,)
    del manifest["seal"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="it has no seal"):
        Bundle.load(folder)
