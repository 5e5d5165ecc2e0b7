"""What a call of catvae-train does before and around training: refusals that cost nothing, hints that are true, images that moved."""

import json
import shutil
import signal

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from catvae.core import launch, train_command
from catvae.core.runs import session
from catvae.core.runs.folder import RunFolder
from catvae.runtime.errors import CatVAEError, DeviceError, UsageError
from catvae.runtime.interruption import Interrupted

QUICK = ["-k", "3", "--epochs", "2", "--batch-size", "32", "--precision", "fp32", "-q"]


@pytest.fixture
def train(blobs, tmp_path, monkeypatch):
    """Calls catvae-train where there is a pile, `blobs.npz`."""
    monkeypatch.chdir(tmp_path)
    np.savez("blobs.npz", images=blobs.images, labels=blobs.labels)

    def call(*arguments: str):
        return CliRunner().invoke(train_command.train, list(arguments), standalone_mode=False)

    return call


def interrupt(*_args, **_kwargs):
    raise Interrupted(2)


def test_interrupted_while_images_are_read_there_is_nothing_to_resume(train, monkeypatch, tmp_path):
    assert train("blobs.npz", *QUICK, "-o", "run").return_value == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    monkeypatch.setattr(launch, "load_data", interrupt)
    for output in ("new", "run"):
        result = train("blobs.npz", "-o", output, "--overwrite")
        assert result.return_value == 130
        assert "stopped by SIGINT; nothing was trained" in result.stderr
        assert "--resume" not in result.stderr
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_interrupted_while_training_it_says_how_to_go_on(train, monkeypatch):
    monkeypatch.setattr(launch, "_train_one", interrupt)
    result = train("blobs.npz", *QUICK, "-o", "run")
    assert result.return_value == 130
    assert result.stderr.rstrip().endswith("go on with: catvae-train --resume run")


@pytest.mark.parametrize("several", [[], ["--seeds", "2"]])
def test_images_that_moved_are_found_again(train, monkeypatch, tmp_path, several):
    """Named once where they are now, they need not be named again."""
    real = launch._train_one
    monkeypatch.setattr(launch, "_train_one", interrupt)
    assert train("blobs.npz", *QUICK, *several, "-o", "run").return_value == 130
    (tmp_path / "elsewhere").mkdir()
    shutil.move("blobs.npz", "elsewhere/blobs.npz")
    result = train("--resume", "run")
    assert isinstance(result.exception, CatVAEError)
    assert train("elsewhere/blobs.npz", "--resume", "run").return_value == 130
    monkeypatch.setattr(launch, "_train_one", real)
    monkeypatch.chdir("elsewhere")
    assert train("--resume", str(tmp_path / "run"), "-q").return_value == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["origin"]["data"] == str(tmp_path / "elsewhere" / "blobs.npz")


def test_a_size_for_images_that_have_their_own_is_refused_before_they_are_read(train, monkeypatch):
    def reads(*_args, **_kwargs):
        raise AssertionError("it was read")

    monkeypatch.setattr(launch, "load_data", reads)
    for data in ("mnist", "blobs.npz"):
        result = train(data, "--image-size", "32", "-o", "out")
        assert isinstance(result.exception, UsageError)
        assert "--image-size is for a folder of images" in str(result.exception)


def test_a_working_folder_that_is_no_text_is_refused(train, tmp_path, monkeypatch):
    try:
        (tmp_path / "a\udcffb").mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    monkeypatch.chdir(tmp_path / "a\udcffb")
    result = train("images", "-o", "out")
    assert isinstance(result.exception, UsageError)
    assert "is not UTF-8 text: rename it" in str(result.exception)


