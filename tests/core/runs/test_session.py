"""A run on disk: what is written when, and which states are refused."""

import dataclasses
import json
import math
import os
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path

import pytest
import torch

from catvae.core.runs import evaluation
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin
from catvae.core.runs.session import Session
from catvae.core.training.checkpoint import read_position
from catvae.runtime.errors import DataError, NumericError, OutputError, UsageError
from catvae.runtime.files import sha256
from catvae.runtime.interruption import Interrupted


@pytest.fixture
def interrupted(blobs, quick, tmp_path):
    """A run folder whose training was stopped in its second epoch."""
    folder = RunFolder(tmp_path / "run")
    session = Session.start(folder, blobs, quick(), Origin(data="blobs"))

    def stop(_loss) -> None:
        if session.trainer.position.step == 5:
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        session.train(stop)
    return folder


def test_interrupted_resumed_finished(interrupted, blobs):
    record = interrupted.read_record()
    assert (record.status, record.epochs) == ("interrupted", 1)
    session = Session.resume(interrupted, blobs)
    session.train()
    record = session.finish()
    assert interrupted.read_record() == record
    assert (record.status, record.epochs) == ("finished", 4)
    assert record.scores["train"]["acc"] > 0
    assert [cluster.share for cluster in record.clusters]
    assert interrupted.read_model().spec == record.spec


