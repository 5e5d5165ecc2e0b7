"""A small finished run that every export test reads, and the studio in a browser."""

import shutil

import pytest

pytest.importorskip("torch")

from catvae.core.config import resolve
from catvae.core.images.data import load_data
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin
from catvae.core.runs.session import Session
from catvae.export.web_page import write_page
from catvae.runtime.bundles.bundle_files import PRETRAINED

from ..browser import chromium, served
from .studio import ready, serious


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Folder of a short run on digits: not good, but real."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    config = resolve({"epochs": 3, "precision": "fp32", "hidden": 32, "overclusters": 1, "starts": 1, "generated_per_cluster": 2})
    session = Session.start(RunFolder(path), load_data("digits"), config, Origin(data="digits"))
    session.train()
    session.finish()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("studio") / "page"
    write_page(PRETRAINED / "digits", target)
    return target


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser):
    """Open a page; afterwards no complaint of the browser and no request to another host may be left."""
    contexts, complaints = [], []

    def open_page(address: str, *, tolerate: bool = False, script: str = "", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        home = address[: address.rindex("/") + 1]
        if not tolerate:
            page.on("console", lambda message: complaints.append(message.text) if serious(message) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else complaints.append(f"asked {r.url}"))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(visit, folder):
    with served(folder) as address:
        yield ready(visit(address))


@pytest.fixture
def copy(folder, tmp_path):
    target = tmp_path / "page"
    shutil.copytree(folder, target)
    return target
