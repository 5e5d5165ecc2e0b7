"""The report that a run leaves: what the run says of itself stands on the page."""

import dataclasses
import re

import pytest

from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin
from catvae.core.runs.seeds import plan, train_seeds
from catvae.core.runs.session import Session
from catvae.core.runs.summary import CURVES
from catvae.core.vae.objective import Terms
from catvae.runtime.report.facts import HEALTH

from ..conftest import quick_config


@pytest.fixture(scope="module")
def page(blobs, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("report") / "run")
    session = Session.start(folder, blobs, quick_config(), Origin(data="somewhere/blobs"))
    session.train()
    record = session.finish()
    return (folder.path / "report.html").read_text(), record


def test_verdict_scores_and_time_are_on_the_page(page):
    text, record = page
    assert f'class="verdict {record.verdict.status}"' in text
    assert f"<b>{record.scores['train']['acc']:.3f}</b><span>ACC, train images</span>" in text
    assert re.search(r"<b>0:\d\d min</b><span>training time", text)
    assert record.data.hash in text
    assert record.data.name in text
    assert "somewhere" not in text  # where the images lie is nobody's business who is sent the page


def test_images_are_called_by_their_number_or_their_file(page, blobs, quick, tmp_path):
    text, _ = page
    numbers = [int(number) for number in re.findall(r"<li>number (\d+)</li>", text)]
    assert len(numbers) > 1
    assert all(0 <= number < len(blobs.images) for number in numbers)
    files = tuple(f"at/{row}.png" for row in range(len(blobs.images)))
    session = Session.start(RunFolder(tmp_path / "run"), dataclasses.replace(blobs, files=files), quick(epochs=1), Origin(data="blobs"))
    session.train()
    session.finish()
    text = (tmp_path / "run" / "report.html").read_text()
    assert "<li>number" not in text
    assert set(re.findall(r"<li>(at/\d+\.png)</li>", text)) <= set(files)
    assert "<li>at/" in text


def test_every_term_that_was_trained_has_a_curve(page):
    text, _ = page
    drawn = set(re.findall(r"<figcaption>([^<]*)</figcaption></figure>", text))
    assert set(CURVES.values()) <= drawn
    assert set(CURVES) == {*Terms._fields}


def test_every_sign_of_health_has_words(page):
    text, record = page
    assert set(record.health) == set(HEALTH)
    assert all(words.split(",")[0].split("'")[0] in text for words in HEALTH.values())


def test_known_classes_are_compared_with_all_training_images(page, blobs):
    text, _ = page
    table = text[text.index('class="matrix"') : text.index("</table>", text.index('class="matrix"'))]
    assert sum(int(count) for count in re.findall(r"<td style=[^>]*>(\d+)</td>", table)) == len(blobs.images)


def test_a_run_chosen_among_seeds_lists_them_all(blobs, quick, tmp_path):
    folder, config = RunFolder(tmp_path / "run"), quick(epochs=2)
    plan(folder, [3, 4])
    train_seeds(folder, blobs, config, Origin(data="blobs"), None, lambda session, _prefix: session.train())
    text = (folder.path / "report.html").read_text()
    assert "seed 3" in text
    assert "seed 4" in text
    assert text.count("(kept)") == 1
