"""The pictures in the README: the studio and the report of the packaged bundle in a real Chromium, on a desk and on a phone.

    python docs/screenshots.py

needs Chromium and playwright, as the tests of the pages do, and rewrites docs/images.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from catvae.export.web_page import write_page
from catvae.runtime import Bundle
from catvae.runtime.grid import picture
from catvae.runtime.report.of_bundle import facts_of_bundle
from catvae.runtime.report.page import render

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.browser import chromium, served  # noqa: E402

SIZES = {"desktop": (1180, 860), "phone": (390, 844)}
WAIT = 60_000
COLOURS = 128
"""Of a picture: a page has few, and the repository stays small."""


def shoot(browser, address: str, name: str, ready: str = "", prepare=None) -> None:
    """Pictures of a page at every size."""
    for size, (width, height) in SIZES.items():
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.5 if size == "phone" else 1)
        page.goto(address)
        if ready:
            page.wait_for_selector(ready, timeout=WAIT)
        if prepare:
            prepare(page)
        page.wait_for_timeout(500)
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        target = HERE / "images" / f"{name}-{size}.png"
        target.parent.mkdir(exist_ok=True)
        shot.quantize(COLOURS).save(target, optimize=True)
        print(f"{target}: {shot.width} x {shot.height}, {target.stat().st_size:,} bytes")
        page.close()


def main() -> None:
    bundle = Bundle.load()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        studio, report = Path(folder) / "studio", Path(folder) / "report"
        write_page(None, studio)
        report.mkdir()
        images = np.concatenate([np.round(bundle.sample(c, 60, seed=2) * 255).astype(np.uint8) for c in range(len(bundle.names))])
        (report / "report.html").write_bytes(render(facts_of_bundle(bundle, images)))
        three = io.BytesIO()
        picture(bundle.sample(bundle.names.index("3"), 1, seed=11)[0]).save(three, "PNG")

        def open_three(page) -> None:
            page.set_input_files("input[type=file]", files=[{"name": "three.png", "mimeType": "image/png", "buffer": three.getvalue()}])

        with served(studio) as address:
            shoot(browser, address, "studio", "html[data-ready]", open_three)
        with served(report) as address:
            shoot(browser, f"{address}report.html", "report")


if __name__ == "__main__":
    main()
