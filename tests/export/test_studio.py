"""The studio in a real browser: the runtime's answers, what a visitor does, and what the page says when it cannot work."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from catvae.export.web_page import write_page
from catvae.runtime.bundle import PRETRAINED, Bundle
from catvae.runtime.errors import DataError, UsageError
from catvae.runtime.images import read_image

from ..browser import chromium, served

WAIT = 60_000
PIXELS = "id => Array.from(document.getElementById(id).getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 == 0)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("studio") / "page"
    write_page(PRETRAINED / "digits", target)
    return target


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def serious(message) -> bool:
    """Errors and warnings, but for one that these tests cause themselves by reading canvases."""
    return message.type in ("error", "warning") and "willReadFrequently" not in message.text


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
        if not tolerate:
            page.on("console", lambda message: complaints.append(message.text) if serious(message) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else complaints.append(f"asked {r.url}"))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(visit, folder):
    with served(folder) as address:
        found = visit(address)
        found.wait_for_selector("html[data-ready]", timeout=WAIT)
        yield found


def settled(page) -> None:
    page.wait_for_timeout(400)


def test_answers_are_the_runtimes(page, capsys):
    bundle = Bundle.load(PRETRAINED / "digits")
    with np.load(io.BytesIO(bundle.golden())) as golden:
        images, latents = golden["image"], golden["latent"]
    for image, expected, mean in zip(images, bundle.predict_proba(images), bundle.transform(images), strict=True):
        found = page.evaluate(
            "async p => { const a = await catvae.answer(Uint8Array.from(p)); return [[...a.assignment], [...a.mean], a.cluster] }",
            image.ravel().tolist(),
        )
        np.testing.assert_allclose(found[0], expected, atol=1e-5)
        np.testing.assert_allclose(found[1], mean, atol=1e-5 * max(1, np.abs(mean).max()))
        assert found[2] == expected.argmax()
    decoded = page.evaluate("async z => (await catvae.decode(z.map(p => Float32Array.from(p)))).map(p => [...p])", latents.tolist())
    np.testing.assert_allclose(np.array(decoded), bundle.decode(latents).reshape(len(latents), -1), atol=1e-5)
    with capsys.disabled():
        print(f"\nstudio: ready after {page.get_attribute('html', 'data-ready')} ms")


def test_a_drawing_is_sorted(page):
    assert "Draw" in page.inner_text("#verdict")
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 260, steps=12)
    page.mouse.up()
    settled(page)
    assert "1" in page.inner_text("#verdict strong")
    assert page.locator("#bars li").count() == 6
    page.click("#clear")
    assert "Draw" in page.inner_text("#verdict")


@pytest.mark.parametrize(
    ("size", "mode", "suffix"), [((28, 28), "L", "png"), ((90, 70), "L", "png"), ((40, 61), "RGB", "png"), ((33, 20), "RGBA", "png")]
)
def test_an_opened_file_is_read_as_the_runtime_reads_it(page, tmp_path, size, mode, suffix):
    rng = np.random.default_rng(4)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(rng.integers(0, 256, (*size, *channels), dtype=np.uint8), mode).save(path)
    bundle = Bundle.load(PRETRAINED / "digits")
    expected = read_image(path, bundle.preprocess)
    page.set_input_files("#file", path)
    settled(page)
    seen = np.array(page.evaluate(PIXELS, "seen"), dtype=int).reshape(28, 28)
    # The browser stores half-transparent colours rounded; opaque ones come out exactly.
    assert np.abs(seen - expected[..., 0]).max() <= (2 if mode == "RGBA" else 0)
    assert page.inner_text("#verdict strong") == bundle.names[int(bundle.predict(expected[None])[0])]


def test_a_dropped_file_is_sorted_and_a_bad_one_named(page):
    stream = io.BytesIO()
    Image.new("L", (28, 28), 120).save(stream, "PNG")
    drop = """data => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(data)], 'x.png', {type: 'image/png'}));
        document.getElementById('pad').dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(drop, list(stream.getvalue()))
    settled(page)
    assert "sure" in page.inner_text("#verdict")
    page.evaluate(drop, list(b"no image"))
    settled(page)
    assert "no image" in page.inner_text("#verdict")


