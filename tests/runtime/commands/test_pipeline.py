"""Rows from sources: what they depend on, and what a model's bad numbers become."""

import itertools

import numpy as np
import pytest
from PIL import Image

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.session import OutOfMemory, Session
from catvae.runtime.commands.pipeline import Options, classify_stream


def classify(bundle, sources, options):
    return itertools.chain.from_iterable(classify_stream(bundle, sources, options))


@pytest.mark.parametrize(("batch", "decoders"), [(1, 1), (5, 2), (64, 4)])
def test_rows_depend_on_the_image_alone(bundle, names, batch, decoders):
    expected = [next(classify(bundle, [name], Options(score=True, embed=True))) for name in names]
    options = Options(batch_size=batch, decoders=decoders, score=True, embed=True)
    assert list(classify(bundle, names, options)) == expected


def test_numbers_that_are_not_finite_become_an_error_row(bundle, names, monkeypatch):
    real = bundle._run

    def broken(role, data, outputs, batch_size):
        results = real(role, data, outputs, batch_size)
        results[0][1] = np.nan
        return results

    monkeypatch.setattr(bundle, "_run", broken)
    rows = list(classify(bundle, names[:3], Options()))
    assert [row["ok"] for row in rows] == [True, False, True]
    assert rows[1]["error"]["code"] == "non_finite_output"


def test_one_image_that_does_not_fit_into_memory_becomes_an_error_row(bundle, names, png, monkeypatch):
    """A stream of a million files goes on."""
    real = Session.run

    def no_white_ones(self, feed, outputs=None):
        (data,) = feed.values()
        if data.min(axis=(1, 2, 3)).max() == 255:
            raise OutOfMemory("out of memory")
        return real(self, feed, outputs)

    expected = list(classify(bundle, names[:5], Options()))
    monkeypatch.setattr(Session, "run", no_white_ones)
    rows = list(classify(Bundle.load(bundle.path), [*names[:3], str(png("white.png", 255)), *names[3:5]], Options()))
    assert rows.pop(3) == {
        "path": str(png("white.png", 255)),
        "ok": False,
        "error": {"code": "out_of_memory", "message": "not enough memory for a single image on this device"},
    }
    assert [row["cluster"] for row in rows] == [row["cluster"] for row in expected]


def test_a_list_that_grows_is_answered_as_it_grows(bundle, names):
    """Row by row: the next path is not asked for before the last is answered."""
    asked = []

    def growing():
        for name in names[:4]:
            asked.append(name)
            yield name

    for count, rows in enumerate(classify_stream(bundle, growing(), Options(batch_size=1, ahead=False)), 1):
        assert [row["path"] for row in rows] == asked[-1:]
        assert len(asked) == count


def test_rows_say_why_an_image_is_unknown(bundle, tmp_path):
    shape = bundle.preprocess.shape[:2]
    pictures = {
        "drawn": np.where(bundle.decode(bundle.means[3:4])[0, ..., 0] > 0.5, 255, 0),
        "blank": np.zeros(shape),
        "noise": np.random.default_rng(5).integers(0, 256, shape),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
    sources = [str(tmp_path / f"{name}.png") for name in pictures]
    rows = list(classify(bundle, sources, Options(score=True)))
    assert [(row["cluster"], row.get("reason")) for row in rows] == [(3, None), (-1, "blank"), (-1, "unlike")]
    assert not any("reason" in row for row in classify(bundle, sources, Options()))


def test_frames_are_told(bundle, tmp_path):
    frames = [Image.new("L", (28, 28), level) for level in (0, 90, 180)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (row,) = classify(bundle, [str(tmp_path / "a.gif")], Options())
    assert row["frames"] == 3


def test_nothing_gives_nothing(bundle):
    assert list(classify(bundle, [], Options())) == []
