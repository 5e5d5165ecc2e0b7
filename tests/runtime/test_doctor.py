"""`catvae-doctor`: true on this machine, and loud where something is broken."""

import shutil

from catvae.runtime import doctor
from catvae.runtime.bundle import PRETRAINED


def test_it_names_what_is_here(run):
    result = run("catvae-doctor")
    text = result.stdout.decode()
    assert result.returncode == 0, text
    for topic in ("python", "runtime", "engine", "training", "processor", "kernel", "gpu", "bundle"):
        assert any(line.startswith(topic) for line in text.splitlines()), topic
    assert "self-test passed on cpu" in text


def test_a_damaged_bundle_is_broken(run, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(PRETRAINED / "digits", folder)
    (folder / "decoder.onnx").write_bytes(b"")
    result = run("catvae-doctor", "-b", folder)
    assert result.returncode == 1
    assert b"broken" in result.stdout
    assert b"decoder.onnx is not the file the manifest names" in result.stdout


def test_two_engines_are_broken(monkeypatch):
    monkeypatch.setattr(doctor, "installed_wheels", lambda: ["onnxruntime", "onnxruntime-gpu"])
    (engine,) = [finding for finding in doctor._packages() if finding.topic == "engine"]
    assert engine.state == "broken"
    assert engine.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")


def test_no_engine_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "installed_wheels", lambda: [])
    (engine,) = [finding for finding in doctor._packages() if finding.topic == "engine"]
    assert engine.state == "broken"
    assert "catvae[cpu]" in engine.fix
