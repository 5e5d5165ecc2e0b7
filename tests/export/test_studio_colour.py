"""The studio of a model of colour images that are not square: the runtime's answers, photographs that lie on their side, what is saved."""

import io

import numpy as np
import pytest
from PIL import Image

from catvae.core.config import resolve
from catvae.core.images.data import load_data
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin
from catvae.core.runs.session import Session
from catvae.export.bundle_writer import export_bundle
from catvae.export.web_page import write_page
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.images.image_files import read_image

from ..browser import served
from .studio import ready, same_answers, settled

HEIGHT, WIDTH = 12, 20
SEEN = "id => [...document.getElementById(id).getContext('2d').getImageData(0, 0, 20, 12).data].filter((_, i) => i % 4 < 3)"


def flags(count: int, height: int, width: int) -> np.ndarray:
    """Flags of three kinds: red over white, blue beside yellow, a green disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    images = np.zeros((count, height, width, 3), np.uint8)
    for i, image in enumerate(images):
        tone = rng.integers(150, 256)
        if i % 3 == 0:
            image[:] = np.where((y < height * rng.uniform(0.35, 0.65))[..., None], (tone, 10, 20), (tone, tone, tone))
        elif i % 3 == 1:
            image[:] = np.where((x < width * rng.uniform(0.35, 0.65))[..., None], (10, 20, tone), (tone, tone, 0))
        else:
            middle = height * rng.uniform(0.4, 0.6), width * rng.uniform(0.4, 0.6)
            image[:] = np.where(((y - middle[0]) ** 2 + (x - middle[1]) ** 2 < (height / 3) ** 2)[..., None], (20, tone, 40), (30, 30, 30))
    return images


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    work = tmp_path_factory.mktemp("colour")
    np.save(work / "flags.npy", flags(240, HEIGHT, WIDTH))
    config = resolve({"clusters": 3, "epochs": 4, "hidden": 16, "overclusters": 2, "starts": 1, "precision": "fp32", "augment": "none"})
    session = Session.start(RunFolder(work / "run"), load_data(str(work / "flags.npy")), config, Origin(data="flags"))
    session.train()
    session.finish()
    export_bundle(work / "run", work / "bundle")
    return Bundle.load(work / "bundle")


@pytest.fixture
def colour_page(visit, bundle, tmp_path):
    write_page(bundle.path, tmp_path / "page")
    with served(tmp_path / "page") as address:
        yield ready(visit(address))


def test_answers_are_the_runtimes(colour_page, bundle):
    same_answers(colour_page, bundle)


def test_photographs_are_opened_not_drawn(colour_page):
    assert colour_page.inner_text("#sort-hint") == "Open an image, drop one, or paste one."
    assert colour_page.locator("#centre-drawing").count() == 0
    assert colour_page.inner_text("#verdict") == "Open an image"
    colour_page.locator("#pad").click()
    assert colour_page.inner_text("#verdict") == "Open an image"
    colour_page.locator("#examples button").first.click()
    settled(colour_page)
    assert colour_page.locator("#verdict strong").count() == 1
    colour_page.click("#clear")
    assert colour_page.inner_text("#verdict") == "Open an image"


@pytest.mark.parametrize(("format_", "orientation"), [("PNG", 1), ("PNG", 6), ("JPEG", 1), ("JPEG", 6), ("WEBP", 1)])
def test_a_photograph_is_read_as_the_runtime_reads_it(colour_page, bundle, tmp_path, format_, orientation):
    """A large one, stored on its side and marked so, as telephones do; of WebP files Chromium does not look at the mark."""
    upright = Image.fromarray(flags(2, 120, 200)[1])
    stored = upright.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photograph.{format_.lower()}"
    stored.save(path, format_, exif=exif, **({"lossless": True} if format_ == "WEBP" else {"quality": 95} if format_ == "JPEG" else {}))
    expected = read_image(path, bundle.preprocess)
    assert np.abs(expected.astype(int) - read_image(_png(upright), bundle.preprocess)).mean() < 3
    colour_page.set_input_files("#file", path)
    settled(colour_page)
    seen = np.array(colour_page.evaluate(SEEN, "seen"), dtype=int).reshape(HEIGHT, WIDTH, 3)
    difference = np.abs(seen - expected)
    # Pillow's libjpeg and the browser's round otherwise; what is stored without loss comes out exactly.
    assert difference.max() <= (6 if format_ == "JPEG" else 0), difference.max()
    assert colour_page.inner_text("#verdict strong") == bundle.names[int(bundle.predict(expected[None])[0])]


def test_what_is_saved_is_in_colour_and_has_the_models_proportions(colour_page, bundle, tmp_path):
    with colour_page.expect_download() as caught:
        colour_page.click("#save-drawn")
    caught.value.save_as(tmp_path / "made.png")
    made = Image.open(tmp_path / "made.png").convert("RGB")
    assert made.width / made.height == pytest.approx(WIDTH / HEIGHT, rel=0.02)
    pixels = np.asarray(made, dtype=int)
    assert np.abs(pixels[..., 0] - pixels[..., 2]).max() > 5


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
