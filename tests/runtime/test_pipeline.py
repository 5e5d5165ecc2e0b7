"""Rows from sources: order, laziness, and what a model's bad numbers become."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from catvae.runtime import pipeline
from catvae.runtime.pipeline import AHEAD, Options, classify_stream


@pytest.fixture
def names(png):
    noise = np.random.default_rng(3)
    return [str(png(f"{i:03}.png", noise.integers(0, 256, (28, 28), dtype=np.uint8))) for i in range(23)]


def classify(bundle, sources, options):
    return itertools.chain.from_iterable(classify_stream(bundle, sources, options))


def test_rows_come_in_order_whoever_finishes_first(bundle, names, monkeypatch):
    gate = threading.Event()
    decode = pipeline._decode_block

    def slow_first(paths, rules):
        if names[0] in paths:
            gate.wait(5)
        else:
            gate.set()
        return decode(paths, rules)

    monkeypatch.setattr(pipeline, "_decode_block", slow_first)
    rows = list(classify(bundle, names, Options(batch_size=4, decoders=3)))
    assert [row["path"] for row in rows] == names


@pytest.mark.parametrize(("batch", "decoders"), [(1, 1), (5, 2), (64, 4)])
def test_rows_depend_on_the_image_alone(bundle, names, batch, decoders):
    expected = [next(classify(bundle, [name], Options(score=True, embed=True))) for name in names]
    options = Options(batch_size=batch, decoders=decoders, score=True, embed=True)
    assert list(classify(bundle, names, options)) == expected


def test_sources_are_not_read_far_ahead(bundle, names):
    taken = []

    def endless():
        for name in itertools.cycle(names):
            taken.append(name)
            yield name

    blocks = classify_stream(bundle, endless(), Options(batch_size=4, decoders=2))
    for _ in range(3):
        next(blocks)
    blocks.close()
    assert len(taken) <= 3 * 4 + 4 * (AHEAD + 2 + 1)


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


def test_frames_are_told(bundle, tmp_path):
    frames = [Image.new("L", (28, 28), level) for level in (0, 90, 180)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (row,) = classify(bundle, [str(tmp_path / "a.gif")], Options())
    assert row["frames"] == 3


def test_nothing_gives_nothing(bundle):
    assert list(classify(bundle, [], Options())) == []


@pytest.mark.parametrize(("quick", "expected"), [(10.0, 1), (0.0, 3)])
def test_tiny_images_are_decoded_by_one_thread(bundle, names, monkeypatch, quick, expected):
    used = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads, **options):
            used.append(threads)
            super().__init__(threads, **options)

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", Pool)
    monkeypatch.setattr(pipeline, "default_threads", lambda: 3)
    monkeypatch.setattr(pipeline, "QUICK", quick)
    assert [row["path"] for row in classify(bundle, names, Options(batch_size=4))] == names
    assert used == [expected]
