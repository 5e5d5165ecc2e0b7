"""Several seeds for one result: chosen without labels, resumed where they stopped."""

import dataclasses
import os
from types import SimpleNamespace
from typing import cast

import pytest

from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin, RunRecord
from catvae.core.runs.seeds import PLAN, _agreement, _eligible, best_seed, folder_of, plan, read_plan, train_seeds
from catvae.core.runs.session import Session
from catvae.core.runs.verdict import Verdict
from catvae.runtime.errors import DataError, NumericError, OutputError
from catvae.runtime.interruption import Interrupted

ORIGIN = Origin(data="blobs")


def train(session, _prefix: str = "") -> None:
    session.train()


def test_the_best_of_three_is_kept_and_all_are_reported(blobs, quick, tmp_path):
    folder = RunFolder(tmp_path / "run")
    plan(folder, [5, 6, 7])
    record = train_seeds(folder, blobs, quick(seed=5), ORIGIN, None, train)
    assert folder.read_record() == record
    assert [run.seed for run in record.seeds] == [5, 6, 7]
    kept = next(run for run in record.seeds if run.kept)
    alike = [run for run in record.seeds if run.verdict == kept.verdict]
    # of two that are left, by whatever a machine rounds, agreement with one another is the same: views decide
    worth = {run.seed: (run.agreement if len(alike) == 3 else 0.0, run.view_information) for run in alike}
    assert worth[kept.seed] == max(worth.values())
    assert all(-0.5 <= run.agreement <= 1 for run in record.seeds)
    assert folder.read_config().seed == kept.seed
    assert (folder.path / "model.safetensors").read_bytes() == (folder.path / "seeds" / str(kept.seed) / "model.safetensors").read_bytes()


def test_labels_do_not_choose(blobs, quick, tmp_path):
    chosen = []
    for name, labels in (("a", blobs.labels), ("b", blobs.labels[::-1].copy()), ("c", None)):
        folder = RunFolder(tmp_path / name)
        plan(folder, [0, 1])
        data = dataclasses.replace(blobs, labels=labels, label_names=blobs.label_names if labels is not None else ())
        chosen.append([run.kept for run in train_seeds(folder, data, quick(), ORIGIN, None, train).seeds])
    assert chosen[0] == chosen[1] == chosen[2]


def test_an_interrupted_plan_goes_on(blobs, quick, tmp_path):
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    for folder in (whole, cut):
        plan(folder, [0, 1])
    expected = train_seeds(whole, blobs, quick(), ORIGIN, None, train)

    def stop_in_the_second(session, _prefix: str) -> None:
        def stop(_loss) -> None:
            if session.trainer.config.seed == 1 and session.trainer.position.step == 4:
                raise Interrupted(2)

        session.train(stop)

    with pytest.raises(Interrupted):
        train_seeds(cut, blobs, quick(), ORIGIN, None, stop_in_the_second)
    assert not (cut.path / "run.json").exists()
    found = train_seeds(cut, blobs, quick(), ORIGIN, None, train)
    assert found.seeds == expected.seeds


def test_finished_seeds_of_other_images_are_not_taken_for_these(blobs, quick, tmp_path):
    folder = RunFolder(tmp_path / "run")
    plan(folder, [0, 1])
    train_seeds(folder, blobs, quick(), ORIGIN, None, train)
    (folder.path / "report.html").unlink()
    with pytest.raises(DataError, match="holds other images than"):
        train_seeds(folder, dataclasses.replace(blobs, images=blobs.images[::-1].copy()), quick(), ORIGIN, None, train)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_seeds_that_cannot_be_removed_are_named(blobs, quick, tmp_path):
    folder = RunFolder(tmp_path / "run")
    plan(folder, [0])
    train_seeds(folder, blobs, quick(), ORIGIN, None, train)
    (folder.path / "seeds" / "0").chmod(0o500)
    with pytest.raises(OutputError, match=r"cannot remove .*seeds/0"):
        plan(folder, [0])
    (folder.path / "seeds" / "0").chmod(0o700)


def test_what_others_have_put_beside_a_seed_stays(blobs, quick, tmp_path):
    """A bundle of one of the runs: it is neither removed with the run nor taken for the result's."""
    folder = RunFolder(tmp_path / "run")
    bundle = folder.path / "seeds" / "0" / "bundle" / "manifest.json"
    for seeds in ([0, 1], [0]):
        plan(folder, seeds)
        if bundle.parent.is_dir():
            left = [folder.path / "seeds", bundle.parent.parent, bundle.parent, bundle, folder.path / PLAN]
            assert sorted(folder.path.rglob("*")) == left
        train_seeds(folder, blobs, quick(), ORIGIN, None, train)
        bundle.parent.mkdir(exist_ok=True)
        bundle.write_text("{}")
    assert not (folder.path / "bundle").exists()