@pytest.mark.parametrize("where", ["steering.observe", "trained.optimizer.step", "batch"])
def test_a_signal_in_the_middle_of_a_step_saves_nothing_of_it(blobs, quick, tmp_path, monkeypatch, where):
    """The second of two: it does not wait. What was last saved is whole, and the run goes on from there as if nothing had been."""
    whole = Session.start(RunFolder(tmp_path / "whole"), blobs, quick(), Origin(data="blobs"))
    whole.train()
    session = Session.start(RunFolder(tmp_path / "run"), blobs, quick(), Origin(data="blobs"))
    holder, _, name = f"trainer.{where}".rpartition(".")
    holder = attrgetter(holder)(session)
    call = getattr(holder, name)

    def told(*arguments, **options):
        result = call(*arguments, **options)
        if session.trainer.position.step == 5:
            raise Interrupted(15)
        return result

    monkeypatch.setattr(holder, name, told)
    with pytest.raises(Interrupted):
        session.train()
    assert session.folder.read_record().status == "interrupted"
    again = Session.resume(session.folder, blobs)
    assert again.trainer.position.step == 0  # saved when it began
    again.train()
    for one, other in zip(again.trainer.model.parameters(), whole.trainer.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_finished_run_that_lost_its_report_is_finished_again(interrupted, blobs):
    session = Session.resume(interrupted, blobs)
    session.train()
    record = session.finish()
    assert interrupted.complete
    page, weights = ((interrupted.path / name).read_bytes() for name in ("report.html", "model.safetensors"))
    (interrupted.path / "report.html").unlink()
    assert not interrupted.complete
    again = Session.resume(interrupted, blobs)
    again.train()
    assert again.finish() == record
    assert (interrupted.path / "report.html").read_bytes() == page
    assert (interrupted.path / "model.safetensors").read_bytes() == weights
    assert interrupted.complete


def test_other_images_or_settings_are_refused(interrupted, blobs):
    other = dataclasses.replace(blobs, images=255 - blobs.images)
    with pytest.raises(DataError, match="holds other images"):
        Session.resume(interrupted, other)
    smaller = dataclasses.replace(blobs, images=blobs.images[:, ::2, ::2])  # its network would not fit the state either
    with pytest.raises(DataError, match="holds other images"):
        Session.resume(interrupted, smaller)
    path = interrupted.path / "config.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
    with pytest.raises(DataError, match=r"config\.json was changed"):
        Session.resume(interrupted, blobs)


def test_two_calls_do_not_work_on_one_run(interrupted):
    with interrupted.locked(), pytest.raises(UsageError, match="another catvae-train is at work"), RunFolder(interrupted.path).locked():
        pass
    with RunFolder(interrupted.path).locked():
        pass


def test_a_name_of_a_data_set_is_not_taken_for_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("notes on digits")
    (tmp_path / "mine.npz").write_bytes(b"")
    (tmp_path / "mnist").mkdir()
    assert Origin.of("digits").data == "digits"
    assert Origin.of("mine.npz").data == str(tmp_path / "mine.npz")
    assert Origin.of("mnist").data == str(tmp_path / "mnist")


def test_a_numeric_failure_is_recorded(blobs, quick, tmp_path):
    session = Session.start(RunFolder(tmp_path / "run"), blobs, quick(), Origin(data="blobs"))
    session.trainer.model.E.data.fill_(float("nan"))
    with pytest.raises(NumericError):
        session.train()
    assert session.folder.read_record().status == "failed"


def test_on_a_full_disc_a_numeric_failure_is_still_the_one_that_is_told(blobs, quick, tmp_path, monkeypatch):
    session = Session.start(RunFolder(tmp_path / "run"), blobs, quick(), Origin(data="blobs"))
    session.trainer.model.E.data.fill_(float("nan"))

    def full(_record) -> None:
        raise OutputError("no space left")

    monkeypatch.setattr(session.folder, "write_record", full)
    with pytest.raises(NumericError):
        session.train()
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_folders_are_not_overwritten_unasked(interrupted, tmp_path):
    with pytest.raises(UsageError, match="--resume"):
        interrupted.check_free(overwrite=False)
    interrupted.check_free(overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("kept")
    with pytest.raises(UsageError, match="is not empty and not a run folder; choose another -o"):
        RunFolder(tmp_path / "thesis").check_free(overwrite=False)
    with pytest.raises(UsageError, match="only replaces runs"):
        RunFolder(tmp_path / "thesis").check_free(overwrite=True)
    for mine in ('{"mine": 1}', "[]", "not JSON", '{"status": "finished"}'):
        (tmp_path / "thesis" / "run.json").write_text(mine)
        with pytest.raises(UsageError, match="only replaces runs"):
            RunFolder(tmp_path / "thesis").check_free(overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(tmp_path / "file").check_free(overwrite=True)
    (tmp_path / "bundle").mkdir()
    for name in ("manifest.json", "classifier.onnx"):
        (tmp_path / "bundle" / name).write_text("")
    with pytest.raises(UsageError, match="lies in the bundle"):
        RunFolder(tmp_path / "bundle" / "run").check_free(overwrite=True)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    RunFolder(tmp_path / "deep" / "run").check_free(overwrite=False)
    assert sorted(tmp_path.rglob("*")) == before
    if Path("/proc/self").exists():
        with pytest.raises(OutputError, match="cannot write into /proc/run: /proc: "):
            RunFolder("/proc/run").check_free(overwrite=False)


def test_starting_again_removes_what_the_last_run_left(interrupted, blobs, quick):
    (interrupted.path / "samples").mkdir(exist_ok=True)
    (interrupted.path / "samples" / "epoch-0003.png").write_bytes(b"x")
    (interrupted.path / "samples" / "mine.png").write_bytes(b"x")
    for name in ("7/config.json", "7/state.json", "mine/config.json"):
        (interrupted.path / "seeds" / name).parent.mkdir(parents=True, exist_ok=True)
        (interrupted.path / "seeds" / name).write_bytes(b"{}")
    Session.start(interrupted, blobs, quick(seed=1), Origin(data="blobs"))
    assert sorted(p.name for p in interrupted.path.iterdir() if p.is_file()) == [
        "calibration.safetensors", "config.json", "run.json", "state.json", "state.safetensors",
    ]  # fmt: skip
    assert read_position(interrupted.path).step == 0
    assert [path.name for path in (interrupted.path / "samples").iterdir()] == ["mine.png"]  # what others put there is theirs
    assert [path.name for path in (interrupted.path / "seeds").iterdir()] == ["mine"]
    assert json.loads((interrupted.path / "config.json").read_text())["seed"] == 1


def test_what_tells_a_run_goes_last_when_it_is_removed(interrupted, monkeypatch):
    """Stopped in the middle, what is left is still known as a run, and can be removed by the same call."""
    real, left = Path.unlink, []

    def unlink(self, missing_ok=False):
        left.append((interrupted.path / "run.json").exists())
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    interrupted.clear()
    assert all(left)
    assert not (interrupted.path / "run.json").exists()


def test_killed_before_its_first_save_a_run_begins_again(blobs, quick, tmp_path):
    folder = RunFolder(tmp_path / "run")
    Session.start(folder, blobs, quick(), Origin(data="blobs"))  # and no more: as after kill -9
    session = Session.resume(folder, blobs)
    session.train()
    assert session.finish().status == "finished"


@pytest.mark.parametrize("whole", range(4))
def test_killed_while_it_writes_its_first_files_a_run_can_be_replaced(blobs, quick, tmp_path, monkeypatch, whole):
    """Whatever is there then, one file half written among it, is told to be a run's."""
    folder, real, written = RunFolder(tmp_path / "run"), os.replace, []

    def replace(source, target) -> None:
        written.append(target)
        if len(written) > whole:
            raise MemoryError
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        patched.setattr(os, "unlink", lambda _path: None)
        with pytest.raises(MemoryError):
            Session.start(folder, blobs, quick(), Origin(data="blobs"))
    assert len(list(folder.path.glob(".*.tmp"))) == 1
    folder.check_free(overwrite=True)
    Session.start(folder, blobs, quick(), Origin(data="blobs"))
    assert not list(folder.path.glob(".*.tmp"))


def test_metrics_on_disk_are_those_of_the_saved_state(interrupted):
    (row,) = interrupted.read_metrics()
    (saved,) = read_position(interrupted.path).rows
    assert {k for k, v in row.items() if v is None} == {k for k, v in saved.items() if v is None}
    assert {k: v for k, v in row.items() if v is not None} == pytest.approx({k: v for k, v in saved.items() if v is not None}, rel=1e-5)


def test_a_run_goes_on_in_the_precision_it_was_begun_in(blobs, quick, tmp_path, monkeypatch):
    """What `auto` means is the machine's; a run that moves to another one does not change."""
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr("catvae.core.machine.devices._cpu_has_bf16", lambda: True)
    Session.start(folder, blobs, quick(precision="auto"), Origin(data="blobs"))
    monkeypatch.setattr("catvae.core.machine.devices._cpu_has_bf16", lambda: False)
    session = Session.resume(folder, blobs)
    assert session.trainer.precision == "bf16"
    session.train()
    assert session.finish().status == "finished"


def test_where_the_images_are_now_is_remembered(interrupted, blobs):
    Session.resume(interrupted, blobs, origin=Origin(data="/elsewhere/blobs.npz"))
    assert interrupted.read_record().origin.data == "/elsewhere/blobs.npz"


def test_a_run_resumed_elsewhere_says_so(interrupted, blobs):
    record = interrupted.read_record()
    record.device, record.versions = "cuda", {**record.versions, "torch": "2.6.0"}
    interrupted.write_record(record)
    Session.resume(interrupted, blobs)  # and killed at once: said once all the same
    assert interrupted.read_record().status == "running"
    session = Session.resume(interrupted, blobs)
    session.train()
    record = session.finish()
    assert record.device == "cpu"
    assert record.versions["torch"] == version("torch")
    (line,) = record.resumed
    assert line.startswith("step 5: device cuda -> cpu, torch 2.6.0 -> ")


def test_a_run_that_cannot_be_finished_is_not_left_running(blobs, quick, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    session = Session.start(folder, blobs, quick(), Origin(data="blobs"))
    session.train()
    monkeypatch.setattr("catvae.core.runs.session.run_report", lambda *_args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.finish()
    assert folder.read_record().status == "failed"


def test_interrupted_while_it_is_scored_a_run_can_be_finished_later(blobs, quick, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    session = Session.start(folder, blobs, quick(), Origin(data="blobs"))
    session.train()

    def stop(*_args, **_kwargs):
        raise Interrupted(15)

    with monkeypatch.context() as patched:
        patched.setattr("catvae.core.runs.evaluation.bound_record", stop)
        with pytest.raises(Interrupted):
            session.finish()
    assert folder.read_record().status == "interrupted"
    again = Session.resume(folder, blobs)
    again.train()
    assert again.finish().scores
    assert folder.read_record().status == "finished"


def rewritten(path: Path, **changes) -> bytes:
    """A JSON file with other values; None takes one out."""
    values = {**json.loads(path.read_bytes()), **changes}
    content = json.dumps({name: value for name, value in values.items() if value is not None}).encode()
    path.write_bytes(content)
    return content


def test_a_run_of_an_older_version_goes_on_without_settings_that_are_new(interrupted, blobs):
    content = rewritten(interrupted.path / "config.json", tone=None)
    rewritten(interrupted.path / "run.json", config_hash="another")
    with pytest.raises(DataError, match="was changed"):
        Session.resume(interrupted, blobs)
    rewritten(interrupted.path / "run.json", config_hash=sha256(content))
    assert Session.resume(interrupted, blobs).trainer.config.tone == 0.1


@pytest.mark.parametrize(("what", "before"), [("kernel", "another one"), ("threads", 999)])
def test_what_the_run_did_not_begin_with_is_noted(interrupted, blobs, what, before):
    here = getattr(interrupted.read_record(), what)
    rewritten(interrupted.path / "run.json", **{what: before})
    Session.resume(interrupted, blobs)
    record = interrupted.read_record()
    assert record.resumed == [f"step 5: {what} {before} -> {here}"]
    assert getattr(record, what) == here


def test_numbers_that_are_not_finite_end_a_run_that_can_be_read(interrupted, blobs, monkeypatch):
    session = Session.resume(interrupted, blobs)
    session.train()
    monkeypatch.setattr(evaluation, "bound_record", lambda *_: {"elbo": math.inf, "nll": 1.0})
    with pytest.raises(NumericError, match=r"not finite \(elbo\)"):
        session.finish()
    assert interrupted.read_record().status == "failed"