def test_an_unset_variable_is_not_the_digits(train, tmp_path):
    assert train("blobs.npz", *QUICK, "-o", "run").return_value == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    for arguments in (["", *QUICK, "-o", "run", "--overwrite"], ["", "--resume", "run"]):
        assert "the path of the images is empty" in str(train(*arguments).exception)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_signal_while_an_earlier_run_is_replaced_waits_for_one_that_can_be_resumed(train, monkeypatch, tmp_path):
    assert train("blobs.npz", *QUICK, "-o", "run").return_value == 0
    clear = RunFolder.clear

    def told(folder: RunFolder) -> None:
        clear(folder)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "clear", told)
    result = train("blobs.npz", *QUICK, "-o", "run", "--overwrite")
    assert result.return_value == 143
    assert "go on with: catvae-train --resume run" in result.stderr
    assert train("--resume", "run", "-q").return_value == 0


def test_a_run_goes_on_on_another_device_and_with_labels_that_moved(train, monkeypatch, tmp_path):
    """Begun where there was a GPU, by what its configuration says."""
    for i, image in enumerate(np.load("blobs.npz")["images"][:3]):
        (tmp_path / "given" / f"kind {i}").mkdir(parents=True)
        Image.fromarray(image[..., 0]).save(tmp_path / "given" / f"kind {i}" / "1.png")
    with monkeypatch.context() as patch:
        patch.setattr(launch, "_train_one", interrupt)
        assert train("blobs.npz", *QUICK, "--labels", "given", "-o", "run").return_value == 130
    config = RunFolder("run").read_config()
    elsewhere = msgspec.structs.replace(config, device="cuda")
    RunFolder("run").write_config(elsewhere)
    record = RunFolder("run").read_record()
    record.config_hash = session._hash(elsewhere)
    RunFolder("run").write_record(record)
    shutil.move("given", "moved")
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert isinstance(train("--resume", "run").exception, DeviceError)
        assert train("--resume", "run", "-q", "--device", "cpu", "--labels", "moved").return_value == 0
    assert RunFolder("run").read_record().origin.labels == str(tmp_path / "moved")


@pytest.mark.parametrize("where", ["plan", "train_seeds"])
def test_interrupted_before_the_first_of_several_seeds_there_is_nothing_to_resume(train, monkeypatch, where):
    """Before the plan is written, and after it."""
    monkeypatch.setattr(launch, where, interrupt)
    result = train("blobs.npz", *QUICK, "--seeds", "2", "-o", "run")
    assert (result.return_value, "--resume" in result.stderr) == (130, False)
    assert "nothing was trained" in result.stderr


def test_a_run_in_a_folder_called_like_its_data_set_goes_on(train, monkeypatch):
    real = launch._train_one
    monkeypatch.setattr(launch, "_train_one", interrupt)
    assert train("digits", "--epochs", "1", "-q", "-o", "digits").return_value == 130
    monkeypatch.setattr(launch, "_train_one", real)
    assert train("--resume", "digits", "-q").return_value == 0
    assert train("digits", "--epochs", "1", "-q", "-o", "digits", "--overwrite").return_value == 0


def test_of_several_seeds_the_folder_to_resume_is_named(train, monkeypatch, tmp_path):
    real, calls = launch._train_one, []

    def stop_in_the_second(*arguments, **options):
        calls.append(1)
        (interrupt if len(calls) == 2 else real)(*arguments, **options)

    monkeypatch.setattr(launch, "_train_one", stop_in_the_second)
    assert train("blobs.npz", *QUICK, "--seeds", "2", "-o", "run").return_value == 130
    np.savez("other.npz", images=np.load("blobs.npz")["images"][::-1])
    result = train("other.npz", "--resume", "run")
    assert str(result.exception).endswith("catvae-train DATA --resume run")


def test_memory_is_asked_for_where_it_can_be_saved(train, monkeypatch, tmp_path):
    def too_much(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(launch, "_prepare", too_much)
    assert "--image-size" not in str(train("blobs.npz", *QUICK, "-o", "run").exception)
    (tmp_path / "pile").mkdir()
    assert "--image-size" in str(train("pile", *QUICK, "-o", "run").exception)
