"""Reports: what their facts say, that the page is whole and safe, and how it behaves in a real browser."""

import re
import shutil
import sys
import types
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.training_record import parse_training
from catvae.runtime.errors import DataError
from catvae.runtime.report import charts, facts, maps
from catvae.runtime.report.facts import Examined, Facts, cards, confusion, pictured
from catvae.runtime.report.of_bundle import facts_of_bundle
from catvae.runtime.report.page import render

from ...browser import chromium

HOSTILE = "<script>alert(1)</script>\"' &\udcff"


class Circles:
    """A drawer of three clusters in a plane whose images are its latents."""

    names = ("a", "b", HOSTILE)
    means = np.array([[4, 0], [0, 4], [-4, 0]], np.float32)

    def decode(self, latents):
        return np.clip(np.broadcast_to(latents.mean(1)[:, None, None, None], (len(latents), 6, 6, 1)) / 8 + 0.5, 0, 1).astype(np.float32)


@pytest.fixture
def examined():
    """Two images of b, three of a, none of the third; how far each lies from its centre grows with its number."""
    clusters = np.array([0, 1, 0, 1, 0])
    confidence = np.array([0.9, 0.8, 0.7, 0.99, 1.0], np.float32)
    assignment = np.full((5, 3), 0.0, np.float32)
    assignment[np.arange(5), clusters] = confidence
    assignment[np.arange(5), 2 - clusters] = 1 - confidence
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 1), np.uint8)
    embedding = Circles.means[clusters] + 0.1 * np.arange(5, dtype=np.float32)[:, None]
    return Examined(images, clusters, confidence, assignment, embedding, called=[f"{i}.png" for i in range(4)] + [HOSTILE])


def test_cards_are_sorted_by_size_and_show_the_nearest_and_the_least_certain(examined):
    first, second, empty = cards(examined, Circles(), [0.5, 0.3, 0.2])
    assert (first.cluster, second.cluster, empty.cluster) == (0, 1, 2)
    assert first.share == pytest.approx(0.6)
    assert first.training_share == 0.5
    assert first.nearest.images[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert first.nearest.called == ["0.png", "2.png", HOSTILE]
    assert first.borderline.images[:, 0, 0, 0].tolist() == [2, 0, 4]
    assert first.borderline.called == ["2.png", "0.png", HOSTILE]
    assert first.confidence == pytest.approx((0.9 + 0.7 + 1.0) / 3)
    assert first.histogram[-1] == 1  # the image that is quite sure
    assert sum(first.histogram) == 3
    assert first.closest == HOSTILE
    assert (len(empty.nearest.images), empty.share, empty.closest) == (0, 0, "")


def test_the_images_of_a_card_can_be_found_again(examined):
    def lists(of: Examined) -> list[str]:
        page = render(Facts(title="t", about="", **pictured(of, Circles(), [1, 0, 0]))).decode()  # pyright: ignore[reportArgumentType]
        return re.findall(r"<ol>(.*?)</ol>", page)

    hostile = "<li>&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27; &amp;?</li>"
    assert lists(examined)[:2] == [f"<li>0.png</li><li>2.png</li>{hostile}", f"<li>2.png</li><li>0.png</li>{hostile}"]
    assert len(lists(examined)) == 4  # none for the cluster that has no image
    assert lists(examined._replace(called=())) == []


def test_the_closest_cluster_is_another_class(examined):
    """Clusters that share a name are one: none of them is what another is closest to, and their shares are added."""

    class Merged(Circles):
        names = ("a", "b", "a")

    first, second, _ = cards(examined, Merged(), [0.5, 0.3, 0.2])
    assert first.closest == "b"
    assert second.closest == "a"


def test_a_table_of_classes_counts_every_image():
    table = confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), ["x", "y"], 3)
    assert table is not None
    assert table.counts.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert confusion(np.zeros(1, int), np.zeros(1, int), [str(i) for i in range(facts.MOST_CLASSES + 1)], 3) is None


def test_the_table_of_classes_has_what_agrees_on_its_diagonal():
    counts = np.array([[0, 0, 7, 1], [0, 9, 0, 0], [5, 0, 0, 0]])
    page = render(Facts(title="t", about="", names=["c", "b", "a", "empty"], confusion=facts.Confusion(["A", "B", "C"], counts)))
    assert re.findall(rb'<th scope="col">(\w+)</th>', page) == [b"a", b"b", b"c", b"empty"]


def test_images_unlike_those_of_training_are_called_so_first(bundle):
    rng = np.random.default_rng(0)
    for images, strange in ((rng.integers(0, 256, (80, 28, 28, 1), dtype=np.uint8), True), (np.zeros((0, 28, 28, 1), np.uint8), False)):
        page = Page(render(facts_of_bundle(bundle, images))).text
        assert ("Unlike the training images" in page) == strange
        assert page.index("Healthy") > (page.index("Unlike the training images") if strange else 0)


