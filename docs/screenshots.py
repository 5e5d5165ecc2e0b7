"""The pictures in the README: the studio and the report of the packaged bundle in a real Chromium, on a desk and on a phone.

    python docs/screenshots.py [mnist, or a folder with its IDX files]

needs Chromium and playwright, as the tests of the pages do, and rewrites docs/images.
"""

import io
import itertools
import sys
import tempfile
from pathlib import Path

from PIL import Image

from catvae.core.images.data import load_data
from catvae.export.web_page import write_page
from catvae.runtime import Bundle
from catvae.runtime.report.of_bundle import facts_of_bundle
from catvae.runtime.report.page import render

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.browser import chromium, served  # noqa: E402

SIZES = {"desktop": (1180, 860), "phone": (390, 844)}
SCHEMES = {"": "light", "-dark": "dark"}
WAIT = 60_000
COLOURS = 128
"""Of a picture: a page has few, and the repository stays small."""


def shoot(browser, address: str, name: str, ready: str = "", prepare=None) -> None:
    """Pictures of a page at every size, on light and on dark paper."""
    for (size, (width, height)), (suffix, scheme) in itertools.product(SIZES.items(), SCHEMES.items()):
        scale = 1.5 if size == "phone" else 1
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme=scheme)
        page.goto(address)
        if ready:
            page.wait_for_selector(ready, timeout=WAIT)
        if prepare:
            prepare(page)
        page.wait_for_timeout(500)
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        target = HERE / "images" / f"{name}-{size}{suffix}.png"
        target.parent.mkdir(exist_ok=True)
        shot.quantize(COLOURS).save(target, optimize=True)
        print(f"{target}: {shot.width} x {shot.height}, {target.stat().st_size:,} bytes")
        page.close()


THREE = [(0.33, 0.26), (0.45, 0.18), (0.6, 0.22), (0.63, 0.36), (0.48, 0.47), (0.64, 0.58), (0.66, 0.74), (0.5, 0.84), (0.32, 0.76)]
"""A three, as shares of the drawing area."""


def draw_three(page) -> None:
    """Draw on the pad as a visitor does."""
    box = page.locator("#pad").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in THREE]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def main(source: str) -> None:
    bundle, data = Bundle.load(), load_data(source)
    if data.test_images is None:
        sys.exit(f"{source} has no test images, which the packaged bundle was not trained on")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        studio, report = Path(folder) / "studio", Path(folder) / "report"
        write_page(None, studio)
        report.mkdir()
        facts = facts_of_bundle(bundle, data.test_images[:5000], data.test_labels[:5000], data.label_names)
        (report / "report.html").write_bytes(render(facts))

        with served(studio) as address:
            shoot(browser, address, "studio", "html[data-ready]", draw_three)
        with served(report) as address:
            shoot(browser, f"{address}report.html", "report")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["mnist"])