def test_a_plan_whose_first_run_never_began_says_so(tmp_path):
    plan(RunFolder(tmp_path / "run"), [0, 1])
    with pytest.raises(DataError, match="stopped before its first run began"):
        folder_of(tmp_path / "run")


def test_a_degenerate_run_is_kept_only_for_want_of_a_healthy_one(blobs, quick, tmp_path):
    folder = RunFolder(tmp_path / "run")
    plan(folder, [0, 1])
    train_seeds(folder, blobs, quick(), ORIGIN, None, train)
    records = {seed: RunFolder(folder.path / "seeds" / str(seed)).read_record() for seed in (0, 1)}
    for record in records.values():
        record.verdict = Verdict(status="healthy")
    records[0].health["view_information"], records[1].health["view_information"] = 1.0, 0.1
    alike = {0: {1: 0.5}, 1: {0: 0.5}}
    assert best_seed(records, alike) == 0
    records[0].verdict = Verdict(status="degenerate", reasons=("one class",))
    assert best_seed(records, alike) == 1


def test_a_damaged_plan_is_named(tmp_path):
    (tmp_path / "seeds.json").write_text("{")
    with pytest.raises(DataError, match=r"seeds\.json is damaged"):
        read_plan(RunFolder(tmp_path))


def test_a_run_with_weights_but_without_an_end_is_finished_first(blobs, quick, tmp_path):
    """Killed between its weights and its last record, the first run must be finished, not compared as it is."""
    folder = RunFolder(tmp_path / "run")
    plan(folder, [0, 1])
    session = Session.start(RunFolder(folder.path / "seeds" / "0"), blobs, quick(seed=0), ORIGIN)
    session.train()
    (folder.path / "seeds" / "0" / "model.safetensors").write_bytes(b"")
    assert len(train_seeds(folder, blobs, quick(), ORIGIN, None, train).seeds) == 2


def test_a_seed_that_fails_is_left_out(blobs, quick, tmp_path, capsys):
    def fail_on(*seeds: int):
        def run(session, _prefix: str) -> None:
            if session.trainer.config.seed in seeds:
                raise NumericError("the loss was not a finite number")
            session.train()

        return run

    folder = RunFolder(tmp_path / "run")
    plan(folder, [0, 1])
    record = train_seeds(folder, blobs, quick(), ORIGIN, None, fail_on(1))
    assert [(run.seed, run.kept) for run in record.seeds] == [(0, True)]
    assert "seed 1 is left out: the loss was not a finite number" in capsys.readouterr().err
    plan(folder, [0, 1])
    with pytest.raises(NumericError):
        train_seeds(folder, blobs, quick(), ORIGIN, None, fail_on(0, 1))


def test_what_most_seeds_find_is_kept():
    """Of healthy runs of the usual K; the one that says most of its views may be the one that nobody else finds."""

    def record(views: float, clusters: int = 3, status: str = "healthy"):
        found = SimpleNamespace(clusters=[None] * clusters, verdict=Verdict(status=status), health={"view_information": views})
        return cast(RunRecord, found)

    alike = {0: {1: 0.9, 2: 0.8, 3: 0.3}, 1: {0: 0.9, 2: 0.6, 3: 0.3}, 2: {0: 0.8, 1: 0.6, 3: 0.9}, 3: {0: 0.3, 1: 0.3, 2: 0.9}}
    records = {seed: record(views) for seed, views in enumerate((1.0, 1.2, 0.9, 2.0))}
    assert best_seed(records, alike) == 2
    three = {**records, 3: record(2.0, clusters=4)}
    assert best_seed(three, alike) == 0  # and has no say in what the others are
    assert {seed: _agreement(alike[seed], _eligible(three)) for seed in three} == pytest.approx({0: 0.85, 1: 0.75, 2: 0.7, 3: 0.5})
    assert best_seed({**records, 0: record(1.0, status="degenerate"), 2: record(1.0, status="degenerate")}, alike) == 3  # of two
    assert best_seed({0: records[0]}, {0: {}}) == 0
    assert _agreement(alike[0], [0]) == pytest.approx(2 / 3)  # the only one that may be kept is confirmed by nobody of its kind
    assert _agreement({}, [0]) == 1
    others = {4: record(3.0, clusters=4), 5: record(3.0, clusters=4, status="degenerate"), 6: record(3.0, clusters=4, status="degenerate")}
    apart = {seed: {other: alike.get(seed, {}).get(other, 0.2) for other in range(7) if other != seed} for seed in range(7)}
    assert best_seed({0: records[0], 1: records[1], **others}, apart) == 1  # the usual K is that of healthy runs