def test_knobs_clusters_and_style_change_the_drawing(page):
    page.click("#chips button:nth-child(3)")
    settled(page)
    first = page.evaluate(PIXELS, "drawn")
    page.locator("#knobs input").first.fill("2.5")
    settled(page)
    second = page.evaluate(PIXELS, "drawn")
    page.click("#another")
    settled(page)
    third = page.evaluate(PIXELS, "drawn")
    assert first != second != third
    page.click("#centre")
    settled(page)
    assert page.evaluate(PIXELS, "drawn") == first
    page.click("#family button:nth-child(5)")
    settled(page)
    assert page.get_attribute("#chips button:nth-child(5)", "aria-checked") == "true"
    page.click("#examples button:nth-child(2)")
    settled(page)
    page.click("#keep-style")
    settled(page)
    assert page.locator("#chips button[aria-checked=true]").inner_text() == page.inner_text("#verdict strong")


def test_the_map_and_the_walk_follow(page):
    before = page.evaluate(PIXELS, "mapped")
    page.focus("#map")
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    settled(page)
    assert page.evaluate(PIXELS, "mapped") != before
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.1 * box["height"], steps=5)
    page.mouse.up()
    settled(page)
    names = Bundle.load(PRETRAINED / "digits").names
    assert page.inner_text("#mapped-caption").startswith(f"{names[0]} 100 %")
    before = page.evaluate(PIXELS, "walked")
    page.locator("#walk").fill("1")
    settled(page)
    after = page.evaluate(PIXELS, "walked")
    assert after != before
    page.select_option("#from", "origin")
    settled(page)
    assert page.evaluate(PIXELS, "walked") != after
    assert page.locator("#walk-strip canvas").count() == 11


@pytest.mark.parametrize(("button", "size"), [("#save-drawn", (280, 280)), ("#save-sort", (560, 280)), ("#save-walk", (3080, 280))])
def test_what_was_made_is_saved_as_png(page, tmp_path, button, size):
    page.click("#examples button")
    settled(page)
    with page.expect_download() as download:
        page.click(button)
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as saved:
        assert saved.size == size
        assert np.asarray(saved.convert("L")).max() > 100


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_fits_the_screen_and_can_be_operated_by_key(visit, folder, width):
    with served(folder) as address:
        page = visit(address, viewport={"width": width, "height": 800})
        page.wait_for_selector("html[data-ready]", timeout=WAIT)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        reached = set()
        for _ in range(80):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.parentElement?.id || ''"))
        assert {"pad", "clear", "file", "chips", "map", "walk", "from", "save-drawn"} <= reached


@pytest.fixture
def copy(folder, tmp_path):
    target = tmp_path / "page"
    shutil.copytree(folder, target)
    return target


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


def test_a_server_that_mislabels_scripts(visit, folder):
    with served(folder, {".mjs": "text/plain"}) as address:
        assert "ort/" in message(visit(address, tolerate=True))


def test_a_connection_that_breaks(visit, folder):
    with served(folder) as address:
        page = visit(address, tolerate=True)
        page.wait_for_selector("html[data-ready]", timeout=WAIT)
        page.route("**/classifier.onnx", lambda route: route.abort())
        page.reload()
        assert "cannot be reached" in message(page)


def test_once_loaded_it_needs_no_network(page):
    page.context.set_offline(True)
    page.click("#examples button:nth-child(3)")
    settled(page)
    assert "sure" in page.inner_text("#verdict")


def test_no_webassembly_is_said(visit, folder):
    with served(folder) as address:
        assert "no WebAssembly" in message(visit(address, tolerate=True, script="delete window.WebAssembly"))


def test_the_page_is_written_whole_or_not_at_all(folder, tmp_path):
    assert (folder / "ort" / "ort-wasm-simd-threaded.wasm").read_bytes()[:4] == b"\0asm"
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
