"""The studio in a real browser: the runtime's answers, what a visitor does, and what the page says when it cannot work."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from catvae.export.web_page import write_page
from catvae.runtime.bundles.answers import UNKNOWN
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.commands.labelling import renamed, write_names
from catvae.runtime.images.image_files import read_image

from ..browser import served
from .studio import ready, same_answers, settled

PIXELS = "id => Array.from(document.getElementById(id).getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 == 0)"

FIRST_ANSWER = """async () => {
    const began = performance.now();
    document.querySelector('#examples button').click();
    while (!performance.getEntriesByName('first answer').length) await new Promise(resolve => setTimeout(resolve, 1));
    return performance.getEntriesByName('first answer')[0].startTime - began;
}"""


def test_answers_are_the_runtimes(page, capsys):
    answered = page.evaluate(FIRST_ANSWER)
    same_answers(page, Bundle.load(PRETRAINED / "digits"))
    start = int(page.get_attribute("html", "data-ready"))
    with capsys.disabled():
        print(f"\nstudio: ready {start} ms after navigation, the first answer {answered:.0f} ms later")


def test_clusters_of_one_name_are_one_class(visit, tmp_path):
    bundle = Bundle.load(PRETRAINED / "digits")
    names = ["same" if c in (0, 2) else name for c, name in enumerate(bundle.names)]
    write_names(bundle, renamed(bundle.manifest, names, {}), tmp_path / "merged")
    write_page(tmp_path / "merged", tmp_path / "page")
    with served(tmp_path / "page") as address:
        page = ready(visit(address))
        same_answers(page, Bundle.load(tmp_path / "merged"))
        page.click("#examples button:nth-child(3)")
        settled(page)
        assert page.inner_text("#verdict strong") == "same"
        bars = page.locator("#bars li span:first-child").all_inner_texts()
        assert len(bars) == len(set(bars)) == 6
        assert page.locator("#chips button").all_inner_texts()[:3] == ["same (0)", names[1], "same (2)"]


def test_a_drawing_is_sorted(page):
    assert "Draw" in page.inner_text("#verdict")
    assert page.is_disabled("#keep-style")
    assert page.is_disabled("#save-sort")
    stroke(page, (150, 40), (150, 260), lift=False)
    assert "1" in page.inner_text("#verdict strong")  # while it is being drawn
    page.mouse.up()
    settled(page)
    assert page.locator("#bars li").count() == 6
    bundle = Bundle.load(PRETRAINED / "digits")
    seen = np.array(page.evaluate(PIXELS, "seen"), np.uint8).reshape(1, 28, 28, 1)
    rebuilt = np.array(page.evaluate(PIXELS, "rebuilt"), float).reshape(28, 28)
    assert np.abs(rebuilt - 255 * bundle.decode(bundle.transform(seen))[0, ..., 0]).max() <= 1
    assert page.is_visible("#unlike") == (bundle.examine(seen, score=True).clusters[0] == UNKNOWN)
    page.click("#clear")
    page.uncheck("#centre-drawing")  # which makes a dot as large as a digit
    stroke(page, (150, 150), (152, 150), lift=False)
    settled(page)
    assert not page.is_visible("#unlike")  # a dot may become anything
    page.mouse.up()
    settled(page)
    assert page.is_visible("#unlike")
    page.check("#centre-drawing")
    page.click("#clear")
    assert "Draw" in page.inner_text("#verdict")
    page.check("#invert")  # an empty pad is no image, in either sense
    settled(page)
    assert "Draw" in page.inner_text("#verdict")


def stroke(page, start, *others, lift=True) -> None:
    """A line on the pad, in the page's pixels."""
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    for x, y in others:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=12)
    if lift:
        page.mouse.up()
    settled(page)