def test_the_principal_plane_keeps_distances_of_points_that_lie_in_one():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(40, 2)) * [5, 2]
    basis, _ = np.linalg.qr(rng.normal(size=(7, 2)))
    plane = maps.principal_plane((flat @ basis.T + 3).astype(np.float32))
    gaps = lambda points: np.linalg.norm(points[:, None] - points[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(gaps(plane), gaps(flat), atol=1e-5)
    assert maps.principal_plane(rng.normal(size=(5, 1))).shape == (5, 2)
    assert np.isfinite(maps.principal_plane(np.zeros((4, 3)))).all()


def test_signs_of_health_are_called_in_words():
    table = facts.health_table({"perplexity": 9.87654, "view_agreement": 0.5, "of a later version": 1.0})
    assert table == {"clusters in use, by entropy (perplexity)": "9.877", "same cluster in a view": "0.5", "of a later version": "1"}


def test_clusters_of_one_name_have_cards_and_points_of_their_own(examined):
    class Merged(Circles):
        names = ("a", "b", "a")

    shown = pictured(examined, Merged(), [0.5, 0.3, 0.2])
    assert shown["names"] == ["a (0)", "b", "a (2)"]
    assert [card.name for card in shown["cards"]] == ["a (0)", "b", "a (2)"]


def test_umap_itself_keeps_groups_together():
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 40)
    layout = maps.umap_plane((8 * np.eye(6)[groups] + rng.standard_normal((120, 6))).astype(np.float32))
    assert layout is not None
    centres = np.stack([layout[groups == g].mean(0) for g in range(3)])
    assert (((layout[:, None] - centres) ** 2).sum(2).argmin(1) == groups).all()


def test_umap_comes_first_where_it_is_installed(monkeypatch):
    class UMAP:
        def __init__(self, **options):
            assert options["random_state"] == 0

        def fit_transform(self, points):
            return points[:, :2] * 2

    points = np.random.default_rng(1).normal(size=(40, 5))
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    first, second = maps.maps_of(points)
    assert "UMAP" in first.how
    assert "principal" in second.how
    np.testing.assert_array_equal(first.points, points[:, :2] * 2)
    for broken in ([[0.0, np.nan]] * 40, None):  # what it returns, or an exception: a report goes on without that map
        monkeypatch.setattr(UMAP, "fit_transform", lambda self, points, broken=broken: np.array(broken, float).reshape(40, 2))
        assert [each.points.shape for each in maps.maps_of(points)] == [(40, 2)]
    monkeypatch.setitem(sys.modules, "umap", None)
    assert len(maps.maps_of(points)) == 1
    assert maps.maps_of(points[:2]) == []


@pytest.mark.parametrize("value", [0.0, 4.05312e-06, -0.0012345, -2101.4, 123.456, -9999.9, -123456.7, 1e12])
def test_the_value_beside_a_curve_has_room(value):
    text = charts.short(value)
    assert len(text) <= 8
    assert float(text) == pytest.approx(value, rel=0.05)
    assert f">{text}</text>" in charts.line([(1, 1.0), (2, value)], "a curve", 2)


def test_curves_share_one_axis_and_say_where_they_begin():
    whole, late = (charts.line([(first, 8.0), (10, 3.5)], "a curve", 10) for first in (1, 5))
    starts = [float(re.search(r'class="curve" d="M([\d.]+) ', text)[1]) for text in (whole, late)]  # pyright: ignore[reportOptionalSubscript]
    assert starts[0] < 10 < starts[1]
    assert ">8</text>" in whole
    assert ">3.5</text>" in whole


def test_colours_of_clusters_differ():
    assert len({charts.colour(i, 20) for i in range(20)}) == 20


class Page(HTMLParser):
    """What a page refers to, and whether its pictures say what they show."""

    def __init__(self, page: bytes):
        super().__init__()
        self.images, self.ids, self.links, self.tags, self.text = [], [], [], [], ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [given[name] for name in ("src", "href", "srcset", "action") if given.get(name)]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "img" or given.get("role") == "img":
            self.images.append(given.get("alt") or given.get("aria-label"))

    def handle_data(self, data):
        self.text += data


def test_the_page_is_self_contained_and_hostile_names_are_text(examined):
    found = facts.pictured(examined, Circles(), [0.5, 0.3, 0.2])
    page = Page(
        render(
            Facts(
                title=HOSTILE,
                about=HOSTILE,
                verdict="degenerate",
                reasons=[HOSTILE],
                notes=["look"],
                tiles={HOSTILE: HOSTILE},
                curves={HOSTILE: [(1, 2.0), (2, 1.0)], "one point": [(1, 1.0)]},
                confusion=confusion(examined.clusters, examined.clusters, [HOSTILE, "y"], 3),
                tables={HOSTILE: {HOSTILE: HOSTILE}, "empty": {}},
                **found,  # pyright: ignore[reportArgumentType]
            )
        )
    )
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert all(page.images)
    assert len(page.images) > 10
    assert "do not rely on these clusters" in page.text.lower()
    assert "one point" not in page.text  # a curve needs two
    assert "no image fell into it" in page.text


def test_a_report_of_a_bundle_is_the_same_every_time(bundle):
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
    assert render(facts_of_bundle(bundle, images)) == render(facts_of_bundle(bundle, images))


def test_the_packaged_bundle_tells_of_its_training(bundle):
    found = facts_of_bundle(bundle, np.zeros((0, 28, 28, 1), np.uint8))
    assert found.verdict == "healthy"
    assert {"evidence lower bound", "reconstruction"} <= found.curves.keys()
    assert found.tables["Configuration"]["epochs"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"verdict": "splendid"}', b'{"curves": {"x": [[1, "y"]]}}', b"\xff"])
def test_a_damaged_record_of_training_is_named(run, bundle, tmp_path, content):
    shutil.copytree(bundle.path, tmp_path / "bad")
    (tmp_path / "bad" / "training.json").write_bytes(content)
    result = run("catvae-report", "bad")
    assert result.returncode == 3
    assert b"training.json is not the file the manifest names" in result.stderr
    with pytest.raises(DataError, match="not a record of a training"):
        parse_training(content, "bad/training.json")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_it_fits_asks_for_nothing_and_answers_the_keyboard(browser, bundle, tmp_path, width, scheme):
    path = tmp_path / "report.html"
    path.write_bytes(render(facts_of_bundle(bundle, np.zeros((0, 28, 28, 1), np.uint8))))
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + Number(b), 0) > 380")
    assert light == (scheme == "light")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")
    context.close()
    assert complaints == []


