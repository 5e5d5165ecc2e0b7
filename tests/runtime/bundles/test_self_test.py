"""Golden inputs replayed: passes here, fails for another model's answers, refuses a damaged file."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.bundles.manifest_seal import sealed
from catvae.runtime.bundles.self_test import difference, self_test
from catvae.runtime.errors import DataError


@pytest.fixture
def copy(tmp_path):
    """A private copy of the packaged bundle, and a way to replace its golden file with fresh hashes."""
    folder = tmp_path / "bundle"
    shutil.copytree(PRETRAINED / "digits", folder)

    def replace(data: bytes) -> None:
        (folder / "golden.npz").write_bytes(data)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["golden"] |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        (folder / "manifest.json").write_bytes(sealed(manifest))

    return folder, replace


def test_every_output_passes_here(bundle):
    checks = self_test(bundle)
    assert [check.output for check in checks] == [
        "classifier.assignment", "encoder.mean", "encoder.log_variance", "encoder.cluster_kl", "decoder.image",
    ]  # fmt: skip
    assert all(check.passed for check in checks)


def test_other_answers_fail_and_exit_with_3(copy, run):
    folder, replace = copy
    with np.load(folder / "golden.npz") as stored:
        arrays = dict(stored)
    arrays["encoder.mean"] = arrays["encoder.mean"] + 0.01
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    replace(stream.getvalue())
    failed = [check.output for check in self_test(Bundle.load(folder)) if not check.passed]
    assert failed == ["encoder.mean"]
    result = run("catvae-infer", "-b", folder, "--self-test")
    assert result.returncode == 3
    assert b"encoder.mean" in result.stderr
    assert b"FAILED" in result.stdout
    assert run("catvae-infer", "--self-test").returncode == 0


def test_a_damaged_golden_file_is_refused(copy):
    folder, replace = copy
    (folder / "golden.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="not the file the manifest names"):
        self_test(Bundle.load(folder))
    (folder / "golden.npz").unlink()
    with pytest.raises(DataError, match=r"^[^:]*bundle is not a whole bundle: golden.npz is missing$"):
        self_test(Bundle.load(folder))
    replace(b"PK nonsense")
    with pytest.raises(DataError, match="not a golden file"):
        self_test(Bundle.load(folder))
    stream = io.BytesIO()
    np.savez(stream, image=np.zeros((1, 28, 28, 1), np.uint8))
    replace(stream.getvalue())
    with pytest.raises(DataError, match="lacks"):
        self_test(Bundle.load(folder))


def test_difference_fails_on_nan_and_shape():
    assert np.isnan(difference(np.zeros(2), np.zeros(3)))
    assert np.isnan(difference(np.array([np.nan]), np.zeros(1)))
    assert difference(np.array([11.0]), np.array([10.0])) == pytest.approx(0.1)