def ink(page) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the image as the model reads it that hold ink."""
    seen = np.array(page.evaluate(PIXELS, "seen"), int).reshape(28, 28) > 60
    return np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))


def test_a_small_drawing_in_a_corner_is_read_as_a_large_one_in_the_middle(page):
    stroke(page, (20, 15), (80, 15), (40, 90))
    rows, columns = ink(page)
    assert 18 <= np.ptp(rows) + 1 <= 22
    assert abs(rows.mean() - 13.5) <= 1
    assert abs(columns.mean() - 13.5) <= 1
    assert page.inner_text("#verdict strong") == "7"
    page.uncheck("#centre-drawing")
    settled(page)
    rows, columns = ink(page)
    assert rows.max() < 12
    assert columns.max() < 12


def test_loading_counts_megabytes_of_everything(visit, folder):
    watch = """new MutationObserver(() => (window.said ??= []).push(document.getElementById('status-text')?.textContent ?? ''))
        .observe(document, {subtree: true, childList: true, characterData: true})"""
    with served(folder) as address:
        said = ready(visit(address, script=watch)).evaluate("window.said")
    shares = [(what, float(done), float(total)) for text in said for what, done, total in re.findall(r"(\w+): (\S+) of (\S+) MB", text)]
    assert {what for what, _, _ in shares} == {"engine", "classifier", "encoder", "decoder"}
    assert [done for _, done, _ in shares] == sorted(done for _, done, _ in shares)
    size = sum(path.stat().st_size for path in [*folder.rglob("*.onnx"), *folder.rglob("*.wasm.gz")]) / 1e6
    assert all(total == pytest.approx(size, abs=0.06) for _, _, total in shares)


def test_cleared_while_it_is_being_sorted_it_stays_clear(page):
    page.evaluate("() => { document.querySelector('#examples button').click(); document.getElementById('clear').click(); }")
    settled(page)
    assert "Draw" in page.inner_text("#verdict")
    assert page.locator("#bars li").count() == 0


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
    before = page.inner_text("#verdict"), page.evaluate(PIXELS, "pad")
    page.evaluate(drop, list(b"no image"))
    settled(page)
    assert "no image" in page.inner_text("#sort-trouble")
    assert (page.inner_text("#verdict"), page.evaluate(PIXELS, "pad")) == before  # what was there stays
    page.click("#examples button")
    settled(page)
    assert page.is_hidden("#sort-trouble")


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
    assert first != second != third != first
    page.click("#centre")
    settled(page)
    assert page.evaluate(PIXELS, "drawn") == first
    page.focus("#family button:nth-child(5)")
    page.keyboard.press("Enter")
    settled(page)
    assert page.get_attribute("#chips button:nth-child(5)", "aria-checked") == "true"
    assert page.evaluate("document.activeElement === document.querySelector('#family button:nth-child(5)')")
    frames = page.evaluate("[...document.querySelectorAll('#family button')].map(button => getComputedStyle(button).borderColor)")
    assert [i for i, frame in enumerate(frames) if frames.count(frame) == 1] == [4]
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
    page.click("#walk-strip button:nth-child(6)")
    settled(page)
    assert page.locator("#walk-strip button[aria-current=true]").count() == 1
    assert page.get_attribute("#walk-strip button:nth-child(6)", "aria-current") == "true"
    page.select_option("#from", page.input_value("#to"))
    settled(page)
    assert page.input_value("#from") != page.input_value("#to")


def test_the_sorted_image_is_marked_on_the_map(page):
    at = """([x, y]) => [...document.getElementById('map').getContext('2d').getImageData(440 * x, 440 * y, 1, 1).data]"""
    assert page.is_hidden("#map-mark")
    page.click("#examples button:nth-child(6)")  # the sixth of ten centres lies at the bottom of the rim
    settled(page)
    assert page.inner_text("#map-mark") == "The cross is the image that was sorted."
    assert page.evaluate(at, [0.5, 0.9])[:3] == [255, 255, 255]
    page.click("#examples button:first-child")
    settled(page)
    assert page.evaluate(at, [0.5, 0.1])[:3] == [255, 255, 255]
    assert page.evaluate(at, [0.5, 0.9])[:3] != [255, 255, 255]
    page.click("#clear")
    settled(page)
    assert page.is_hidden("#map-mark")
    assert page.evaluate(at, [0.5, 0.1])[:3] != [255, 255, 255]


@pytest.mark.parametrize(
    ("button", "size"),
    [("#save-drawn", (280, 280)), ("#save-map", (280, 280)), ("#save-sort", (560, 280)), ("#save-walk", (3080, 280))],
)
def test_what_was_made_is_saved_as_png(page, tmp_path, button, size):
    page.click("#examples button")
    settled(page)
    with page.expect_download() as download:
        page.click(button)
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as saved:
        assert saved.size == size
        assert np.asarray(saved.convert("L")).max() > 100


@pytest.fixture(scope="module")
def long_names(tmp_path_factory):
    """The page of clusters whose names are as long as people write them."""
    target, bundle = tmp_path_factory.mktemp("named"), Bundle.load(PRETRAINED / "digits")
    names = [f"{name}: scratched surface near the left edge" for name in bundle.names]
    write_names(bundle, renamed(bundle.manifest, names, {}), target / "bundle")
    write_page(target / "bundle", target / "page")
    return target / "page"


@pytest.mark.parametrize("names", ["folder", "long_names"])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_fits_the_screen_and_can_be_operated_by_key(visit, request, names, width):
    with served(request.getfixturevalue(names)) as address:
        page = ready(visit(address, viewport={"width": width, "height": 800}))
        page.click("#examples button")
        settled(page)
        right = "[...document.querySelectorAll('main *')].filter(e => e.offsetParent).map(e => e.getBoundingClientRect().right)"
        assert max(page.evaluate(right)) <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        reached = set()
        for _ in range(80):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.parentElement?.id || ''"))
        assert {"centre-drawing", "clear", "file", "chips", "map", "walk", "from", "save-drawn"} <= reached
