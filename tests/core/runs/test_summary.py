"""What a run tells of itself: curves that can be drawn and kept small."""

import math

from catvae.core.config import resolve
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import DataRecord, Origin, RunRecord
from catvae.core.runs.summary import POINTS, training_of
from catvae.core.vae.model import ModelSpec
from catvae.runtime.images.preprocess import Preprocess


def record() -> RunRecord:
    rules = Preprocess(height=6, width=5, channels=1)
    return RunRecord(
        spec=ModelSpec.of(resolve({}), rules.shape),
        origin=Origin(data="x"),
        config_hash="",
        data=DataRecord(name="x", count=1, hash="", preprocess=rules, policy="none"),
    )


def test_long_curves_are_thinned_and_keep_both_ends():
    rows: list[dict[str, float | None]] = [{"epoch": float(i), "elbo": -1.0 / (i + 1), "kl": 0.0} for i in range(5000)]
    curves = training_of(record(), resolve({}), rows).curves
    assert list(curves) == ["evidence lower bound"]  # a term that is off is no curve
    points = curves["evidence lower bound"]
    assert len(points) == POINTS
    assert (points[0], points[-1]) == ((0.0, -1.0), (4999.0, -0.0002))


def test_values_that_cannot_be_drawn_are_left_out():
    rows: list[dict[str, float | None]] = [{"epoch": 1.0, "elbo": math.inf}, {"epoch": 2.0, "elbo": None}, {"epoch": 3.0, "elbo": -2.0}]
    assert training_of(record(), resolve({}), rows).curves == {"evidence lower bound": [(3.0, -2.0)]}


def test_metrics_are_read_as_they_were_written(tmp_path):
    rows: list[dict[str, float | None]] = [{"epoch": 1.0, "elbo": -12.5, "kl": None}, {"epoch": 2.0, "elbo": -3.25, "kl": 0.5}]
    RunFolder(tmp_path).write_metrics(rows)
    assert RunFolder(tmp_path).read_metrics() == rows
    RunFolder(tmp_path).write_metrics([])  # resumed from before its first epoch: what is there is of what was lost
    assert RunFolder(tmp_path).read_metrics() == []
