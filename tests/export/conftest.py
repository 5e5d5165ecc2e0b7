"""A small finished run that every export test reads."""

import pytest

pytest.importorskip("torch")

from catvae.core.config import resolve
from catvae.core.data import load_data
from catvae.core.run_folder import Origin, RunFolder
from catvae.core.session import Session


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Folder of a short run on digits: not good, but real."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    config = resolve({"epochs": 3, "precision": "fp32", "hidden": 32, "overclusters": 1, "starts": 1, "generated_per_cluster": 2})
    session = Session.start(RunFolder(path), load_data("digits"), config, Origin(data="digits"))
    session.train()
    session.finish()
    return path