def test_a_picture_strip_keeps_pixels(examined):
    """What is shown is what was given: decoded from the page, the nearest images of a card are the bytes that went in."""
    import base64
    import io

    page = render(Facts(title="t", about="", **facts.pictured(examined, Circles(), [1, 0, 0])))  # pyright: ignore[reportArgumentType]
    found = re.search(rb'<img class="strip" src="data:image/png;base64,([^"]+)" alt="3 images nearest', page)
    assert found
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))
    assert strip.shape == (6, facts.SHOWN * 7 - 1, 4)  # as wide as a full one: one image is not blown up to the width of a card
    assert strip[0, :21:7, 0].tolist() == [0, 2, 4]
    assert strip[0, 6:20:7, 3].tolist() == [0, 0]  # gaps are clear
    assert not strip[:, 21:, 3].any()


def test_images_without_a_finite_answer_have_no_place_on_the_page(bundle, monkeypatch):
    """As half precision gives for an odd image: the map would have no directions."""
    images = np.round(bundle.sample(3, 6, seed=2) * 255).astype(np.uint8)
    real = type(bundle).examine

    def spoilt(first: int):
        def examine(self, given, **options):
            answers = real(self, given, **options)
            answers.embedding[:first], answers.finite[:first] = np.nan, False
            return answers

        return examine

    monkeypatch.setattr(type(bundle), "examine", spoilt(2))
    found = facts_of_bundle(bundle, images, np.zeros(6, np.int64), ["a"], [f"{i}.png" for i in range(6)])
    assert found.tiles["images examined"] == "4"
    assert {name for card in found.cards for name in card.nearest.called} == {f"{i}.png" for i in range(2, 6)}
    assert render(found)
    monkeypatch.setattr(type(bundle), "examine", spoilt(6))
    with pytest.raises(DataError, match="none of the images with finite numbers"):
        facts_of_bundle(bundle, images)


def test_unknown_images_are_on_no_cluster_s_card():
    bundle = Bundle.load()
    digits = np.round(bundle.decode(bundle.means) * 255).astype(np.uint8)
    digits = np.where(digits > 127, 255, 0).astype(np.uint8)
    blank = np.zeros((6, *bundle.preprocess.shape), np.uint8)
    called = [*["blank"] * 6, *map(str, range(10))]
    facts = facts_of_bundle(bundle, np.concatenate([blank, digits]), called=called)
    assert facts.tiles["unknown to the model"] == "37.5%"
    assert {card.share for card in facts.cards} == {1 / 16}
    for card in facts.cards:
        assert all(image.any() for image in (*card.nearest.images, *card.borderline.images))
        assert list(card.nearest.called) == [str(card.cluster)]
    assert facts_of_bundle(bundle, blank).tiles["unknown to the model"] == "100.0%"
