"""How threads wait: set before PyTorch is there, on machines of few processors, and never against the user."""

import os
import subprocess
import sys

import pytest

from catvae.core.machine import waiting
from catvae.kernels import _loader


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    monkeypatch.setattr(waiting, "usable_processors", lambda: 2)
    monkeypatch.setattr(_loader, "installed", lambda: True)
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "so that it is restored")
        monkeypatch.delenv(name)


def test_few_processors_are_given_way_on():
    waiting.give_way()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


def test_what_the_user_has_set_stands(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    waiting.give_way()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    waiting.give_way()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_on_many_processors_nothing_is_set(monkeypatch):
    monkeypatch.setattr(waiting, "usable_processors", lambda: 5)
    waiting.give_way()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_in_plain_pytorch_nothing_is_set(monkeypatch):
    monkeypatch.setattr(_loader, "installed", lambda: False)
    waiting.give_way()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_command_says_so_before_torch_is_imported(tmp_path):
    """torch reads it as it is loaded."""
    (tmp_path / "torch.py").write_text("import os; raise SystemExit(os.environ.get('GOMP_SPINCOUNT', 'unset'))")
    code = (
        "from catvae.core.machine import waiting; from catvae.kernels import _loader;"
        " waiting.FEW_PROCESSORS = 10**6; _loader.installed = lambda: True;"
        " from catvae.core.train_command import main; main()"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run([sys.executable, "-c", code, "digits"], env=environment, capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1] == "1000"
