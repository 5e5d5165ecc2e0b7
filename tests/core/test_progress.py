"""What is said of a run while it trains: how much is done, and how long the rest takes."""

import re
from types import SimpleNamespace

import pytest

from catvae.core import progress
from catvae.core.runs.folder import RunFolder
from catvae.core.runs.record import Origin
from catvae.core.runs.session import Session
from catvae.core.runs.verdict import Verdict


def at(step: int, *, left: int, steps: int = 100, warm: int = 40):
    """A trainer there."""
    return SimpleNamespace(steps=steps, warm_steps=warm, steps_left=left, position=SimpleNamespace(step=step))


def test_steps_before_the_generator_count_for_what_they_cost():
    assert progress.work_left(at(0, left=120)) == pytest.approx(0.4 * 60 + 60)  # 20 of them of a second beginning
    assert progress.work_left(at(40, left=60)) == 60
    assert progress.work_left(at(70, left=30)) == 30
    assert progress.work_left(at(100, left=0)) == 0
    assert progress.work_left(at(30, left=70, warm=0)) == 70


def test_a_log_without_a_terminal_says_how_far_it_is_and_how_long_it_takes(blobs, quick, tmp_path, monkeypatch, capsys):
    """As if every step took 20 s, of either kind."""
    clock = [0.0]

    def now() -> float:
        return clock[0]

    def passes(*_) -> None:
        clock[0] += 20

    monkeypatch.setattr(progress.time, "monotonic", now)
    monkeypatch.setattr(progress, "STEP_WITHOUT_GENERATOR", 1.0)
    session = Session.start(RunFolder(tmp_path / "run"), blobs, quick(epochs=4), Origin(data="blobs"))
    step = session.trainer.step
    monkeypatch.setattr(session.trainer, "step", lambda: (passes(), step())[1])
    progress.train_with_bar(session, quiet=False)
    said = [line for line in capsys.readouterr().err.splitlines() if " left" in line]
    steps = session.trainer.steps
    assert len(said) == steps // 4  # a line whenever more than a minute has passed
    assert said[0].endswith(f": {4 / steps:.0%} of the steps, about {(steps - 4) * 20 / 60:.0f} min left")
    assert re.search(r"(100|9.)% of the steps, less than a minute left$", said[-1])


def test_what_to_look_at_is_said_beside_the_outcome(tmp_path, capsys):
    verdict = Verdict(status="healthy", notes=("two clusters may be one",))
    scores = {"train": {"acc": 0.3, "nmi": 0.02, "ari": 0.01, "ece": 0.5}}
    health = {"smallest_share": 0.1, "mean_confidence": 0.9, "view_agreement": 0.9, "drawn_return": 0.9}
    bound = {"elbo": -90.0, "nll": 80.0, "nll_error": 1.0}
    record = SimpleNamespace(verdict=verdict, health=health, bound=bound, scores=scores, resumed=[], events=[], clusters=[1, 2], seeds=[])
    progress.conclude(record, tmp_path)  # pyright: ignore[reportArgumentType]
    out, err = capsys.readouterr()
    assert "note: two clusters may be one" in err
    assert "verdict   healthy" in out
