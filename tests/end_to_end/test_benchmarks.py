"""The scripts behind the committed figures still run: each can be asked what it does, and each tried ingredient takes a step."""

import importlib

import numpy as np
import pytest
from click.testing import CliRunner

from catvae.core.config import resolve
from catvae.core.images.data import ImageData, native_preprocess

from .conftest import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def beside_the_product(monkeypatch):
    """Benchmarks are not installed."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_says_what_it_does(name):
    pytest.importorskip("matplotlib")
    pytest.importorskip("fontTools")
    script = importlib.import_module(f"benchmarks.{name}")
    if not hasattr(script, "main") or not hasattr(script.main, "callback"):
        return
    assert CliRunner().invoke(script.main, ["--help"]).exit_code == 0


def test_quality_prints_and_writes_its_rows(tmp_path, monkeypatch):
    script, record = importlib.import_module("benchmarks.quality"), importlib.import_module("benchmarks.record")
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    asked = ["digits", "--no-judge", "--seeds", "1", "--name", "tried", "--", "--epochs", "1"]
    done = CliRunner().invoke(script.main, asked, catch_exceptions=False)
    assert "seed 0 train ACC" in done.output
    header, columns, row = (tmp_path / "tried.csv").read_text().splitlines()
    assert header.startswith("# {")
    assert columns.startswith("data,options,seed,part,acc")
    assert row.startswith("digits,--epochs 1")


def test_every_ingredient_takes_a_step():
    ingredients = importlib.import_module("benchmarks.ingredients")
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    data = ImageData("noise", images, native_preprocess(images))
    settings = {"clusters": 3, "epochs": 4, "batch_size": 20, "hidden": 16, "starts": 1, "precision": "fp32", "device": "cpu"}
    for name, kind in ingredients.TRIED.items():
        trainer = kind(data, resolve(settings))
        for _ in range(2):
            assert np.isfinite(trainer.step().total.item()), name


def test_a_finished_row_is_found_again():
    runs = importlib.import_module("benchmarks.runs")
    rows = [{"name": "a", "seed": 1}, {"name": "b", "seed": "2"}]
    assert runs.has(rows, name="b", seed=2)
    assert runs.has(rows, name="a", seed=1)
    assert not runs.has(rows, name="a", seed=2)
