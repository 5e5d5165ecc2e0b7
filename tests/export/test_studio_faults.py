"""The studio where something is missing, damaged or mislabelled, and without a network: it says so, or it works all the same."""

import errno
import gzip
import os
import shutil
from pathlib import Path

import pytest

from catvae.export import web_page
from catvae.export.web_page import write_page
from catvae.runtime.errors import DataError, OutputError, UsageError

from ..browser import served
from .studio import WAIT, ready, settled


def message(page) -> str:
    page.wait_for_selector("html[data-failed]", timeout=WAIT)
    assert page.is_hidden("#app")
    return page.inner_text("#status-text")


def test_a_missing_graph_is_named(visit, copy):
    (copy / "model" / "decoder.onnx").unlink()
    with served(copy) as address:
        assert "decoder.onnx is missing (HTTP 404)" in message(visit(address, tolerate=True))


@pytest.mark.parametrize("change", [lambda data: data[: len(data) // 2], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_graph_is_named(visit, copy, change):
    path = copy / "model" / "encoder.onnx"
    path.write_bytes(change(path.read_bytes()))
    with served(copy) as address:
        assert "encoder.onnx is not the file the manifest names" in message(visit(address, tolerate=True))


def test_a_manifest_of_another_version_is_named(visit, copy):
    path = copy / "model" / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
    with served(copy) as address:
        assert "schema 7" in message(visit(address, tolerate=True))
    path.write_text("<html>not here</html>")
    with served(copy) as address:
        assert "no JSON" in message(visit(address, tolerate=True))
    path.write_text("null")
    with served(copy) as address:
        assert "schema undefined" in message(visit(address, tolerate=True))
    for incomplete in ('{"schema": 1}', '{"schema": 1, "clusters": [], "graphs": null}'):
        path.write_text(incomplete)
        with served(copy) as address:
            assert "manifest.json is incomplete" in message(visit(address, tolerate=True))


def test_a_server_that_mislabels_scripts(visit, folder):
    with served(folder, {".mjs": "text/plain"}) as address:
        assert "ort/" in message(visit(address, tolerate=True))


def test_a_server_that_does_not_know_wasm_is_good_enough(visit, folder):
    with served(folder, {".gz": "text/plain", ".onnx": "text/html"}) as address:
        ready(visit(address, tolerate=True))


def test_an_engine_that_the_server_has_unpacked_is_taken(visit, copy):
    path = copy / "ort" / "ort-wasm-simd-threaded.wasm.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    with served(copy) as address:
        ready(visit(address))


@pytest.mark.parametrize("name", ["ort/ort-wasm-simd-threaded.wasm.gz", "ort/ort-wasm-simd-threaded.mjs"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_damaged_engine_is_named(visit, copy, name, damage):
    if damage == "missing":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes((copy / name).read_bytes()[: 1 << 12])
    said = {"missing": "is missing (HTTP 404)", "cut short": "damaged or cut short"}[damage]
    with served(copy) as address:
        assert (said if name.endswith(".gz") else "Are the files in ort/ complete") in message(visit(address, tolerate=True))


def test_noise_of_another_model_is_named(visit, copy):
    (copy / "model" / "noise.json").write_text("[1, 2]")
    with served(copy) as address:
        assert "noise.json does not belong" in message(visit(address, tolerate=True))


@pytest.mark.parametrize("damage", ["missing", "cut short", "mislabelled"])
def test_without_its_own_script_the_page_says_so(visit, copy, damage):
    script = copy / "studio.js"
    if damage == "missing":
        script.unlink()
    elif damage == "cut short":
        script.write_bytes(script.read_bytes()[:-100])
    with served(copy, {".js": "text/plain"} if damage == "mislabelled" else None) as address:
        assert "studio.js is missing, damaged" in message(visit(address, tolerate=True))


def test_opened_as_a_file_the_page_says_how_to_serve_it(visit, copy):
    assert "python -m http.server" in message(visit((copy / "index.html").as_uri(), tolerate=True))


def test_a_strict_policy_in_the_header_is_met(visit, folder):
    policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; object-src 'none'; frame-ancestors 'none'"
    with served(folder, headers={"Content-Security-Policy": policy}) as address:
        page = ready(visit(address))
        page.click("#examples button")
        settled(page)
        assert "sure" in page.inner_text("#verdict")


def test_a_connection_that_breaks(visit, folder):
    with served(folder) as address:
        page = ready(visit(address, tolerate=True, service_workers="block"))
        page.route("**/classifier.onnx", lambda route: route.abort())
        page.reload()
        assert "cannot be reached" in message(page)


def test_once_loaded_it_needs_no_network(page):
    page.context.set_offline(True)
    page.click("#examples button:nth-child(3)")
    settled(page)
    assert "sure" in page.inner_text("#verdict")


def test_once_visited_it_opens_without_its_server(visit, copy):
    with served(copy) as address:
        page = ready(visit(address, tolerate=True))
        page.wait_for_function("async () => (await (await caches.open('catvae-studio')).keys()).length >= 9", timeout=WAIT)
        page.evaluate("() => navigator.serviceWorker.ready.then(() => true)")
        page.reload()
        ready(page)
        (copy / "other.txt").write_text("of somebody else")
        assert page.evaluate("async () => (await fetch('other.txt')).text()") == "of somebody else"
        kept = page.evaluate("async () => (await (await caches.open('catvae-studio')).keys()).map(request => request.url)")
        assert not [url for url in kept if "other" in url]
    page.reload()  # its server is gone
    ready(page)
    page.click("#examples button")
    settled(page)
    assert "sure" in page.inner_text("#verdict")


def test_no_webassembly_is_said(visit, folder):
    with served(folder) as address:
        assert "no WebAssembly" in message(visit(address, tolerate=True, script="delete window.WebAssembly"))


def test_the_page_is_written_whole_or_not_at_all(folder, tmp_path):
    assert gzip.decompress((folder / "ort" / "ort-wasm-simd-threaded.wasm.gz").read_bytes())[:4] == b"\0asm"
    with pytest.raises(UsageError, match="--overwrite"):
        write_page(None, folder)
    write_page(None, folder, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    with pytest.raises(UsageError, match="not empty"):
        write_page(None, tmp_path / "mine", overwrite=True)
    with pytest.raises(DataError):
        write_page(tmp_path / "mine", tmp_path / "page")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@pytest.mark.parametrize("stranger", ["CNAME", ".git/HEAD", "model/notes.txt"])
def test_a_page_with_files_of_others_in_it_is_not_replaced(folder, tmp_path, stranger):
    page = tmp_path / "page"
    shutil.copytree(folder, page)
    (page / stranger).parent.mkdir(exist_ok=True)
    (page / stranger).write_text("mine")
    with pytest.raises(UsageError, match="which --overwrite would remove"):
        write_page(None, page, overwrite=True)
    assert (page / stranger).read_text() == "mine"
    assert (page / "studio.js").is_file()


def test_a_page_that_cannot_take_its_place_leaves_the_old_one(folder, tmp_path, monkeypatch):
    page, rename = tmp_path / "page", os.rename
    shutil.copytree(folder, page)

    def refuse(source, target):
        if Path(source).name.endswith(".tmp"):
            raise OSError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        write_page(None, page, overwrite=True)
    assert (page / "studio.js").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page"]


def test_a_built_page_with_another_engine_is_not_written(monkeypatch, tmp_path):
    for name in web_page.PAGE:
        (tmp_path / "web/dist" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(web_page.__file__).parent / "web/dist" / name, tmp_path / "web/dist" / name)
    monkeypatch.setattr(web_page, "files", lambda package: tmp_path)
    assert len(web_page.page_files()) == len(web_page.PAGE)
    engine = tmp_path / "web/dist/ort/ort-wasm-simd-threaded.mjs"
    engine.write_bytes(engine.read_bytes() + b"\n")
    with pytest.raises(DataError, match="mjs of the built page is not the file"):
        web_page.page_files()
    packed = tmp_path / "web/dist/ort/ort-wasm-simd-threaded.wasm.gz"
    data = bytearray(packed.read_bytes())
    assert data[3] == 0  # no name or comment: the first block follows on ten bytes
    data[10] = 0xFF  # of a kind that there is not
    packed.write_bytes(data)
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"the built page is not installed \(Error -3"):
        web_page.page_files()
