"""`catvae-doctor`: true on this machine, and loud where something is broken."""

import shutil
from types import SimpleNamespace

import pytest

from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.commands import doctor


def test_it_names_what_is_here(run):
    result = run("catvae-doctor")
    text = result.stdout.decode()
    assert result.returncode == 0, text
    for topic in ("python", "runtime", "engine", "training", "processor", "kernel", "gpu", "bundle"):
        assert any(line.startswith(topic) for line in text.splitlines()), topic
    assert "self-test passed on cpu" in text


def test_a_kernel_that_does_not_load_is_no_kernel(run):
    """The library is there; what counts is what the loader says of it."""
    result = run("catvae-doctor", env={"CATVAE_KERNEL": "off"})
    (line,) = [line for line in result.stdout.decode().splitlines() if line.startswith("kernel")]
    assert line.split()[1] == "off"
    assert "training is not installed" in line or "switched off by CATVAE_KERNEL=off" in line


def test_modules_in_the_working_folder_are_not_the_kernels(run, tmp_path):
    for name in ("multiprocessing.py", "cffi.py"):
        (tmp_path / name).write_text("print('from here'); raise SystemExit(3)")
    assert b"broken" not in next(line for line in run("catvae-doctor").stdout.splitlines() if line.startswith(b"kernel"))


def test_a_damaged_bundle_is_broken(run, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(PRETRAINED / "digits", folder)
    (folder / "decoder.onnx").write_bytes(b"")
    result = run("catvae-doctor", "-b", folder)
    assert result.returncode == 1
    assert b"broken" in result.stdout
    assert b"decoder.onnx is not the file the manifest names" in result.stdout


def test_two_engines_are_broken(monkeypatch):
    monkeypatch.setattr(doctor, "installed_wheels", lambda: {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"})
    (engine,) = [finding for finding in doctor._packages() if finding.topic == "engine"]
    assert engine.state == "broken"
    assert engine.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")


def test_an_engine_of_a_wheel_of_another_name_is_one(monkeypatch):
    monkeypatch.setattr(doctor, "installed_wheels", lambda: {})
    (engine,) = [finding for finding in doctor._packages() if finding.topic == "engine"]
    assert (engine.state, "not known" in engine.what) == ("ok", True)


def test_no_engine_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "installed_wheels", lambda: {})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (engine,) = [finding for finding in doctor._packages() if finding.topic == "engine"]
    assert engine.state == "broken"
    assert "pip install onnxruntime" in engine.fix


def test_where_there_is_no_driver_nothing_is_to_be_installed(monkeypatch):
    monkeypatch.setattr(doctor, "has_driver", lambda: False)
    assert doctor._gpu().what == "no NVIDIA driver: the CPU answers"
    monkeypatch.setattr(doctor, "has_driver", lambda: True)
    monkeypatch.setattr(doctor, "obstacles", lambda: ["no CUDA provider: pip install 'onnxruntime-gpu[cuda,cudnn]'"])
    assert doctor._gpu()[2:] == ("no CUDA provider", "pip install 'onnxruntime-gpu[cuda,cudnn]'")


@pytest.mark.parametrize(("cpu", "state", "fix"), [("plain torch", "off", "with a C compiler"), ("AVX2", "ok", "")])
def test_a_kernel_that_was_not_built_is_told_how_to_be(monkeypatch, cpu, state, fix):
    answer = SimpleNamespace(returncode=0, stdout=f"{cpu}\nplain torch\n", stderr="")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: answer)
    monkeypatch.setattr(doctor, "_version", lambda _name: "1.0")  # of cffi, which a device does without
    found = doctor._kernel()
    assert found.state == state
    assert fix in found.fix if fix else not found.fix


def test_an_engine_that_cannot_be_imported_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "unfit_numpy", lambda: "onnxruntime 1.17.3 was built for numpy 1: pip install 'numpy<2'")
    (engine,) = [finding for finding in doctor._packages() if finding.topic == "engine"]
    assert (engine.state, engine.fix) == ("broken", "pip install 'numpy<2'")
